"""Evaluation: an unbiased choice of games, raw scores, and the rules beside the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from rims_rl import evaluation
from rims_rl.agents import MlpRIMPolicy
from rims_rl.cli import main
from rims_rl.config import EvaluateConfig, TrainConfig
from rims_rl.envs import make_env
from rims_rl.envs.distractors import KINDS
from rims_rl.errors import ConfigError, OutOfMemory
from rims_rl.evaluation import (
    Episode,
    Evaluation,
    View,
    check_spaces,
    evaluate_run,
    evaluation_env,
    play_episodes,
    print_result,
    shares,
)
from rims_rl.runs import RunFolder, load_config, save_config
from tests.pong_run import DISTRACTOR, files_of


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


class Endless(gym.Env[Any, Any]):
    """Pays the same at every step and never ends."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, pays: float = 1.0) -> None:
        self.pays = pays

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), self.pays, False, False, {}


def endless() -> str:
    """Return the id of an environment that never ends, registered when it isn't yet."""
    if "EndlessGame-v0" not in gym.registry:
        gym.register("EndlessGame-v0", Endless)
    return "EndlessGame-v0"


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

    def test_a_run_in_watched_processes_is_evaluated_on_both_routes(self) -> None:
        run = TrainConfig(env="pong", route="gym", subprocess=True)
        for route in (None, "vector"):
            env = evaluation_env(run, 1, 3, max_steps=7, route=route)
            policy: Any = Watcher()
            assert [game.length for game in play_episodes(policy, env, 1).episodes] == [7]
            env.close()

    @pytest.mark.faults
    def test_one_without_a_limit_of_its_own_gets_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(evaluation, "OTHER_STEPS", 9)
        env = evaluation_env(TrainConfig(env=endless(), env_kwargs={"pays": 2.0}), 1, 3)
        policy: Any = Watcher()
        assert play_episodes(policy, env, 1).episodes == [Episode(18.0, 9, True)]
        given = evaluation_env(TrainConfig(env=endless(), env_kwargs={"max_episode_steps": 4}), 1, 3)
        assert play_episodes(policy, given, 1).episodes == [Episode(4.0, 4, True)]

    @pytest.mark.faults
    def test_memory_that_runs_out_is_one_line(self) -> None:
        policy: Any = Watcher()
        policy.predict = lambda *_: bytearray(2**62)
        with pytest.raises(OutOfMemory, match=r"out of memory while playing .*: play fewer games at once \(now 2\)"):
            play_episodes(policy, evaluation_env(TrainConfig(env=endless()), 2, 3), 2)

    @pytest.mark.faults
    @pytest.mark.parametrize("limit", [-1, -1.0, 0, 10, 10**18, 1e300])
    def test_a_run_cannot_ask_for_none(self, monkeypatch: pytest.MonkeyPatch, limit: float) -> None:
        """Gymnasium takes -1 for no limit at all, even where the environment has one."""
        monkeypatch.setattr(evaluation, "OTHER_STEPS", 9)
        env = evaluation_env(TrainConfig(env=endless(), env_kwargs={"max_episode_steps": limit}), 1, 3)
        policy: Any = Watcher()
        assert play_episodes(policy, env, 1, most_seconds=5).episodes == [Episode(9.0, 9, True)]

    @pytest.mark.faults
    def test_games_that_go_on_when_time_is_over_are_cut_with_their_score_so_far(self) -> None:
        env = evaluation_env(TrainConfig(env=endless()), 2, 3)
        policy: Any = Watcher()
        games = play_episodes(policy, env, 7, most_seconds=0.1).episodes
        assert len(games) == 2
        assert all(game.truncated and game.score == game.length > 1 for game in games)

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

    @pytest.mark.faults
    def test_more_copies_than_the_memory_of_a_policy_allows_are_refused(self) -> None:
        env = evaluation_env(TrainConfig(env="CartPole-v1"), 8, 0)
        kwargs = {"num_slots": 4_096, "slot_size": 1, "heads": 1}
        served = env.observation_space, env.action_space
        policy = MlpRIMPolicy(*served, lambda _: 0.0, core="rmc", core_kwargs=kwargs, ortho_init=False)
        with pytest.raises(ConfigError, match="8 games at once take 134,283,264 numbers, at most 67,108,864: play few"):
            check_spaces(policy, env)
        check_spaces(policy, evaluation_env(TrainConfig(env="CartPole-v1"), 3, 0))

    def test_other_actions_than_those_of_the_training_are_refused(self) -> None:
        env = evaluation_env(TrainConfig(env="pong"), 1, 0, protocol="machado")
        policy: Any = Watcher()
        with pytest.raises(
            ConfigError, match=r"trained with actions Discrete\(2\), but the environment takes Discrete"
        ):
            check_spaces(policy, env)
        env.close()


PONG = TrainConfig(env="pong", route="gym", distractor="balls:1")


def frames_of(env: Any, length: int = 5) -> np.ndarray:
    """Return what is seen in the first steps, (length + 1, n, stack, 84, 84)."""
    actions = np.random.default_rng(3).integers(env.action_space.n, size=(length, env.num_envs))
    frames = np.stack([env.reset(), *(env.step(chosen)[0] for chosen in actions)])
    env.close()
    return frames


class TestView:
    def test_without_anything_it_is_that_of_the_training(self) -> None:
        assert (View().settings, View().text) == ({}, "")

    @pytest.mark.parametrize("nothing", ["none", "None", None])
    def test_none_takes_the_training_s_distractors_away_with_their_split(self, nothing: Any) -> None:
        assert View(nothing).settings == {"distractor": None, "distractor_split": None}
        assert View(nothing).text != ""

    def test_other_distractors_do_not_inherit_the_training_s_split(self) -> None:
        assert View("noise:0.2").settings == {"distractor": "noise:0.2", "distractor_split": None}

    def test_a_split_alone_leaves_the_distractors(self) -> None:
        assert View(split="held-out").settings == {"distractor_split": "held-out"}

    def test_its_text_names_every_change_and_no_two_share_one(self) -> None:
        assert View("balls:0.5", "held-out", "mode:1").text == "distractor-balls:0.5_held-out_mode:1"
        views = [
            View(),
            View("none"),
            View("balls:0.5"),
            View("balls:0.6"),
            View(split="train"),
            View(variant="mode:1"),
        ]
        assert len({RunFolder(Path("run")).evaluation_of(view.text) for view in views}) == len(views)


class TestWhatIsSeen:
    def test_are_the_training_s_distractors_unless_others_are_asked_for(self) -> None:
        expected = {
            View(): "balls:1",
            View("none"): None,
            View(split="held-out"): "balls:1:held-out",
            View("noise:0.5"): "noise:0.5",
            View("noise:0.5", "held-out"): "noise:0.5:held-out",
        }
        shown = []
        for view, distractor in expected.items():
            shown.append(frames_of(evaluation_env(PONG, 1, 7, view=view)))
            same = frames_of(make_env("pong", 1, 7, route="gym", training=False, distractor=distractor))
            np.testing.assert_array_equal(shown[-1], same)
        assert len({frames.tobytes() for frames in shown}) == len(expected)

    def test_a_run_trained_with_held_out_looks_is_shown_the_training_s_where_asked(self) -> None:
        run = replace(PONG, distractor_split="held-out")
        for view, distractor in ((View(), "balls:1:held-out"), (View(split="train"), "balls:1")):
            seen = frames_of(evaluation_env(run, 1, 7, view=view))
            np.testing.assert_array_equal(seen, frames_of(evaluation_env(run, 1, 7, view=View(distractor))))

    def test_the_rewards_of_every_view_are_the_same(self) -> None:
        actions = np.random.default_rng(3).integers(9, size=(29, 1))
        rewards = []
        for view in (View(), View("none"), View(split="held-out")):
            env = evaluation_env(replace(PONG, env="asterix"), 1, 7, view=view)
            env.reset()
            rewards.append(np.stack([env.step(chosen)[1] for chosen in actions]))
            env.close()
        np.testing.assert_array_equal(rewards[0], rewards[1])
        np.testing.assert_array_equal(rewards[0], rewards[2])
        assert rewards[0].max() > 1  # raw, and some there are

    def test_distractors_of_env_kwargs_count_as_the_training_s(self) -> None:
        run = TrainConfig(env="pong", route="gym", env_kwargs={"distractor": "balls:1"})
        for view in (View(), View("none")):
            seen = frames_of(evaluation_env(run, 1, 7, view=view))
            np.testing.assert_array_equal(seen, frames_of(evaluation_env(PONG, 1, 7, view=view)))

    def test_a_variant_is_played_on_the_route_that_has_it_under_the_training_s_distractors(self) -> None:
        env = evaluation_env(replace(PONG, route="vector"), 1, 7, view=View(variant="mode:1+hidden_enemy"))
        assert env.get_attr("route") == ["gym"]
        assert env.get_attr("variant")[0].text == "mode:1+hidden_enemy"
        distracted = frames_of(env)
        clean = frames_of(evaluation_env(PONG, 1, 7, view=View("none", variant="mode:1+hidden_enemy")))
        assert (distracted != clean).any()

    def test_a_variant_on_the_vector_route_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="variant: not available on route 'vector', use route='gym'"):
            evaluation_env(PONG, 1, 7, route="vector", view=View(variant="lazy_enemy"))

    def test_a_split_without_distractors_is_refused(self) -> None:
        for run, view in ((PONG, View("none", "held-out")), (TrainConfig(env="pong"), View(split="held-out"))):
            with pytest.raises(ConfigError, match="distractor_split held-out needs a distractor"):
                evaluation_env(run, 1, 7, view=view)


class Played:
    """Stands in for the games: keeps the first frames that would have been played, and says that all scored 3."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []

    def __call__(self, policy: Any, env: VecEnv, episodes: int, **_: Any) -> Evaluation:
        first: Any = env.reset()
        self.frames.append(first)
        return Evaluation([Episode(3.0, 11, False)] * episodes, 1.0)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    stand_in = Played()
    monkeypatch.setattr(evaluation, "play_episodes", stand_in)
    return stand_in


def with_settings(folder: Path, **settings: Any) -> Path:
    """Change what a run's folder says of its training."""
    run = RunFolder(folder)
    save_config(run, replace(load_config(run), **settings), ["rims-rl"])
    return folder


class TestADistractedRun:
    @pytest.mark.parametrize(
        ("options", "file", "recorded", "distractor"),
        [
            ([], "evaluation.json", {"distractor": DISTRACTOR}, DISTRACTOR),
            (["--distractor", "none"], "evaluation_distractor-none.json", {}, None),
            (
                ["--distractor-split", "held-out"],
                "evaluation_held-out.json",
                {"distractor": DISTRACTOR, "distractor_split": "held-out"},
                f"{DISTRACTOR}:held-out",
            ),
            (
                ["--distractor", "noise:0.2+digits", "--distractor-split", "held-out"],
                "evaluation_distractor-noise-0.2-digits_held-out.json",
                {"distractor": "noise:0.2+digits", "distractor_split": "held-out"},
                "noise:0.2:held-out+digits:held-out",
            ),
        ],
    )
    def test_each_view_is_played_recorded_and_kept_in_its_own_file(
        self,
        distracted_run: Path,
        played: Played,
        options: list[str],
        file: str,
        recorded: dict[str, str],
        distractor: str | None,
    ) -> None:
        before = set(files_of(distracted_run))
        assert main(["evaluate", str(distracted_run), "--episodes", "1", "--seed", "7", *options]) == 0
        expected = make_env("pong", 1, 7, training=False, distractor=distractor).reset()
        np.testing.assert_array_equal(played.frames[0], expected)
        assert set(files_of(distracted_run)) - before == {file}
        result = json.loads((distracted_run / file).read_text())
        shown = ("distractor", "distractor_split", "variant")
        assert {name: result[name] for name in shown if name in result} == recorded
        assert result["human_normalised"] == pytest.approx((3.0 + 20.7) / (14.6 + 20.7))

    def test_another_view_does_not_touch_the_evaluation_of_the_training_s(
        self, distracted_run: Path, played: Played
    ) -> None:
        main(["evaluate", str(distracted_run), "--episodes", "1"])
        before = (distracted_run / "evaluation.json").read_bytes()
        main(["evaluate", str(distracted_run), "--episodes", "1", "--seed", "5", "--distractor", "none"])
        main(["evaluate", str(distracted_run), "--episodes", "1", "--seed", "5", "--variant", "lazy_enemy"])
        assert (distracted_run / "evaluation.json").read_bytes() == before

    def test_a_file_of_one_s_own_is_written_instead(self, distracted_run: Path, played: Played, tmp_path: Path) -> None:
        mine = tmp_path / "mine.json"
        main(["evaluate", str(distracted_run), "--episodes", "1", "--distractor", "none", "--json", str(mine)])
        assert "distractor" not in json.loads(mine.read_text())
        assert not list(distracted_run.glob("evaluation*"))

    def test_a_variant_s_score_is_compared_with_no_human_s(self, distracted_run: Path, played: Played) -> None:
        result = evaluate_run(EvaluateConfig(distracted_run, episodes=1, variant="mode:1+lazy_enemy"))
        assert (result["variant"], result["route"], result["distractor"]) == ("mode:1+lazy_enemy", "gym", DISTRACTOR)
        assert "human_normalised" not in result
        written = json.loads((distracted_run / "evaluation_mode-1-lazy_enemy.json").read_text())
        assert written["variant"] == "mode:1+lazy_enemy"

    def test_the_table_names_what_disturbed_the_sight(
        self, distracted_run: Path, played: Played, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main(["evaluate", str(distracted_run), "--episodes", "1", "--distractor-split", "held-out"])
        shown = " ".join(capsys.readouterr().out.split())
        assert f"distractor │ {DISTRACTOR}" in shown
        assert "distractor split │ held-out" in shown

    def test_one_trained_with_held_out_looks_is_read_back_with_them(self, distracted_run: Path, played: Played) -> None:
        evaluate_run(EvaluateConfig(with_settings(distracted_run, distractor_split="held-out"), episodes=1, seed=7))
        expected = make_env("pong", 1, 7, training=False, distractor=f"{DISTRACTOR}:held-out").reset()
        np.testing.assert_array_equal(played.frames[0], expected)

    @pytest.mark.parametrize("changed", [{"variant": "lazy_enemy"}, {"mode": 1}])
    def test_one_trained_on_a_changed_game_is_compared_with_no_human_either(
        self, distracted_run: Path, played: Played, changed: dict[str, Any]
    ) -> None:
        folder = with_settings(distracted_run, route="gym", env_kwargs=changed)
        assert "human_normalised" not in evaluate_run(EvaluateConfig(folder, episodes=1))

    def test_many_distractors_have_a_file_too(self, distracted_run: Path, played: Played) -> None:
        everything = "+".join(f"{kind}:0.5:held-out" for kind in KINDS)
        evaluate_run(EvaluateConfig(distracted_run, episodes=1, distractor=everything))
        assert len(list(distracted_run.glob("evaluation_*.json"))) == 1


class TestResult:
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
