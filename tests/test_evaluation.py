"""Evaluation: an unbiased choice of games, raw scores, and the rules beside the result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from rims_rl.config import TrainConfig
from rims_rl.errors import ConfigError
from rims_rl.evaluation import (
    Episode,
    Evaluation,
    check_actions,
    evaluation_env,
    play_episodes,
    print_result,
    shares,
    write_result,
)


class Clockwork(VecEnv):
    """Copy i plays games of i + 2 steps; its n-th game scores 100 i + n, and every second one is cut by the limit."""

    def __init__(self, copies: int) -> None:
        super().__init__(copies, spaces.Box(-1.0, 1.0, (1,)), spaces.Discrete(2))
        self.elapsed = np.zeros(copies, dtype=int)
        self.games = np.zeros(copies, dtype=int)

    def reset(self) -> np.ndarray:
        return np.zeros((self.num_envs, 1), np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        self.elapsed += 1

    def step_wait(self) -> Any:
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        dones = self.elapsed == np.arange(self.num_envs) + 2
        for copy in np.flatnonzero(dones):
            score, length = 100.0 * copy + self.games[copy], int(self.elapsed[copy])
            infos[copy] = {"episode": {"r": score, "l": length, "t": 0.0}}
            infos[copy]["TimeLimit.truncated"] = bool(self.games[copy] % 2)
            self.elapsed[copy] = 0
            self.games[copy] += 1
        return self.reset(), np.zeros(self.num_envs, np.float32), dones, infos

    def close(self) -> None: ...
    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...
    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return []

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class Watcher:
    """A policy that writes down where its memory starts anew, and draws a random number per step."""

    def __init__(self) -> None:
        self.starts: list[list[bool]] = []
        self.drawn: list[float] = []
        self.action_space = spaces.Discrete(2)

    def predict(self, obs: Any, state: Any, starts: np.ndarray, deterministic: bool) -> tuple[np.ndarray, Any]:
        self.starts.append(starts.tolist())
        self.drawn.append(torch.rand(()).item())
        return np.zeros(len(starts), dtype=int), state


def play(copies: int, episodes: int, seed: int = 0) -> tuple[Evaluation, Watcher]:
    watcher: Any = Watcher()
    return play_episodes(watcher, Clockwork(copies), episodes, seed=seed), watcher


class TestChoiceOfGames:
    def test_shares_are_equal_up_to_one_and_add_up(self) -> None:
        assert shares(11, 3) == [3, 4, 4]
        assert shares(2, 5) == [0, 0, 0, 1, 1]
        assert sum(shares(97, 8)) == 97

    def test_every_copy_plays_its_share_however_short_its_games_are(self) -> None:
        evaluation, _ = play(copies=3, episodes=7)
        assert evaluation.scores.tolist() == [0, 1, 100, 101, 200, 201, 202]

    def test_the_games_of_a_copy_are_its_first_ones(self) -> None:
        evaluation, _ = play(copies=5, episodes=5)
        assert [episode.score % 100 for episode in evaluation.episodes] == [0] * 5
        assert [episode.length for episode in evaluation.episodes] == [2, 3, 4, 5, 6]

    def test_the_memory_starts_anew_with_each_game_and_only_there(self) -> None:
        _, watcher = play(copies=2, episodes=4)
        assert watcher.starts == [
            [True, True],
            [False, False],
            [True, False],
            [False, True],
            [True, False],
            [False] * 2,
        ]


class TestRandomness:
    def test_the_same_seed_draws_the_same(self) -> None:
        assert play(2, 4, seed=5)[1].drawn == play(2, 4, seed=5)[1].drawn
        assert play(2, 4, seed=5)[1].drawn != play(2, 4, seed=6)[1].drawn

    def test_training_s_random_numbers_are_not_moved(self) -> None:
        torch.manual_seed(3)
        expected = torch.rand(3)
        torch.manual_seed(3)
        play(2, 4)
        assert torch.equal(torch.rand(3), expected)


class TestSummary:
    def test_it_is_the_statistics_of_the_raw_scores(self) -> None:
        episodes = [Episode(score, length, score == 7.0) for score, length in ((1.0, 2), (2.0, 3), (4.0, 5), (7.0, 11))]
        summary = Evaluation(episodes, 1.0).summary()
        assert (summary["mean"], summary["median"], summary["min"], summary["max"]) == (3.5, 3.0, 1.0, 7.0)
        assert summary["std"] == pytest.approx(7.0**0.5)
        assert (summary["episodes"], summary["truncated"], summary["mean_length"]) == (4, 1, 5.25)

    def test_one_game_has_no_spread(self) -> None:
        assert Evaluation([Episode(3.0, 2, False)], 1.0).summary()["std"] == 0.0


class TestEnvironments:
    def test_a_gymnasium_game_is_cut_at_the_limit_and_says_so(self) -> None:
        env = evaluation_env(TrainConfig(env="cartpole-novel"), 1, 3, max_steps=5)
        policy: Any = Watcher()
        (episode,) = play_episodes(policy, env, 1).episodes
        env.close()
        assert episode == (5.0, 5, True)

    def test_an_atari_game_is_cut_at_the_limit_and_says_so(self) -> None:
        env = evaluation_env(TrainConfig(env="pong"), 2, 3, max_steps=7)
        policy: Any = Watcher()
        played = play_episodes(policy, env, 2).episodes
        env.close()
        assert [(episode.length, episode.truncated) for episode in played] == [(7, True), (7, True)]

    def test_training_s_clipping_and_life_signal_do_not_reach_evaluation(self) -> None:
        run = TrainConfig(env="breakout", env_kwargs={"clip_rewards": True, "terminal_on_life_loss": True})
        env = evaluation_env(run, 1, 0)
        settings = env.get_attr("settings")[0]
        env.close()
        assert (settings.rewards_are_signs, settings.life_loss_is_done) == (False, False)

    def test_a_memory_that_was_wiped_at_lost_lives_is_wiped_there_again(self) -> None:
        env = evaluation_env(replace(TrainConfig(env="breakout"), reset_memory_on_life_loss=True), 1, 0)
        assert env.get_attr("settings")[0].life_loss_is_done
        env.close()

    def test_other_actions_than_those_of_the_training_are_refused(self) -> None:
        env = evaluation_env(TrainConfig(env="pong"), 1, 0, protocol="machado")
        policy: Any = Watcher()
        with pytest.raises(
            ConfigError, match=r"trained with actions Discrete\(2\), but the environment takes Discrete"
        ):
            check_actions(policy, env)
        env.close()


class TestResult:
    def test_a_file_that_cannot_be_written_is_said(self, tmp_path: Any) -> None:
        with pytest.raises(ConfigError, match="cannot be written"):
            write_result(tmp_path / "missing" / "result.json", {})

    def test_the_table_names_score_protocol_and_what_was_cut(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = {
            "env": "pong", "core": "rim", "trained_steps": 30_720, "mean": -3.05, "std": 1.0, "median": -3.0,
            "min": -7.0, "max": 5.0, "human_normalised": 0.5, "episodes": 11, "truncated": 2, "mean_length": 1_234.0,
            "protocol": "machado", "route": "gym", "actions": "sampled", "games_seed": 17, "checkpoint": "best",
            "steps_per_second": 987.0,
        }  # fmt: skip
        print_result(result)
        shown = capsys.readouterr().out
        for part in ("-3.05 ± 1.00", "50.0%", "11, 2 cut by the limit", "machado, route gym", "seed 17", "30,720"):
            assert part in shown
