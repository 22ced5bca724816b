"""Recurrent policies for Stable-Baselines3: encoder -> core -> actor and critic heads.

They are sb3-contrib `RecurrentActorCriticPolicy`s, so an unmodified `RecurrentPPO` trains, saves, loads and predicts
with them. That algorithm carries a pair (h, c) of (1, B, D) tensors and knows nothing of what is in it: the core's flat
state is cut in two halves for it. `RIMPPO` uses the flat state itself.
Axes: T time, B batch, F flat state size, D half of it.
"""

from __future__ import annotations

from copy import copy
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn
from torch.nn import functional as F

from rims_rl.agents.extractors import (
    SMALLEST_IMAGE,
    check_core_reads,
    check_encoder_settings,
    check_image,
    check_precision,
    encoder_class,
)
from rims_rl.agents.profile import Stopwatch
from rims_rl.agents.spaces import check_action_space
from rims_rl.cores import RecurrentCore, make_core, matched_settings
from rims_rl.errors import ConfigError, NonFiniteError

_OTHER_ADAMS = {"foreach", "differentiable"}
"""Settings of Adam that exclude its fused form."""
Pair = tuple[Tensor, Tensor]
NetArch = list[int] | dict[str, list[int]]


class PairShape(NamedTuple):
    """What `RecurrentPPO` asks of an LSTM: the sizes of the pair that carries the flat state."""

    input_size: int
    """Size of the core's input."""
    hidden_size: int
    """Half of the flat state's size, rounded up, and at least 1."""
    num_layers: int = 1
    """Always 1."""


class Evaluation(NamedTuple):
    """What the current policy says of given actions; each (T, B)."""

    values: Tensor
    """The critic's estimates."""
    log_prob: Tensor
    """Log-probabilities of the actions."""
    entropy: Tensor
    """Entropies of the action distributions in nats (estimated by -log_prob where there is no closed form)."""


class RIMPolicy(RecurrentActorCriticPolicy):
    """A recurrent actor-critic whose memory is any core; one core serves actor and critic, both gradients reach it."""

    default_encoder: ClassVar[str] = "flatten"
    default_net_arch: ClassVar[NetArch] = {"pi": [64, 64], "vf": [64, 64]}

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        core: str | type[RecurrentCore] = "rim",
        core_kwargs: dict[str, Any] | None = None,
        core_parameters: int | None = None,
        encoder: str | type[BaseFeaturesExtractor] | None = None,
        encoder_kwargs: dict[str, Any] | None = None,
        encoder_precision: str = "float32",
        net_arch: NetArch | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        use_sde: bool = False,
        log_std_init: float = 0.0,
        full_std: bool = True,
        use_expln: bool = False,
        squash_output: bool = False,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.check_spaces(observation_space, action_space)
        self.core_name, self.core_kwargs, self.core_parameters = core, dict(core_kwargs or {}), core_parameters
        self.encoder_name, self.encoder_kwargs = encoder or self.default_encoder, dict(encoder_kwargs or {})
        chosen_encoder = encoder_class(self.encoder_name)
        check_encoder_settings(chosen_encoder, self.encoder_kwargs)
        self.encoder_precision = check_precision(encoder_precision)
        self.stopwatch = Stopwatch()
        super().__init__(
            observation_space, action_space, lr_schedule,
            self.default_net_arch if net_arch is None else net_arch,
            activation_fn, ortho_init, use_sde, log_std_init, full_std, use_expln, squash_output,
            features_extractor_class=chosen_encoder, features_extractor_kwargs=self.encoder_kwargs,
            normalize_images=normalize_images, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs,
            lstm_hidden_size=1, shared_lstm=True, enable_critic_lstm=False,
        )  # fmt: skip
        self._replace_lstm(lr_schedule)

    @classmethod
    def check_spaces(cls, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        """Raise ConfigError, naming the space and what would fit, when this policy can't serve it."""
        check_action_space(action_space)
        if isinstance(observation_space, spaces.Dict):
            raise ConfigError(
                f"{cls.__name__} cannot read the observation space {observation_space}; use MultiInputRIMPolicy"
            )
        flat = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
        if not isinstance(observation_space, flat):
            raise ConfigError(f"the observation space {observation_space} is not supported; use Box, Discrete or Dict")

    def _build_mlp_extractor(self) -> None:
        """Build the core, now that the encoder's size is known, and the heads' layers behind it."""
        self.features_dim = int(self.features_dim)  # SB3 gives a NumPy number for MultiDiscrete observations
        if self.core_parameters is not None:  # from here on its settings say all
            size = self.features_dim, self.core_parameters
            self.core_kwargs = matched_settings(self.core_name, *size, **self.core_kwargs)
        self.core = make_core(self.core_name, self.features_dim, **self.core_kwargs)
        check_core_reads(self.core, self.features_extractor)
        self.mlp_extractor = MlpExtractor(self.core.output_size, self.net_arch, self.activation_fn, self.device)

    def _replace_lstm(self, lr_schedule: Schedule) -> None:
        """Drop the parent's placeholder LSTM, state the pair's shape in its place, and rebuild the optimizer."""
        del self.lstm_actor
        half = max(1, (self.core.state_size + 1) // 2)
        self.lstm_actor: Any = PairShape(self.core.input_size, half)
        self.lstm_hidden_state_shape = (1, 1, half)
        optimizer_kwargs = dict(self.optimizer_kwargs)
        if self.optimizer_class in (torch.optim.Adam, torch.optim.AdamW) and not _OTHER_ADAMS & set(optimizer_kwargs):
            optimizer_kwargs.setdefault("fused", True)  # one pass over the weights in place of some ten
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **optimizer_kwargs)  # type: ignore[call-arg]

    @property
    def encoder(self) -> BaseFeaturesExtractor:
        """The network that turns observations into the core's input."""
        return self.features_extractor

    @property
    def reads_bytes(self) -> bool:
        """Whether the encoder takes frames as they come: bytes, in whatever order they lie in memory."""
        return bool(getattr(self.features_extractor, "reads_bytes", False))

    # ------------------------------------------------------------------ the flat state

    def initial_state(self, batch: int) -> Tensor:
        """Return the memory of `batch` episodes that have seen nothing, (B, F)."""
        return self.core.initial_state(batch)

    def to_pair(self, state: Tensor) -> Pair:
        """Cut a flat state (B, F) into the pair (1, B, D) that sb3-contrib carries."""
        half = self.lstm_hidden_state_shape[-1]
        padded = F.pad(state, (0, 2 * half - state.shape[1])).unsqueeze(0)
        return padded[..., :half].contiguous(), padded[..., half:].contiguous()

    def from_pair(self, pair: tuple[Tensor, ...]) -> Tensor:
        """Return the flat state (B, F) of a pair."""
        return torch.cat([pair[0][0], pair[1][0]], dim=-1)[:, : self.core.state_size]

    # ------------------------------------------------------------------ RIMPPO's way in

    def encode(self, obs: PyTorchObs) -> Tensor:
        """Turn observations (B, ...) into the core's inputs (B, I) or (B, N, I), always in the core's precision."""
        if self.encoder_precision == "float32":
            return self._features(obs)
        with torch.autocast(self.device.type, torch.bfloat16):
            features = self._features(obs)
        return features.to(next(self.core.parameters()).dtype)

    def _features(self, obs: PyTorchObs) -> Tensor:
        if self.normalize_images and self.reads_bytes:
            features: Tensor = self.features_extractor(obs)
            return features
        return super(ActorCriticPolicy, self).extract_features(obs, self.features_extractor)

    def step(self, obs: PyTorchObs, state: Tensor, starts: Tensor) -> tuple[Distribution, Tensor, Tensor]:
        """Take one step of memory.

        Args:
            obs: observations (B, ...).
            state: flat state (B, F).
            starts: (B,) of bool, which sequences start an episode here.

        Returns:
            The action distribution, the values (B,), and the next state (B, F).
        """
        outputs, state = self.core(self.encode(obs).unsqueeze(0), state, starts.unsqueeze(0))
        distribution, values = self._heads(outputs[0])
        return distribution, values, state

    def diagnose_step(
        self, obs: PyTorchObs, state: Tensor, starts: Tensor
    ) -> tuple[Distribution, Tensor, Tensor, dict[str, Tensor]]:
        """Take one step as `step` does and also return the core's diagnostics, without the time axis."""
        outputs, state, found = self.core.diagnose(self.encode(obs).unsqueeze(0), state, starts.unsqueeze(0))
        distribution, values = self._heads(outputs[0])
        return distribution, values, state, {name: tensor[0] for name, tensor in found.items()}

    def evaluate_sequence(self, obs: PyTorchObs, actions: Tensor, state: Tensor, starts: Tensor) -> Evaluation:
        """Evaluate whole sequences of actions.

        Args:
            obs: (T*B, ...), time-major and flat, so that the encoder sees one large batch.
            actions: (T, B, ...).
            state: (B, F), the state before the first step.
            starts: (T, B) of bool.
        """
        watch = self.stopwatch
        with watch.phase("encoder"):
            features = self.encode(obs)
            watch.enter_in_backward(features, "encoder")
        with watch.phase("core"):
            outputs, _ = self.core(features.view(*starts.shape, *features.shape[1:]), state, starts)
            watch.enter_in_backward(outputs, "core")
        distribution, values = self._heads(outputs.flatten(0, 1))
        return self._evaluation(distribution, values, actions, starts)

    def _evaluation(self, distribution: Distribution, values: Tensor, actions: Tensor, starts: Tensor) -> Evaluation:
        log_prob = distribution.log_prob(actions.flatten(0, 1))
        entropy = distribution.entropy()
        entropy = -log_prob if entropy is None else entropy
        return Evaluation(values.view_as(starts), log_prob.view_as(starts), entropy.view_as(starts))

    def _heads(self, outputs: Tensor) -> tuple[Distribution, Tensor]:
        """Return the action distribution and the values (B,) for core outputs (B, O); NaN raises NonFiniteError."""
        latent_pi, latent_vf = self.mlp_extractor(outputs)
        # A copy, because SB3 keeps one distribution and fills it anew at every call: what is handed out would change.
        try:
            distribution = copy(self._get_action_dist_from_latent(latent_pi))
        except ValueError as error:  # from PyTorch's own check of the distribution's parameters
            raise NonFiniteError(
                "the policy's output is not finite (NaN or infinity), though its observations are: are they too large?"
            ) from error
        return distribution, self.value_net(latent_vf).flatten()

    # ------------------------------------------------------------------ RecurrentPPO's way in

    def _run_pair(self, obs: PyTorchObs, pair: tuple[Tensor, ...], episode_starts: Tensor) -> tuple[Tensor, Pair]:
        """Run over sequence-major flat observations (S*T, ...), S sequences; outputs (S*T, O) and the next pair."""
        features = self.encode(obs)
        sequences = pair[0].shape[1]
        inputs = features.view(sequences, -1, *features.shape[1:]).transpose(0, 1)
        starts = episode_starts.view(sequences, -1).transpose(0, 1)
        outputs, state = self.core(inputs, self.from_pair(pair), starts > 0.5)
        return outputs.transpose(0, 1).flatten(0, 1), self.to_pair(state)

    def forward(  # type: ignore[override]
        self,
        obs: PyTorchObs,
        lstm_states: RNNStates | None = None,
        episode_starts: Tensor | None = None,
        deterministic: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, RNNStates]:
        """Return actions (B, ...), values (B, 1), log-probabilities (B,) and the next states, for RecurrentPPO."""
        if not isinstance(lstm_states, tuple) or episode_starts is None:
            raise ConfigError(
                f"{type(self).__name__} carries a memory: use it with RIMPPO or sb3-contrib's RecurrentPPO; "
                "for PPO, A2C or DQN pass features_extractor_class=RIMExtractor to their own policies"
            )
        outputs, pair = self._run_pair(obs, lstm_states.pi, episode_starts)
        distribution, values = self._heads(outputs)
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob = distribution.log_prob(actions)
        shape = self.action_space.shape or ()
        return actions.reshape(-1, *shape), values.unsqueeze(-1), log_prob, RNNStates(pair, pair)

    def get_distribution(  # type: ignore[override]
        self, obs: PyTorchObs, lstm_states: Pair, episode_starts: Tensor
    ) -> tuple[Distribution, Pair]:
        """Return the action distribution and the next pair."""
        outputs, pair = self._run_pair(obs, lstm_states, episode_starts)
        return self._heads(outputs)[0], pair

    def predict_values(self, obs: PyTorchObs, lstm_states: Pair, episode_starts: Tensor) -> Tensor:  # type: ignore[override]
        """Return the values (B, 1)."""
        outputs, _ = self._run_pair(obs, lstm_states, episode_starts)
        return self._heads(outputs)[1].unsqueeze(-1)

    def evaluate_actions(  # type: ignore[override]
        self, obs: PyTorchObs, actions: Tensor, lstm_states: RNNStates, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values (B, 1), log-probabilities (B,) and entropies (B,) of sequence-major flat samples."""
        outputs, _ = self._run_pair(obs, lstm_states.pi, episode_starts)
        distribution, values = self._heads(outputs)
        if isinstance(self.action_space, spaces.MultiBinary):
            actions = actions.float()  # sb3-contrib keeps bytes, Bernoulli distributions take floats
        return values.unsqueeze(-1), distribution.log_prob(actions), distribution.entropy()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Choose actions for one observation or a batch, numpy in and out, as sb3-contrib's policies do.

        Args:
            observation: one observation or a batch of them.
            state: what the last call returned, a pair of (1, B, D) arrays; None starts from the initial state.
            episode_start: (B,) of bool, which of them start an episode and so forget; without a state all do.
            deterministic: choose the most likely action instead of sampling.
        """
        if state is None:
            batched, _ = self.obs_to_tensor(observation)
            first = next(iter(batched.values())) if isinstance(batched, dict) else batched
            with torch.no_grad():
                pair = self.to_pair(self.initial_state(first.shape[0]))
            state = (pair[0].cpu().numpy(), pair[1].cpu().numpy())
        return super().predict(observation, state, episode_start, deterministic)

    # ------------------------------------------------------------------ saving

    def constructor_settings(self) -> dict[str, Any]:
        """Return what rebuilds this policy beside its spaces, JSON-safe: classes of the user's own as module:Class."""
        return {
            "policy": type(self).__name__,
            "core": _name_of(self.core_name),
            "core_kwargs": self.core_kwargs,
            "encoder": _name_of(self.encoder_name),
            "encoder_kwargs": self.encoder_kwargs,
            "encoder_precision": self.encoder_precision,
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn.__name__,
            "normalize_images": self.normalize_images,
        }

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """Return what SB3 stores to rebuild the policy."""
        data = super()._get_constructor_parameters()
        for of_the_parent in ("features_extractor_class", "features_extractor_kwargs", "lstm_hidden_size"):
            data.pop(of_the_parent, None)
        for of_the_parent in ("n_lstm_layers", "shared_lstm", "enable_critic_lstm", "lstm_kwargs"):
            data.pop(of_the_parent, None)
        mine = {"core": self.core_name, "core_kwargs": self.core_kwargs}
        theirs = {"encoder_kwargs": self.encoder_kwargs, "encoder_precision": self.encoder_precision}
        return {**data, **mine, "encoder": self.encoder_name, **theirs}


class MlpRIMPolicy(RIMPolicy):
    """For vector observations: they go to the core as they are."""


class CnnRIMPolicy(RIMPolicy):
    """For images: the Nature CNN, to one vector (`nature`) or to its 49 places (`nature-slots`)."""

    default_encoder = "nature"
    default_net_arch: ClassVar[NetArch] = []

    @classmethod
    def check_spaces(cls, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        """Raise ConfigError, naming the space and what would fit, when this policy can't serve it."""
        super().check_spaces(observation_space, action_space)
        check_image(observation_space)


class MultiInputRIMPolicy(RIMPolicy):
    """For dictionaries of images and vectors: each is encoded, and all are concatenated."""

    default_encoder = "combined"

    @classmethod
    def check_spaces(cls, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        """Raise ConfigError, naming the space and what would fit, when this policy can't serve it."""
        if not isinstance(observation_space, spaces.Dict):
            raise ConfigError(f"MultiInputRIMPolicy reads Dict observations, got {observation_space}")
        for name, space in observation_space.spaces.items():
            super().check_spaces(space, action_space)
            if is_image_space(space) and sorted(space.shape or ())[1] < SMALLEST_IMAGE:  # channels first or last
                raise ConfigError(
                    f"images must be at least {SMALLEST_IMAGE} x {SMALLEST_IMAGE} pixels, got {name} of {space.shape}"
                )


def _name_of(chosen: str | type[Any]) -> str:
    return chosen if isinstance(chosen, str) else f"{chosen.__module__}:{chosen.__qualname__}"


POLICIES: dict[str, type[RIMPolicy]] = {
    policy.__name__: policy for policy in (MlpRIMPolicy, CnnRIMPolicy, MultiInputRIMPolicy)
}
