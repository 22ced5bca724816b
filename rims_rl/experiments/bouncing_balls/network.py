"""The network that predicts the next picture: convolutions, a core, and back to a picture.

Encoder and decoder are those of relational neural expectation maximization (van Steenkiste et al. 2018), which the RIM
paper took over (section 4.2): layer norm stands between each map and its nonlinearity.

Axes: T time, B batch, H rows and C columns of a picture (square here), O the core's output size, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rims_rl.cores.base import RecurrentCore

FEATURES = 512
"""Size of the vector that the core reads."""

# Row k of a 4x4 kernel meets, for the upper (0) and lower (1) of the two rows that grow out of a row of the small
# picture, the row above, the row itself or the row below: [which, row of the small picture, k].
_FOLDS = (((1, 0, 0, 0), (0, 1, 1, 0), (0, 0, 0, 1)), ((0, 0, 0, 0), (1, 1, 0, 0), (0, 0, 1, 1)))


class ResizeConvolution(nn.Module):
    """Twice the size by nearest neighbour, then a 4x4 convolution, (N, I, H, C) -> (N, O, 2 H, 2 C).

    The large picture is never made: a kernel's rows that fall on copies of one row are added up first, and a 3x3
    convolution of the small picture gives all four places of each pixel. That is a third of the work.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(inputs, outputs, kernel_size=4)
        self.folds: Tensor
        self.register_buffer("folds", torch.tensor(_FOLDS, dtype=torch.float32), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the enlarged and convolved images; beyond the border there are zeros, one before and two after."""
        weight = torch.einsum("oikl,pmk,qnl->opqimn", self.kernel.weight, self.folds, self.folds)
        assert self.kernel.bias is not None
        bias = self.kernel.bias.repeat_interleave(4)
        small = F.conv2d(images, weight.flatten(0, 2), bias, padding=1)  # (N, O * 4, H, C)
        return F.pixel_shuffle(small, 2)


def encoder(size: int, channels: int, features: int = FEATURES) -> nn.Sequential:
    """Return the map from pictures (N, 1, size, size) to vectors (N, D): three 4x4 convolutions of stride 2, one layer.

    Args:
        size: rows of a picture, a multiple of 8.
        channels: channels of the first convolution; each of the others has twice as many as the one before.
        features: size of a vector (D).
    """
    layers: list[nn.Module] = []
    for before, after in ((1, channels), (channels, 2 * channels), (2 * channels, 4 * channels)):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GroupNorm(1, after), nn.ELU(inplace=True)]
    last = nn.Linear(4 * channels * (size // 8) ** 2, features)
    return nn.Sequential(*layers, nn.Flatten(), last, nn.LayerNorm(features), nn.ELU(inplace=True))


def decoder(size: int, channels: int, inputs: int, features: int = FEATURES) -> nn.Sequential:
    """Return the map from the core's outputs (N, O) to the logits of pictures (N, 1, size, size), the encoder's mirror.

    Args:
        size: rows of a picture, a multiple of 8.
        channels: channels before the last layer; those before have twice as many each.
        inputs: the core's output size (O).
        features: size of the first layer (D).
    """
    side, widest = size // 8, 4 * channels
    layers: list[nn.Module] = [nn.Linear(inputs, features), nn.LayerNorm(features), nn.ReLU(inplace=True)]
    layers += [nn.Linear(features, widest * side**2), nn.LayerNorm(widest * side**2), nn.ReLU(inplace=True)]
    layers += [nn.Unflatten(1, (widest, side, side))]
    for before, after in ((widest, 2 * channels), (2 * channels, channels)):
        layers += [ResizeConvolution(before, after), nn.GroupNorm(1, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, ResizeConvolution(channels, 1))


class FramePredictor(nn.Module):
    """Reads pictures and predicts the next one after each."""

    def __init__(self, core: RecurrentCore, size: int, channels: int) -> None:
        """Put the parts together.

        Args:
            core: what remembers; its input size is that of the encoder's vectors.
            size: rows and columns of a picture, a multiple of 8.
            channels: channels of the first convolution (the paper: 16).
        """
        super().__init__()
        self.core = core
        self.encoder = encoder(size, channels, core.input_size)
        self.decoder = decoder(size, channels, core.output_size)

    def forward(self, pictures: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict the picture after each one that is given (teacher forcing).

        Args:
            pictures: (T, B, H, C) in [0, 1].
            state: the core's state before the first (B, F); None for the initial one.

        Returns:
            The logits of the pictures one step later, (T, B, H, C), and the core's state after the last, (B, F).
        """
        state = self.core.initial_state(pictures.shape[1]) if state is None else state
        memories, state = self.core(self.encode(pictures), state)
        logits = self.decoder(memories.flatten(0, 1))
        return logits.view(pictures.shape), state

    def encode(self, pictures: Tensor) -> Tensor:
        """Return the vectors that the core reads, (T, B, D), of pictures (T, B, H, C)."""
        vectors: Tensor = self.encoder(pictures.flatten(0, 1).unsqueeze(1))
        return vectors.view(*pictures.shape[:2], -1)

    def roll_out(self, seen: Tensor, steps: int) -> Tensor:
        """Watch some pictures, then go on alone: every further prediction is made from the one before.

        Args:
            seen: the true pictures (T, B, H, C), the only ones that it gets.
            steps: how many pictures to predict beyond them, at least 1.

        Returns:
            The logits of the pictures 1 to T + steps - 1, counted from 0, (T + steps - 1, B, H, C); the last `steps`
            are the roll-out, whose first was predicted from true pictures alone. What is fed back are probabilities.
        """
        logits, state = self(seen)
        predicted = [logits]
        for _ in range(steps - 1):
            logits, state = self(logits[-1:].sigmoid(), state)
            predicted.append(logits)
        return torch.cat(predicted)

    def activity(self, pictures: Tensor) -> Tensor | None:
        """Return which units were active as each picture was read, (T, B, K) of bool; None for a core without units."""
        vectors = self.encode(pictures)
        return self.core.diagnose(vectors, self.core.initial_state(pictures.shape[1]))[2].get("active")
