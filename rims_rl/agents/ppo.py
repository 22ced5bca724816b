"""RIMPPO: proximal policy optimisation for agents with a memory, over whole sequences."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any, ClassVar, cast

import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule, explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from rims_rl.agents.checks import (
    check_finite_observation,
    check_finite_rewards,
    check_policy_fits,
    check_sizes,
)
from rims_rl.agents.environment_state import restarts_of
from rims_rl.agents.losses import approximate_kl, clipped_surrogate, normalised, value_loss
from rims_rl.agents.policies import CnnRIMPolicy, MlpRIMPolicy, MultiInputRIMPolicy, RIMPolicy
from rims_rl.agents.profile import Stopwatch
from rims_rl.agents.rollouts import SequenceBatch, SequenceBuffer
from rims_rl.agents.updates import GuardedSteps, is_out_of_memory, memory_explained, pieces_of
from rims_rl.errors import ConfigError, UnknownNameError

_log = logging.getLogger(__name__)
DIAGNOSED_ENVS = 4
"""How many environments of a rollout `diagnose_rollout` looks at."""


class RIMPPO(RecurrentPPO):
    """PPO whose minibatches are whole environments cut into chunks of `bptt_length` steps.

    Arguments are those of sb3-contrib's RecurrentPPO and four more: `bptt_length`, the steps that gradients flow back
    through time (it divides `n_steps`, its default), `reset_memory_on_life_loss`, `most_skipped`, the minibatches in a
    row that may be left out because their loss or gradient is not finite, and `halve_on_oom`, which works a minibatch
    through in smaller pieces, with the same gradient, once memory runs out. A lost life ends the return but not the
    memory (`infos[i]["life_lost"]` tells the two apart) unless that switch is on; a time limit bootstraps from the
    value of the last observation. `policy` is "MlpRIMPolicy", "CnnRIMPolicy", "MultiInputRIMPolicy" or a class.

    Raises:
        ConfigError: sizes below one or not dividing, or spaces that the policy can't serve.
    """

    policy: RIMPolicy
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpRIMPolicy": MlpRIMPolicy,
        "CnnRIMPolicy": CnnRIMPolicy,
        "MultiInputRIMPolicy": MultiInputRIMPolicy,
    }

    def __init__(
        self,
        policy: str | type[RIMPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 128,
        batch_size: int = 128,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        target_kl: float | None = None,
        bptt_length: int | None = None,
        reset_memory_on_life_loss: bool = False,
        most_skipped: int = 10,
        halve_on_oom: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if isinstance(policy, str) and policy not in self.policy_aliases:
            raise UnknownNameError("policy", policy, self.policy_aliases)
        check_policy_fits(policy, env, self.policy_aliases)
        self.bptt_length = n_steps if bptt_length is None else bptt_length
        self.reset_memory_on_life_loss = reset_memory_on_life_loss
        self.stop_requested = False
        self.pending_log: dict[str, Any] = {}
        if most_skipped < 0:
            raise ConfigError(f"most_skipped must be at least 0, got {most_skipped}")
        self.steps = GuardedSteps(most_skipped)
        self.halve_on_oom = halve_on_oom
        self.pieces = 1
        super().__init__(
            policy, env, learning_rate, n_steps, batch_size, n_epochs, gamma, gae_lambda, clip_range, clip_range_vf,
            normalize_advantage, ent_coef, vf_coef, max_grad_norm, use_sde, sde_sample_freq, target_kl,
            stats_window_size, tensorboard_log, policy_kwargs, verbose, seed, device, _init_setup_model,
        )  # fmt: skip

    def _setup_model(self) -> None:
        """Check the sizes, then build the policy, the buffer and an empty memory."""
        assert self.batch_size is not None
        check_sizes(self.n_envs, self.n_steps, self.batch_size, self.bptt_length, self.n_epochs)
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, use_sde=self.use_sde, **self.policy_kwargs
        ).to(self.device)
        if not isinstance(self.policy, RIMPolicy):
            raise ConfigError(f"RIMPPO needs a policy of rims_rl.agents, got {self.policy_class.__name__}")
        with memory_explained("making room for a rollout", self._smaller_rollouts):
            self.rollout_buffer = SequenceBuffer(  # type: ignore[assignment]
                self.n_steps, self.n_envs, self.bptt_length, self.observation_space, self.action_space,
                self.policy.core.state_size, self.device, channels_last=self.policy.reads_bytes,
            )  # fmt: skip
        with torch.no_grad():
            self._last_state = self.policy.initial_state(self.n_envs)
        self.clip_range = FloatSchedule(self.clip_range)
        if isinstance(self.clip_range_vf, int | float) and self.clip_range_vf <= 0:
            raise ConfigError(f"clip_range_vf must be above 0, or None for no clipping, got {self.clip_range_vf}")
        if self.clip_range_vf is not None:
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)

    def _excluded_save_params(self) -> list[str]:
        """Return what SB3's `save` leaves out: the memory belongs to the environments, which are not saved either."""
        return [*super()._excluded_save_params(), "_last_state", "stop_requested", "pending_log"]

    def _setup_learn(self, *given: Any, **named: Any) -> tuple[int, BaseCallback]:
        """Prepare for learning as SB3 does, and give the logger what a resumed run had recorded and not yet shown."""
        prepared = super()._setup_learn(*given, **named)
        for name, (value, excluded) in self.pending_log.items():
            self.logger.record(name, value, excluded)
        self.pending_log = {}
        return prepared

    @property
    def buffer(self) -> SequenceBuffer:
        """The rollout buffer, under its own type."""
        return cast(SequenceBuffer, self.rollout_buffer)

    @property
    def stopwatch(self) -> Stopwatch:
        """Where the time goes, once it is started: see `rims_rl.agents.profile`."""
        return self.policy.stopwatch

    # ------------------------------------------------------------------ collecting

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int) -> bool:
        """Play `n_rollout_steps` steps in every environment; False when a callback or `stop_requested` ends the run.

        Raises:
            NonFiniteError: NaN or infinity in an observation or a reward; names the environment.
            OutOfMemory: names what to turn down.
        """
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        if self.stop_requested:
            return False
        if self.use_sde:
            self.policy.reset_noise(env.num_envs)
        with memory_explained("playing", self._smaller_rollouts):
            if not self._play_steps(env, callback, rollout_buffer, n_rollout_steps):
                return False
            last_values = self._values_after_the_rollout()
        rollout_buffer.finish(last_values, self.gamma, self.gae_lambda)
        callback.update_locals(locals())
        with self.stopwatch.phase("callbacks"):
            callback.on_rollout_end()
        return True

    def _play_steps(self, env: VecEnv, callback: BaseCallback, buffer: SequenceBuffer, count: int) -> bool:
        """Take steps in every environment and write them down; False when the callback ends the run."""
        for step in range(count):
            if self.use_sde and self.sde_sample_freq > 0 and step % self.sde_sample_freq == 0:
                self.policy.reset_noise(env.num_envs)
            if not self._play_step(env, callback, buffer):
                return False
        return True

    @torch.no_grad()
    def _play_step(self, env: VecEnv, callback: BaseCallback, buffer: SequenceBuffer) -> bool:
        """Take one step in every environment and write it down; False when the callback ends the run."""
        assert self._last_obs is not None
        assert self._last_episode_starts is not None
        check_finite_observation(self._last_obs)
        obs = buffer.put_observation(self._last_obs)
        starts = torch.as_tensor(self._last_episode_starts, dtype=torch.bool, device=self.device)
        buffer.put_start(self._last_state, starts)
        with self.stopwatch.phase("inference"):
            distribution, values, state = self.policy.step(obs, self._last_state, starts)
            actions = distribution.get_actions()
        with self.stopwatch.phase("environment"):
            new_obs, rewards, dones, infos = env.step(self._for_the_environment(actions))
        check_finite_rewards(rewards)
        self.num_timesteps += env.num_envs
        callback.update_locals(locals())
        with self.stopwatch.phase("callbacks"):
            goes_on = callback.on_step()
        self._update_info_buffer(infos, dones)
        rewards = rewards + self._bootstrap_time_limits(state, values, dones, infos)
        buffer.put_outcome(actions, values, distribution.log_prob(actions), rewards, dones)
        self._last_obs, self._last_state = new_obs, state  # type: ignore[assignment]
        self._last_episode_starts = self._memory_starts(dones, infos)
        return goes_on

    def _for_the_environment(self, actions: Tensor) -> np.ndarray:
        """Return actions as the environment takes them: continuous ones are brought into their bounds."""
        taken: np.ndarray = actions.cpu().numpy().reshape(-1, *(self.action_space.shape or ()))
        if not hasattr(self.action_space, "low"):
            return taken
        if self.policy.squash_output:
            return self.policy.unscale_action(taken)
        clipped: np.ndarray = np.clip(taken, self.action_space.low, self.action_space.high)  # type: ignore[attr-defined]
        return clipped

    def _memory_starts(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
        """Return where the next step starts with an empty memory, (B,): at real episode ends, not at lost lives."""
        if self.reset_memory_on_life_loss:
            return dones
        return np.array([done and not info.get("life_lost", False) for done, info in zip(dones, infos, strict=True)])

    def _bootstrap_time_limits(
        self, state: Tensor, values: Tensor, dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> np.ndarray:
        """Return gamma times the value of the last observation where an episode was cut, else 0, (B,).

        That of an environment that was replaced is the one that the step began with, whose value is known.
        """
        bonus = np.zeros(len(dones), dtype=np.float32)
        cut = [i for i, done in enumerate(dones) if done and infos[i].get("TimeLimit.truncated", False)]
        for i in cut:
            if "worker_restarted" in infos[i]:
                bonus[i] = self.gamma * values[i].item()
                continue
            check_finite_observation(infos[i]["terminal_observation"], env=i)
            obs, _ = self.policy.obs_to_tensor(infos[i]["terminal_observation"])
            going_on = torch.zeros(1, dtype=torch.bool, device=self.device)
            _, value, _ = self.policy.step(obs, state[i : i + 1], going_on)
            bonus[i] = self.gamma * value.item()
        return bonus

    @torch.no_grad()
    def _values_after_the_rollout(self) -> Tensor:
        """Return the values (B,) of the observations that the next rollout begins with."""
        assert self._last_obs is not None
        assert self._last_episode_starts is not None
        check_finite_observation(self._last_obs)
        obs, _ = self.policy.obs_to_tensor(self._last_obs)
        starts = torch.as_tensor(self._last_episode_starts, dtype=torch.bool, device=self.device)
        return self.policy.step(obs, self._last_state, starts)[1]

    def diagnose_rollout(self) -> dict[str, Tensor]:
        """Return the core's diagnostics over the last rollout of the first few environments; empty without any."""
        if not self.buffer.full:
            return {}
        batch = self.buffer.sequence(min(self.n_envs, DIAGNOSED_ENVS))
        with torch.no_grad():
            features = self.policy.encode(batch.observations)
            inputs = features.view(*batch.starts.shape, *features.shape[1:])
            return self.policy.core.diagnose(inputs, batch.states, batch.starts)[2]

    # ------------------------------------------------------------------ learning

    def train(self) -> None:
        """Update the policy from the rollout: `n_epochs` passes over its chunks in minibatches.

        Raises:
            NonFiniteError: NaN or infinity in the loss or the gradient of more than `most_skipped` minibatches in a
                row; the weights are as they were before the first.
            OutOfMemory: names what to turn down.
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        found: dict[str, list[float]] = defaultdict(list)
        with memory_explained("updating", self._smaller_updates):
            for _ in range(self.n_epochs):
                if not self._train_epoch(found):
                    break
                self._n_updates += 1
        self._log_update(found)

    def _train_epoch(self, found: dict[str, list[float]]) -> bool:
        """Pass once over the rollout; False when the policy has moved further than `target_kl`."""
        assert self.batch_size is not None
        for batch in self.buffer.minibatches(self.batch_size):
            terms = self._gradients(batch)
            if self.target_kl is not None and terms["approx_kl"] > 1.5 * self.target_kl:
                return False
            with self.stopwatch.phase("optimizer"):
                taken = self.steps.take(terms["loss"], self.policy, self.policy.optimizer, self.max_grad_norm, batch)
            for name, value in terms.items() if taken else ():
                found[name].append(value)
        return True

    def _gradients(self, batch: SequenceBatch) -> dict[str, float]:
        """Put the gradients of the loss on a minibatch into the parameters; return the loss's terms."""
        if self.normalize_advantage:
            batch = batch._replace(advantages=normalised(batch.advantages))
        while True:
            try:
                return self._accumulated(batch)
            except (RuntimeError, MemoryError) as error:
                if not (is_out_of_memory(error) and self.halve_on_oom and self.pieces < batch.starts.shape[1]):
                    raise
            self._halve()  # out of the handler, so that the failed attempt's tensors are free

    def _accumulated(self, batch: SequenceBatch) -> dict[str, float]:
        """Add up the gradients of a minibatch's pieces, which are those of the whole; return the loss's terms."""
        self.policy.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = defaultdict(float)
        for piece, share in pieces_of(batch, self.pieces) if self.pieces > 1 else [(batch, 1.0)]:
            with self.stopwatch.phase("heads and loss"):
                loss, terms = self._loss(piece)
                (loss * share if share < 1 else loss).backward()  # type: ignore[no-untyped-call]
            for name, value in terms.items():
                sums[name] += share * value
        return dict(sums)

    def _halve(self) -> None:
        """Halve the pieces in which a minibatch is worked through, for the rest of the run."""
        self.pieces *= 2
        self.policy.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        _log.warning("out of memory: minibatches are worked through in %d pieces from now on", self.pieces)

    def _smaller_updates(self) -> str:
        """Return how an update gets along with less memory."""
        sizes = (
            f"batch_size (now {self.batch_size}), bptt_length (now {self.bptt_length}) or n_envs (now {self.n_envs})"
        )
        return f"turn down {sizes}" + ("" if self.halve_on_oom else ", or turn on halve_on_oom")

    def _smaller_rollouts(self) -> str:
        """Return how a rollout gets along with less memory."""
        return f"turn down n_envs (now {self.n_envs}) or n_steps (now {self.n_steps})"

    def loss(self, batch: SequenceBatch) -> tuple[Tensor, dict[str, float]]:
        """Return PPO's loss on a minibatch, a scalar, and its terms for the log."""
        if self.normalize_advantage:
            batch = batch._replace(advantages=normalised(batch.advantages))
        return self._loss(batch)

    def _loss(self, batch: SequenceBatch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss on a minibatch whose advantages are taken as they are."""
        clip_range, clip_value = self._clip_ranges()
        now = self.policy.evaluate_sequence(batch.observations, batch.actions, batch.states, batch.starts)
        surrogate = clipped_surrogate(now.log_prob, batch.old_log_prob, batch.advantages, clip_range)
        value = value_loss(now.values, batch.old_values, batch.returns, clip_value)
        entropy_loss = -now.entropy.mean()
        total = surrogate + self.ent_coef * entropy_loss + self.vf_coef * value
        with torch.no_grad():
            clipped = (torch.exp(now.log_prob - batch.old_log_prob) - 1.0).abs() > clip_range
            kl = approximate_kl(now.log_prob, batch.old_log_prob)
            terms = torch.stack([total, surrogate, value, entropy_loss, kl, clipped.float().mean()]).tolist()
        names = ("loss", "policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction")
        return total, dict(zip(names, terms, strict=True))

    def _clip_ranges(self) -> tuple[float, float | None]:
        """Return the clipping of the ratio and of the values at this point of training."""
        assert callable(self.clip_range)
        clip_value = self.clip_range_vf(self._current_progress_remaining) if callable(self.clip_range_vf) else None
        return self.clip_range(self._current_progress_remaining), clip_value

    def _log_update(self, found: dict[str, list[float]]) -> None:
        for name, values in found.items():
            self.logger.record(f"train/{name}", float(np.mean(values)))
        variance = explained_variance(self.buffer.values.flatten(), self.buffer.returns.flatten())
        self.logger.record("train/explained_variance", float(variance))
        clip_range, clip_value = self._clip_ranges()
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if self.steps.skipped:
            self.logger.record("train/skipped_minibatches", self.steps.skipped)
        if restarts := restarts_of(self.env):
            self.logger.record("rollout/env_restarts", restarts)
        self.logger.record("train/clip_range", clip_range)
        if clip_value is not None:
            self.logger.record("train/clip_range_vf", clip_value)
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", torch.exp(self.policy.log_std).mean().item())
