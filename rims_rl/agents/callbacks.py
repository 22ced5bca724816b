"""Callbacks of a training run: checkpoints, evaluation and the units' activity, all between two updates."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.agents.activity import activity_statistics
from rims_rl.agents.checkpoint import CheckpointStore, capture
from rims_rl.agents.evaluation import MOST_SEED, Episode, run_episodes
from rims_rl.agents.ppo import RIMPPO
from rims_rl.errors import CheckpointError, ConfigError
from rims_rl.signals import StopSignals

__all__ = ["ActivityCallback", "CheckpointCallback", "EvaluationCallback", "StopSignals"]

_log = logging.getLogger(__name__)


def rollouts_of(model: Any) -> int:
    """Return how many rollouts a model has learned from or is about to, those before a resume among them."""
    return int(model.num_timesteps) // (int(model.n_envs) * int(model.n_steps))


class _EverySoManySteps(BaseCallback):
    """Acts between two updates, once for every multiple of `every_steps` that was passed; 0 is never."""

    def __init__(self, every_steps: int) -> None:
        super().__init__()
        if every_steps < 0:
            raise ConfigError(f"the steps between two saves or evaluations must be at least 0, got {every_steps}")
        self.every_steps = every_steps
        self._periods_done = 0

    def _on_training_start(self) -> None:
        if self.every_steps:
            self._periods_done = self.model.num_timesteps // self.every_steps

    def _on_step(self) -> bool:
        return True

    def _is_due(self) -> bool:
        """Whether a multiple has been passed since the last time that this was asked."""
        periods = self.model.num_timesteps // self.every_steps if self.every_steps else 0
        is_due = periods > self._periods_done
        self._periods_done = periods
        return is_due


class CheckpointCallback(_EverySoManySteps):
    """Saves the training state every `every_steps` steps and at the end, and the best one by mean episode reward.

    A disk that refuses is said and does not end the run; the next save tries again.
    """

    def __init__(self, store: CheckpointStore, every_steps: int, about: Mapping[str, Any] | None = None) -> None:
        """Keep checkpoints in `store`.

        Args:
            store: where they go.
            every_steps: steps between two of them; 0 saves only at the end.
            about: JSON-safe facts that each of them carries.
        """
        super().__init__(every_steps)
        self.store = store
        self.about = dict(about or {})
        self._best = -math.inf
        self.saved_at: int | None = None
        """Step of the newest checkpoint that the disk took; None before the first."""

    def _on_training_start(self) -> None:
        super()._on_training_start()
        best = self.store.best_score() if self.model.num_timesteps else None
        self._best = -math.inf if best is None else best

    def _on_rollout_start(self) -> None:
        if self._is_due():
            self.save()

    def _on_training_end(self) -> None:
        if self.saved_at != self.model.num_timesteps:
            self.save()

    def save(self) -> bool:
        """Store the training state now, and as the best one if it is; return whether the disk took it."""
        try:
            self._let_logs_catch_up()
            tensors, manifest = capture(cast(RIMPPO, self.model), self.about)
            self.store.save(self.model.num_timesteps, tensors, manifest)
            self.saved_at = self.model.num_timesteps
            score = self._score()
            if score is not None and score > self._best:
                self.store.save_best(tensors, manifest, score)
                self._best = score
        except (OSError, CheckpointError) as error:
            _log.warning("no checkpoint at step %d: %s", self.model.num_timesteps, " ".join(str(error).split()))
            return False
        return True

    def _let_logs_catch_up(self) -> None:
        """Let writers that a full disk has kept waiting write: a run resumed from here would not log those steps again.

        Raises:
            OSError: when the disk still refuses.
        """
        for writer in self.model.logger.output_formats:
            catch_up = getattr(writer, "catch_up", None)
            if catch_up is not None:
                catch_up()

    def _score(self) -> float | None:
        """Return the mean reward of the recent episodes; None until as many have ended as there are environments."""
        episodes = self.model.ep_info_buffer or ()
        if len(episodes) < min(self.model.n_envs, self.model._stats_window_size):
            return None
        return float(np.mean([episode["r"] for episode in episodes]))


class ActivityCallback(BaseCallback):
    """Records under `rims/` what the units did in every `every_updates`-th rollout; nothing for cores without units."""

    def __init__(self, every_updates: int = 10) -> None:
        super().__init__()
        if every_updates < 1:
            raise ConfigError(f"the updates between two looks at the units must be at least 1, got {every_updates}")
        self.every_updates = every_updates

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if rollouts_of(self.model) % self.every_updates:
            return
        for key, value in activity_statistics(cast(RIMPPO, self.model).diagnose_rollout()).items():
            matrix = key.startswith("comm_unit_")
            self.logger.record(f"rims/{key}", value, exclude=("stdout", "log") if matrix else None)


class EvaluationCallback(_EverySoManySteps):
    """Plays evaluation episodes every `every_steps` steps and records them under `eval/`.

    The episodes of an evaluation depend on the weights and the step alone, and the run's random numbers are not moved:
    a run goes on the same with it or without.
    """

    def __init__(
        self,
        env: VecEnv,
        every_steps: int,
        episodes: int = 5,
        most_steps: int = 27_000,
        *,
        most_seconds: float = 3_600.0,
        deterministic: bool = False,
        listener: Callable[[int, list[Episode]], None] | None = None,
    ) -> None:
        """Evaluate on `env`, which the caller closes.

        Args:
            env: evaluation environments.
            every_steps: training steps between two evaluations; 0 for none.
            episodes: episodes per evaluation.
            most_steps: cap on the steps of one episode (27,000 Atari steps are 30 minutes of play).
            most_seconds: cap on the time of one evaluation; what goes on then is cut and counts as truncated.
            deterministic: take the most likely action instead of sampling.
            listener: called with the training step and the episodes.
        """
        super().__init__(every_steps)
        self.env, self.episodes, self.most_steps, self.most_seconds = env, episodes, most_steps, most_seconds
        self.deterministic, self.listener = deterministic, listener

    def _on_rollout_start(self) -> None:
        if self._is_due() and not self._is_stopping():
            self.evaluate()

    def evaluate(self) -> list[Episode]:
        """Evaluate now and record the means, unless the run was asked to stop meanwhile."""
        step = self.model.num_timesteps
        seed = ((self.model.seed or 0) + step) % MOST_SEED
        until = time.monotonic() + self.most_seconds
        played = run_episodes(
            self.model.policy, self.env, self.episodes, self.most_steps, deterministic=self.deterministic, seed=seed,
            should_stop=lambda: self._is_stopping() or time.monotonic() > until,
        )  # fmt: skip
        if self._is_stopping():
            return played
        if time.monotonic() > until:
            _log.warning("the evaluation at step %d was cut after %g seconds", step, self.most_seconds)
        self.logger.record("eval/mean_reward", float(np.mean([episode.reward for episode in played])))
        self.logger.record("eval/ep_length", float(np.mean([episode.length for episode in played])))
        self.logger.record("eval/truncated", sum(episode.truncated for episode in played))
        if self.listener is not None:
            self.listener(step, played)
        return played

    def _is_stopping(self) -> bool:
        """Whether a signal has asked the run to stop."""
        return bool(getattr(self.model, "stop_requested", False))
