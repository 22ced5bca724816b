"""Encoders: what turns an observation into the core's input, and the RIM as a features extractor of its own.

An encoder is an SB3 `BaseFeaturesExtractor`. It returns one vector per observation (B, I), or, with an attribute
`slots` above 1, a set of vectors (B, N, I) that the units attend to; `features_dim` is I in both cases. One whose
`reads_bytes` is true takes frames as they come; for others the policy divides by 255 first, as SB3 does.
Axes: B batch, N slots, I size of one input, C channels.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
)
from torch import Tensor, nn
from torch.nn import functional as F

from rims_rl.cores import RecurrentCore, make_core
from rims_rl.cores.base import require_at_least_one
from rims_rl.errors import ConfigError, UnknownNameError

PRECISIONS = ("float32", "bfloat16")
"""What an encoder may compute in: bfloat16 is PyTorch's autocast, faster where the processor has it; weights, core and
heads stay in float32."""
SMALLEST_IMAGE = 36
"""Height and width in pixels below which the Nature CNN's convolutions leave nothing."""


class NatureConvolutions(nn.Module):
    """The convolutions of the Nature DQN (Mnih et al. 2015), (B, C, 84, 84) -> (B, 64, 7, 7), channels last in memory.

    Bytes are turned into floats here and not before: the division by 255 is done on the first layer's weights, so that
    no second copy of the frames is ever made.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 32, kernel_size=8, stride=4)
        self.second = nn.Conv2d(32, 64, kernel_size=4, stride=2)
        self.third = nn.Conv2d(64, 64, kernel_size=3, stride=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images, bytes in [0, 255] or floats in [0, 1], to feature maps (B, 64, H', W')."""
        weight, images = self.first.weight, images.contiguous(memory_format=torch.channels_last)
        if images.dtype == torch.uint8:
            weight = weight / 255.0
        device = images.device.type  # bytes turn at once into what autocast takes: bfloat16 holds 0 to 255 exactly
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        maps = F.conv2d(images.to(kind), weight, self.first.bias, stride=4).relu_()
        return cast(Tensor, self.third(self.second(maps).relu_()).relu_())


class NatureEncoder(BaseFeaturesExtractor):
    """The Nature DQN's network (Mnih et al. 2015) to one vector; images are bytes, or floats in [0, 1]."""

    slots = 1
    reads_bytes = True

    def __init__(self, observation_space: spaces.Space[Any], features_dim: int = 512) -> None:
        require_at_least_one(features_dim=features_dim)
        shape = check_image(observation_space)
        super().__init__(observation_space, features_dim)
        self.convolutions = NatureConvolutions(shape[0])
        height, width = _map_size(self.convolutions, shape)
        self.linear = nn.Linear(64 * height * width, features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        """Encode images (B, C, H, W) to vectors (B, I)."""
        encoded: Tensor = self.linear(self.convolutions(observations).flatten(1))
        return encoded.relu_()


def _map_size(convolutions: NatureConvolutions, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width of the last feature map for images of a shape (C, H, W)."""
    height, width = shape[1:]
    for layer in (convolutions.first, convolutions.second, convolutions.third):
        kernel, stride = layer.kernel_size[0], layer.stride[0]
        height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    return height, width


class NatureSlots(BaseFeaturesExtractor):
    """The Nature DQN's last feature map as a set of places, so that units can attend to where something is.

    Every place (7 x 7 = 49 of an 84 x 84 image) is one slot: its 64 channels plus a learned linear map of its position,
    given as distances from the four sides (as in slot attention, Locatello et al. 2020).
    """

    reads_bytes = True

    def __init__(self, observation_space: spaces.Space[Any], features_dim: int = 64) -> None:
        require_at_least_one(features_dim=features_dim)
        shape = check_image(observation_space)
        super().__init__(observation_space, features_dim)
        self.convolutions = NatureConvolutions(shape[0])
        height, width = self.map_size = _map_size(self.convolutions, shape)
        self.slots = height * width
        self.places: Tensor
        self.register_buffer("places", _sides(height, width), persistent=False)
        self.position = nn.Linear(4, 64)
        self.project = nn.Identity() if features_dim == 64 else nn.Linear(64, features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        """Encode images (B, C, H, W) to slots (B, N, I), N in row-major order; a single one is a vector (B, I)."""
        slots = self.convolutions(observations).flatten(2).transpose(1, 2)  # (B, N, 64)
        encoded: Tensor = self.project(slots + self.position(self.places))
        return encoded.squeeze(1) if self.slots == 1 else encoded


def _sides(height: int, width: int) -> Tensor:
    """Return for every place its distances from the top, left, bottom and right side in [0, 1], (N, 4)."""
    rows, columns = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)  # (N, 2)
    return torch.cat([grid, 1 - grid], dim=1)


ENCODERS: dict[str, type[BaseFeaturesExtractor]] = {
    "flatten": FlattenExtractor,
    "nature": NatureEncoder,
    "nature-slots": NatureSlots,
    "combined": CombinedExtractor,
}


def encoder_class(name: str | type[BaseFeaturesExtractor]) -> type[BaseFeaturesExtractor]:
    """Return the encoder behind a name, or the class itself when a class of the user's own is given.

    Raises:
        UnknownNameError: for an unknown name.
        ConfigError: for anything else that is no features extractor.
    """
    if isinstance(name, str):
        if name not in ENCODERS:
            raise UnknownNameError("encoder", name, ENCODERS)
        return ENCODERS[name]
    if not (isinstance(name, type) and issubclass(name, BaseFeaturesExtractor)):
        raise ConfigError(f"an encoder must be a name or a subclass of BaseFeaturesExtractor, got {name!r}")
    return name


def check_encoder_settings(encoder: type[BaseFeaturesExtractor], settings: Mapping[str, Any]) -> None:
    """Raise UnknownNameError, with the nearest names, for the first setting that an encoder does not take."""
    parameters = list(inspect.signature(encoder).parameters.values())[1:]  # the first is the space
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for name in settings:
        if name not in known:
            raise UnknownNameError(f"setting of encoder {encoder.__name__}", name, known)


def check_precision(name: str) -> str:
    """Return the name of an encoder's precision; UnknownNameError for one that is not in `PRECISIONS`."""
    if name not in PRECISIONS:
        raise UnknownNameError("encoder precision", name, PRECISIONS)
    return name


def check_core_reads(core: RecurrentCore, encoder: BaseFeaturesExtractor) -> None:
    """Raise ConfigError when an encoder gives a set of slots to a core that takes one vector."""
    slots = getattr(encoder, "slots", 1)
    if slots > 1 and not core.accepts_slots:
        raise ConfigError(
            f"core {type(core).__name__} takes one vector, but encoder {type(encoder).__name__} gives {slots} slots; "
            "use encoder 'nature', or core 'rim'"
        )


def check_image(space: spaces.Space[Any]) -> tuple[int, ...]:
    """Return the shape (C, H, W) of an image space, or raise ConfigError that says what is wrong with it."""
    if not is_image_space(space, check_channels=False, normalized_image=True):
        raise ConfigError(f"a convolutional encoder needs images (C, H, W), got {space}; for vectors use MlpRIMPolicy")
    shape = space.shape
    assert shape is not None
    if min(shape[1:]) < SMALLEST_IMAGE:
        raise ConfigError(
            f"images must be channel-first and at least {SMALLEST_IMAGE} x {SMALLEST_IMAGE} pixels, got shape {shape}"
        )
    return shape


class RIMExtractor(BaseFeaturesExtractor):
    """A core as a stateless features extractor for PPO, A2C, DQN and QR-DQN: it is unrolled over the stacked frames.

    Images (n_stack * C, H, W) are encoded frame by frame and fed to the core, oldest first; so are the rows of
    (n_stack, I) vectors and the equal parts of flat ones. The memory starts empty at every call and spans the stack
    alone: for a memory that lasts an episode use RIMPPO.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        core: str | type[RecurrentCore] = "rim",
        core_kwargs: dict[str, Any] | None = None,
        encoder: str | type[BaseFeaturesExtractor] | None = None,
        encoder_kwargs: dict[str, Any] | None = None,
        n_stack: int | None = None,
    ) -> None:
        frame, steps = _frame_of(observation_space, n_stack)
        is_image = len(frame.shape or ()) == 3
        chosen = encoder_class(encoder or ("nature" if is_image else "flatten"))
        check_encoder_settings(chosen, encoder_kwargs or {})
        built = chosen(frame, **(encoder_kwargs or {}))
        memory = make_core(core, int(built.features_dim), **(core_kwargs or {}))
        check_core_reads(memory, built)
        super().__init__(observation_space, memory.output_size)
        self.encoder, self.core = built, memory
        self.n_stack, self.frame_shape = steps, frame.shape or ()

    def forward(self, observations: Tensor) -> Tensor:
        """Return the core's output after the newest frame, (B, O)."""
        batch = observations.shape[0]
        frames = observations.reshape(batch * self.n_stack, *self.frame_shape)
        features = self.encoder(frames)
        sequence = features.view(batch, self.n_stack, *features.shape[1:]).transpose(0, 1)
        outputs, _ = self.core(sequence, self.core.initial_state(batch))
        last: Tensor = outputs[-1]
        return last


def _frame_of(space: spaces.Space[Any], n_stack: int | None) -> tuple[spaces.Box, int]:
    """Return the space of one frame of a stack, and how many frames there are."""
    if not isinstance(space, spaces.Box):
        raise ConfigError(f"RIMExtractor reads Box observations, got {space}")
    if n_stack is not None and n_stack < 1:
        raise ConfigError(f"n_stack must be at least 1, got {n_stack}")
    first = space.shape[0] if space.shape else 0
    steps = n_stack or (first if len(space.shape) in (2, 3) else 1)
    if not first or first % steps:
        raise ConfigError(f"observations of shape {space.shape} cannot be cut into n_stack={steps} frames")
    size = first // steps
    shape = (size, *space.shape[1:]) if len(space.shape) != 2 or size > 1 else space.shape[1:]
    low, high = float(space.low.min()), float(space.high.max())
    dtype: Any = space.dtype
    return spaces.Box(low, high, shape, dtype), steps
