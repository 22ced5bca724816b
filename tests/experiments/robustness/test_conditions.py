"""The grid's conditions: how many, how they are called, what an evaluation sees of them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rims_rl.envs.distractors import KINDS
from rims_rl.envs.registration import MAZES, PICK_OBJECT
from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.evaluation import View
from rims_rl.experiments.robustness.conditions import CLEAN, Condition, conditions_for
from rims_rl.experiments.robustness.config import FREE_TO_CHANGE, RobustnessConfig

PICK, NOVEL, MANY, BOTH = PICK_OBJECT


class TestGrid:
    def test_it_is_every_kind_at_every_intensity_of_every_split_and_the_clean_world_first(self) -> None:
        config = RobustnessConfig(intensities=(1.0, 0.25, 0.5), variants=("mode:1", "lazy_enemy"))
        found = conditions_for(config, "pong")
        assert len(found) == 1 + len(KINDS) * 3 * 2 + 2
        assert found[0] == CLEAN
        assert {(one.kind, one.intensity, one.split) for one in found if one.kind} == {
            (kind, intensity, split)
            for kind in KINDS
            for intensity in (0.25, 0.5, 1.0)
            for split in ("train", "held-out")
        }

    def test_every_condition_has_a_slug_of_its_own_that_is_a_file_s_name(self) -> None:
        intensities = (0.1, 0.11, 0.111111, 0.1111111, 1.0)
        config = RobustnessConfig(intensities=intensities, variants=("mode:1", "lazy_enemy", "mode:1+lazy_enemy"))
        found = [*conditions_for(config, "pong"), *conditions_for(config, PICK)[1:]]
        slugs = {one.slug for one in found}
        assert len(slugs) == len(found)
        assert not any(set(slug) & set("/:+ ") for slug in slugs)

    def test_tasks_whose_names_a_file_cannot_tell_apart_have_slugs_of_their_own(self) -> None:
        tasks = ("a/b-v0", "a-b-v0", "a b-v0", "clean", "balls_0.5_train")
        others = [CLEAN, Condition("balls", 0.5, "train")]
        slugs = [one.slug for one in [*others, *(Condition(env=task) for task in tasks)]]
        assert len(set(slugs)) == len(slugs)
        assert not any(set(slug) & set("/:+ ") for slug in slugs)

    def test_what_is_given_twice_is_measured_once(self) -> None:
        config = RobustnessConfig(
            kinds=("noise", "noise"), intensities=(0.5, 0.5, 0.0), splits=("train", "train"),
            variants=("lazy_enemy", "lazy_enemy", "mode:1+lazy_enemy", "lazy_enemy+mode:1"),
        )  # fmt: skip
        assert conditions_for(config, "pong") == [
            CLEAN, Condition("noise", 0.5, "train"), Condition(variant="lazy_enemy"),
            Condition(variant="mode:1+lazy_enemy"),
        ]  # fmt: skip

    def test_without_kinds_variants_remain(self) -> None:
        config = RobustnessConfig(kinds=("none",), variants=("hidden_enemy",))
        assert conditions_for(config, "pong") == [CLEAN, Condition(variant="hidden_enemy")]

    def test_other_tasks_have_the_changed_ones_that_belong_to_them(self) -> None:
        config = RobustnessConfig()
        assert [one.env for one in conditions_for(config, PICK)] == [None, NOVEL, MANY, BOTH]
        first, *larger = MAZES["DoorKeyMazeEnv"]
        assert [one.env for one in conditions_for(config, first)] == [None, *larger]

    def test_tasks_can_be_named_and_that_of_the_training_is_not_a_changed_one(self) -> None:
        config = RobustnessConfig(test_envs=(BOTH, PICK, BOTH))
        assert [one.env for one in conditions_for(config, PICK)] == [None, BOTH]


class TestCondition:
    @pytest.mark.parametrize(
        ("condition", "family", "name", "view"),
        [
            (CLEAN, "clean", "clean", View("none")),
            (Condition("balls", 0.5, "train"), "train", "balls 0.5", View("balls:0.5", "train")),
            (Condition("noise", 1.0, "held-out"), "held-out", "noise 1", View("noise:1.0", "held-out")),
            (Condition(variant="mode:1"), "variant", "mode:1", View("none", variant="mode:1")),
            (Condition(env=NOVEL), "task", NOVEL, View("none")),
        ],
    )
    def test_says_what_it_is_a_case_of_and_what_is_seen(
        self, condition: Condition, family: str, name: str, view: View
    ) -> None:
        assert (condition.family, condition.name, condition.view) == (family, name, view)
        assert condition.is_clean == (family == "clean")

    def test_different_intensities_have_different_names(self) -> None:
        intensities = (1.0, 0.5, 1e-5, 0.1234567, 0.1234568, 0.1 + 0.2, 0.3)
        names = [Condition("balls", intensity, "train").name for intensity in intensities]
        assert names[:4] == ["balls 1", "balls 0.5", "balls 1e-05", "balls 0.1234567"]
        assert len(set(names)) == len(names)

    def test_random_play_sees_no_distractors_but_plays_the_changed_game(self) -> None:
        assert Condition("balls", 0.5, "train").dynamics == CLEAN
        for condition in (CLEAN, Condition(variant="mode:1"), Condition(env=NOVEL)):
            assert condition.dynamics == condition


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "env", "kind", "message"),
        [
            ({"variants": ("lazy_enemi",)}, "pong", UnknownNameError, "did you mean 'lazy_enemy'"),
            ({"variants": ("lazy_enemy",)}, "breakout", UnknownNameError, "variant of breakout"),
            ({"variants": ("mode:77",)}, "pong", ConfigError, "no mode 77"),
            ({"variants": ("",)}, "pong", ConfigError, "changes nothing"),
            ({"test_envs": ("rims_rl/PickObject-nowel-v0",)}, PICK, UnknownNameError, "PickObject-novel"),
            ({"kinds": ("none",)}, "pong", ConfigError, "nothing to change"),
            ({"intensities": (0.0,)}, "pong", ConfigError, "nothing to change"),
            ({}, "CartPole-v1", ConfigError, "CartPole-v1: nothing to change"),
            ({"test_envs": (PICK,)}, PICK, ConfigError, "nothing to change"),
        ],
    )
    def test_what_cannot_be_changed_is_one_line(
        self, changes: dict[str, Any], env: str, kind: type[Exception], message: str
    ) -> None:
        with pytest.raises(kind, match=message) as refused:
            conditions_for(RobustnessConfig(**changes), env)
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"kinds": ("bals",)}, "unknown kind of distractor 'bals'; did you mean 'balls'"),
            ({"kinds": ("none", "balls")}, "unknown kind of distractor 'none'"),
            ({"intensities": (1.5,)}, "intensity must be from 0 to 1, got 1.5"),
            ({"intensities": (float("nan"),)}, "intensity must be from 0 to 1, got nan"),
            ({"intensities": ()}, "at least one intensity"),
            ({"splits": ("heldout",)}, "unknown distractor split 'heldout'"),
            ({"splits": ()}, "at least one intensity and one split"),
            ({"episodes": 0}, "episodes must be from 1"),
            ({"n_envs": 0}, "n_envs must be from 1"),
            ({"onset": 0}, "onset must be from 1"),
            ({"window": -1}, "window must be from 1"),
            ({"seed": -1}, "seed must be at least 0"),
            ({"workers": -2}, "workers must be at least 0"),
            ({"max_episode_steps": 0}, "max_episode_steps must be at least 1"),
            ({"device": "cud"}, "device 'cud' cannot be used"),
            ({"runs": ()}, "at least one run"),
        ],
    )
    def test_settings_that_cannot_work_are_one_line(self, changes: dict[str, Any], message: str, tmp_path: Any) -> None:
        config = RobustnessConfig(runs=(tmp_path,))
        config.check()
        with pytest.raises(ConfigError, match=message):
            replace(config, **changes).check()

    def test_a_resumed_report_may_not_change_how_games_are_played(self) -> None:
        fixed = {"episodes", "seed", "deterministic", "max_episode_steps", "n_envs", "checkpoint", "onset", "window"}
        assert not fixed & FREE_TO_CHANGE
        assert {name for name in FREE_TO_CHANGE if not hasattr(RobustnessConfig(), name)} == set()
