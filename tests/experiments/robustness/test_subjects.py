"""Who is compared with whom: labels tell apart what differs, worlds what is played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rims_rl.config import TrainConfig
from rims_rl.errors import ConfigError
from rims_rl.experiments.robustness.subjects import Subject, label, read_subjects, world_of
from tests.experiments.robustness.small import subjects_of

PONG = TrainConfig(env="pong", core_kwargs={"unit_size": 5})


def labels(*runs: TrainConfig) -> list[str]:
    return [label(run, runs) for run in runs]


class TestLabels:
    def test_seeds_and_environments_share_one(self) -> None:
        runs = [replace(PONG, seed=seed, env=env) for seed in (0, 1) for env in ("pong", "breakout")]
        assert labels(*runs) == ["rim"] * 4

    def test_what_says_where_a_run_lies_or_how_it_is_shown_does_not_tell_it_apart(self) -> None:
        other = replace(PONG, output=Path("there"), name="other", wandb="disabled", verbose=0, device="cpu",
                        config="quick", save_freq=7, route="gym")  # fmt: skip
        assert labels(PONG, other) == ["rim", "rim"]

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"core": "lstm"}, ["rim", "lstm"]),
            ({"core_kwargs": {"unit_size": 1000}}, ["rim, unit_size=5", "rim, unit_size=1,000"]),
            ({"core_parameters": 1000}, ["rim, parameters=None", "rim, parameters=1,000"]),
            ({"encoder": "nature-slots"}, ["rim, encoder=None", "rim, encoder=nature-slots"]),
            ({"distractor": "balls:0.5"}, ["rim, trained clean", "rim, trained with balls:0.5"]),
            ({"env_kwargs": {"distractor": "balls:0.5"}}, ["rim, trained clean", "rim, trained with balls:0.5"]),
            ({"total_timesteps": 7}, ["rim, steps=10,000,000", "rim, steps=7"]),
            ({"learning_rate": "1e-3"}, ["rim, learning_rate=lin_2.5e-4", "rim, learning_rate=1e-3"]),
            ({"n_envs": 3}, ["rim, n_envs=8", "rim, n_envs=3"]),
            ({"env_kwargs": {"clip_rewards": False}}, ["rim, clip_rewards=None", "rim, clip_rewards=False"]),
        ],
    )
    def test_what_an_agent_is_and_how_it_was_trained_does(self, changes: dict[str, Any], expected: list[str]) -> None:
        assert labels(PONG, replace(PONG, **changes)) == expected

    def test_the_split_of_the_training_s_distractors_does(self) -> None:
        run = replace(PONG, distractor="balls:0.5")
        assert labels(run, replace(run, distractor_split="held-out")) == [
            "rim, trained with balls:0.5", "rim, trained with balls:0.5, held-out",
        ]  # fmt: skip

    def test_another_core_s_settings_do_not(self) -> None:
        lstm = TrainConfig(env="pong", core="lstm", core_kwargs={"hidden_size": 7}, n_envs=3)
        assert labels(PONG, lstm) == ["rim", "lstm"]

    def test_how_runs_of_another_world_were_trained_does_not(self) -> None:
        other = replace(PONG, env="rims_rl/PickObject-v0", learning_rate="1e-3", n_envs=3)
        assert labels(PONG, other) == ["rim", "rim"]


class TestWorlds:
    @pytest.mark.parametrize(
        ("changes", "world"),
        [
            ({}, "pong"),
            ({"env": "ALE/Pong-v5"}, "pong"),
            ({"protocol": "machado"}, "pong (machado)"),
            ({"env_kwargs": {"mode": 1, "difficulty": 0}}, "pong (difficulty=0, mode=1)"),
            ({"env_kwargs": {"variant": "lazy_enemy"}, "protocol": "machado"}, "pong (machado, variant=lazy_enemy)"),
            ({"env_kwargs": {"distractor": "balls:0.5", "clip_rewards": True, "mode": None}}, "pong"),
            ({"distractor": "balls:0.5", "frame_stack": 2, "route": "gym"}, "pong"),
            ({"env": "cartpole-novel"}, "rims_rl/CartPoleNovel-v0"),
            ({"env": "rims_rl/PickObject-v0", "env_kwargs": {"size": 9}}, "rims_rl/PickObject-v0 (size=9)"),
        ],
    )
    def test_equal_games_and_only_these_are_one_world(self, changes: dict[str, Any], world: str) -> None:
        assert world_of(replace(PONG, **changes)) == world

    def test_only_the_game_itself_is_compared_with_humans(self) -> None:
        plain, changed, sticky = subjects_of(
            PONG, replace(PONG, env_kwargs={"mode": 1}), replace(PONG, env_kwargs={"noop_max": 3})
        )
        assert [one.plays_the_game_itself for one in (plain, changed, sticky)] == [True, False, True]


class TestReading:
    def test_a_run_given_twice_is_refused_however_it_is_spelled(self, runs: list[Path], tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(runs[0])
        for again in (runs[0], runs[0] / ".." / runs[0].name, tmp_path / "link"):
            with pytest.raises(ConfigError, match="given twice"):
                read_subjects([runs[0], again])

    def test_folders_of_one_name_have_files_of_their_own(self) -> None:
        one, other = (Subject(Path(place) / "run", PONG, "rim") for place in ("here", "there"))
        assert one.key != other.key

    def test_a_folder_without_a_run_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="holds no run"):
            read_subjects([tmp_path])
