"""The memory at the onset: nothing changes before it, only the distractor changes anything after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecEnvWrapper

from rims_rl.config import TrainConfig
from rims_rl.errors import ConfigError
from rims_rl.evaluation import View, evaluation_env
from rims_rl.experiments.robustness.mechanism import BEFORE, _divergence, _lift, watch_onset
from tests.experiments.robustness.small import BREAKOUT, CORES, policy_of, with_core

CARTPOLE = TrainConfig(env="cartpole-novel", core="rim", core_kwargs=CORES["rim"])
SLOTS = replace(BREAKOUT, encoder="nature-slots", encoder_kwargs={"features_dim": 5})
CHANGES = ("divergence", "state_change")


class Witness(VecEnvWrapper):
    """Writes down what happens in the games."""

    def __init__(self, run: TrainConfig, copies: int, seed: int, distractor: str = "none") -> None:
        super().__init__(evaluation_env(run, copies, seed, view=View(distractor)))
        self.actions: list[list[int]] = []
        self.happened: list[Any] = []
        self.dones: list[list[bool]] = []

    def reset(self) -> Any:
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        self.actions.append(actions.tolist())
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        self.dones.append(dones.tolist())
        self.happened.append((rewards.tolist(), dones.tolist(), [info.get("lives") for info in infos]))
        return observations, rewards, dones, infos


def watch(
    run: TrainConfig, distractor: str, copies: int = 2, onset: int = 7, window: int = 5, policy: Any = None
) -> tuple[dict[str, Any], Witness, Witness]:
    clean, disturbed = Witness(run, copies, 11), Witness(run, copies, 11, distractor)
    try:
        found = watch_onset(policy or policy_of(run), clean, disturbed, onset, window, seed=3)
    finally:
        clean.close()
        disturbed.close()
    return found, clean, disturbed


def after(found: dict[str, Any], name: str) -> list[float]:
    return [value for step, value in zip(found["steps"], found[name], strict=True) if step >= 0]


class TestWithoutAnyDifference:
    @pytest.mark.parametrize("core", [*CORES, "gru"])
    def test_every_core_is_left_exactly_as_it_was(self, core: str) -> None:
        run = replace(CARTPOLE, core=core, core_kwargs=CORES.get(core, {"hidden_size": 7}))
        found, _, _ = watch(run, "none", copies=3, onset=4)
        for name in CHANGES:
            assert found[name] == [0.0] * len(found["steps"])
        assert found["same_action"] == [1.0] * len(found["steps"])
        assert ("untouched" in found) == (core == "rim") == ("active_clean" in found)
        if core == "rim":
            assert found["untouched"] == [1.0] * len(found["steps"])
            assert found["active_clean"] == found["active_disturbed"]
            assert np.sum(found["active_clean"], axis=1) == pytest.approx(np.full(len(found["steps"]), 2.0))
        assert "attention_lift" not in found

    def test_steps_count_from_the_onset_and_begin_shortly_before_it(self) -> None:
        assert watch(CARTPOLE, "none", onset=4, window=3)[0]["steps"] == list(range(-4, 3))
        run = replace(CARTPOLE, env="rims_rl/PickObject-v0")
        pytest.importorskip("minigrid")
        assert watch(run, "none", onset=BEFORE + 5, window=2, copies=7)[0]["steps"] == list(range(-BEFORE, 2))

    def test_games_that_are_over_count_no_longer(self) -> None:
        found, clean, _ = watch(CARTPOLE, "none", copies=7, onset=4, window=200)
        over = np.maximum.accumulate(np.array(clean.dones), axis=0)
        going = [7, *(7 - over.sum(axis=1))]
        assert found["games"] == [games for games in going if games][: len(found["steps"])]
        assert found["games"][-1] < 7
        assert len(found["steps"]) < 204  # nothing is said of steps that no game reaches

    def test_games_that_all_end_before_the_onset_are_one_line(self) -> None:
        with pytest.raises(ConfigError, match="no game lasted 400 steps: choose an earlier --onset"):
            watch(CARTPOLE, "none", onset=400)


class TestDistracted:
    @pytest.mark.parametrize("core", ["rim", "lstm", "feedforward"])
    def test_nothing_changes_before_the_onset_and_something_does_after_it(self, core: str) -> None:
        found, _, _ = watch(with_core(core), "balls:1.0")
        assert found["steps"] == list(range(-7, 5))
        for name in ("divergence", "state_change"):
            if (core, name) == ("feedforward", "state_change"):
                continue  # it has no memory
            assert found[name][:7] == [0.0] * 7
            assert min(after(found, name)) > 0
        assert found["same_action"][:7] == [1.0] * 7

    def test_both_see_the_same_game_and_get_the_same_actions(self) -> None:
        _, clean, disturbed = watch(BREAKOUT, "balls:1.0", copies=3, onset=19, window=31)
        assert clean.actions == disturbed.actions
        assert clean.happened == disturbed.happened
        assert len(clean.actions) == 50

    def test_units_of_a_rim_are_untouched_before_and_not_all_after(self) -> None:
        found, _, _ = watch(BREAKOUT, "balls:1.0")
        assert found["untouched"][:7] == [1.0] * 7
        assert min(after(found, "untouched")) < 1
        assert np.array(found["unit_change"]).shape == (12, 5)
        assert np.array(found["unit_change"])[:7].max() == 0 < np.array(found["unit_change"])[7:].max()
        for name in ("null_clean", "null_disturbed"):
            assert np.array(found[name]).shape == (12, 5)
        assert found["null_clean"][:7] == found["null_disturbed"][:7]

    def test_a_unit_that_was_not_active_since_the_onset_is_untouched(self) -> None:
        """At the onset itself only active units can differ: 2 of 5 in each copy."""
        found, _, _ = watch(BREAKOUT, "balls:1.0", copies=1)
        at = found["steps"].index(0)
        active = np.array(found["active_disturbed"][at]) + np.array(found["active_clean"][at]) > 0
        assert found["untouched"][at] == pytest.approx(1 - active.sum() / 5)

    def test_attention_on_changed_places_is_known_from_the_onset_on(self) -> None:
        found, _, _ = watch(SLOTS, "balls:1.0")
        assert found["attention_lift"][:7] == [None] * 7
        assert min(after(found, "attention_lift")) > 0
        json.dumps(found, allow_nan=False)

    def test_a_distractor_of_no_strength_changes_nothing(self) -> None:
        found, _, _ = watch(BREAKOUT, "balls:0.0")
        assert found["divergence"] == [0.0] * 12
        assert found["untouched"] == [1.0] * 12

    def test_torch_s_random_numbers_are_not_moved(self) -> None:
        policy = policy_of(BREAKOUT)
        torch.manual_seed(3)
        expected = torch.rand(3)
        torch.manual_seed(3)
        watch(BREAKOUT, "balls:1.0", policy=policy)
        assert torch.equal(torch.rand(3), expected)


class Starts:
    """A policy that writes down which memories it was told to wipe."""

    def __init__(self, run: TrainConfig) -> None:
        self.policy = policy_of(run)
        self.starts: list[list[bool]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def diagnose_step(self, observation: Any, state: Any, starts: torch.Tensor) -> Any:
        self.starts.append(starts.tolist())
        return self.policy.diagnose_step(observation, state, starts)


class TestLostLives:
    @pytest.mark.parametrize("wipes", [True, False])
    def test_a_game_goes_on_and_memories_are_wiped_where_training_wiped_them(self, wipes: bool) -> None:
        run = replace(BREAKOUT, reset_memory_on_life_loss=wipes)
        policy = Starts(run)
        found, clean, _ = watch(run, "balls:1.0", onset=5, window=45, policy=policy)
        lives = np.array([lives for _, _, lives in clean.happened])
        lost = np.diff(lives, axis=0, prepend=lives[:1]) < 0
        assert lost.any()
        assert found["games"] == [2] * 50
        both = np.array(policy.starts).reshape(50, 2, 2)  # (T, clean and disturbed, B)
        assert (both[:, 0] == both[:, 1]).all()
        expected = np.vstack([[True, True], lost[:-1] & wipes])
        np.testing.assert_array_equal(both[:, 0], expected)


class TestFigures:
    def test_the_divergence_is_that_of_the_definition_and_never_infinite(self) -> None:
        one, other = (torch.distributions.Categorical(torch.tensor([[p, 1 - p]])) for p in (0.5, 0.25))
        expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
        assert float(_divergence(one, other)) == pytest.approx(expected)
        impossible = torch.distributions.Categorical(logits=torch.tensor([[0.0, -300.0]]))
        assert float(_divergence(one, impossible)) == pytest.approx(np.log(0.5) + 150, rel=1e-3)
        assert float(_divergence(impossible, impossible)) == 0.0

    def test_the_lift_compares_with_one_who_looks_evenly(self) -> None:
        """One of four places changes; the active unit looks there with a half, the inactive one does not count."""
        picture = np.zeros((2, 3, 8, 8), np.uint8)
        changed = picture.copy()
        changed[0, -1, :4, 4:] = 9  # place 1 of a square of 2 x 2, in the newest frame alone
        attention = torch.tensor([[[0.2, 0.4, 0.1, 0.1], [0.0, 0.0, 0.0, 1.0]]] * 2)
        active = torch.tensor([[True, False]] * 2)
        found = _lift({"input_attention": attention, "active": active}, picture, changed)
        assert found is not None
        assert found.tolist() == pytest.approx([2.0, 1.0])  # 0.5 against 0.25; nothing changed in the second game

    @pytest.mark.parametrize(
        ("attention", "shape"),
        [(None, (1, 4, 8, 8)), ((1, 2, 1), (1, 4, 8, 8)), ((1, 2, 3), (1, 4, 8, 8)), ((1, 2, 4), (1, 4))],
    )
    def test_without_places_there_is_no_lift(self, attention: Any, shape: tuple[int, ...]) -> None:
        found = {} if attention is None else {"input_attention": torch.rand(attention)}
        assert _lift(found, np.zeros(shape), np.ones(shape)) is None


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep numbers equal however many threads there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
