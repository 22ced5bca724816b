"""A causal transformer with a sliding window (Dai et al. 2019, arXiv 1901.02860), gated for reinforcement learning.

Axes: T time, B batch, L layers, W window, D model size, H heads, d = D/H head size, and for the whole sequence n blocks
of C steps, whose windows hold C + W steps.

The window, exactly: at every layer a step attends to itself and to the W steps before it in its episode. The state
carries the last W inputs of every layer, so a layer reads what the layer below made of a step with that step's own
window, and what L layers can know grows to L * W steps back (`receptive_field`). An input older than that has no
influence at all; nor has anything before an episode's start.

There is no loop over time: a sequence is cut into blocks of C steps, and each block attends, in one product, to its own
steps and the W before them. Distances are told by Transformer-XL's relative positions, so the cached steps only shift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rims_rl.cores.base import RecurrentCore, full_precision, require_at_least_one
from rims_rl.cores.grouped import scaled_linear, scaled_parameter
from rims_rl.errors import ConfigError

Gating = Literal["gru", "residual"]
Positions = Literal["sinusoidal", "learned"]

_SHORTEST_BLOCK = 16
"""Blocks are as long as the window, but not shorter than this: a window of 1 would make as many blocks as steps."""


class TransformerState(NamedTuple):
    """A named view of a transformer's flat state."""

    h: Tensor
    """The last W inputs of every layer (B, L*W, D), layer by layer, oldest first; zeros where the episode has none."""
    seen: Tensor
    """How many of the W steps belong to the episode (B, 1), a whole number."""


class Band(NamedTuple):
    """Who may attend to whom, by blocks of steps."""

    block: int
    """C, steps of one block."""
    allowed: Tensor
    """(B, n, 1, C, C + W) of bool: may the step in this row read the step in this column?"""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and switches of a transformer; the defaults are the GTrXL's block at a size for agents."""

    model_size: int = 256
    """Size of one step's vector at every layer (D), a multiple of `heads`."""
    num_layers: int = 2
    """How many blocks of attention and feed-forward map there are (L)."""
    heads: int = 4
    """Heads of the attention (H)."""
    window: int = 32
    """How many steps before its own a step attends to at every layer (W); the state holds L * W * D numbers."""
    feedforward_size: int | None = None
    """Size of the feed-forward map's hidden layer; by default 4 x model_size."""
    gating: Gating = "gru"
    """gru: the GTrXL's gates, without which transformers train unstably in reinforcement learning; residual: sums."""
    gate_bias: float = 2.0
    """How firmly a GRU gate keeps its stream at first (b_g); above 0, training starts near the identity."""
    positions: Positions = "sinusoidal"
    """What a distance is encoded by, 0 to W steps: Transformer-XL's fixed sinusoids, or a learned vector each."""

    def __post_init__(self) -> None:
        """Check every setting; raises ConfigError in one line."""
        sizes = {name: getattr(self, name) for name in ("model_size", "num_layers", "heads", "window")}
        require_at_least_one(**sizes)
        if self.feedforward_size is not None:
            require_at_least_one(feedforward_size=self.feedforward_size)
        if self.model_size % self.heads:
            raise ConfigError(f"model_size={self.model_size} must be a multiple of heads={self.heads}")
        for name, kind in (("gating", Gating), ("positions", Positions)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        if not math.isfinite(self.gate_bias):
            raise ConfigError(f"gate_bias must be a finite number, got {self.gate_bias!r}")

    @property
    def hidden_size(self) -> int:
        """Size of the feed-forward map's hidden layer."""
        return 4 * self.model_size if self.feedforward_size is None else self.feedforward_size


class Transformer(RecurrentCore):
    """L pre-norm blocks over a sliding window; identity map reordering and gates as in GTrXL (Parisotto et al. 2020).

    As in GTrXL, the last block's output is not normalised. Weights are drawn as its authors' library draws them, biases
    are zero. Unlike the papers, gradient flows into the cached steps: cut it where you cut the state.
    """

    config_class = TransformerConfig
    width_setting = "model_size"
    paper = "Parisotto et al. 2020"

    def __init__(self, input_size: int, config: TransformerConfig | None = None) -> None:
        super().__init__()
        require_at_least_one(input_size=input_size)
        self.config = config = config or TransformerConfig()
        self.input_size = input_size
        self.output_size = config.model_size
        self.state_size = config.num_layers * config.window * config.model_size + 1
        self.embed = scaled_linear(input_size, config.model_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))

    @property
    def receptive_field(self) -> int:
        """How many steps back an input can be and still have influence, L * W; one step more and it has none."""
        return self.config.num_layers * self.config.window

    def unpack(self, state: Tensor) -> TransformerState:
        """Return the named view of a flat state (B, F)."""
        return TransformerState(state[:, :-1].view(len(state), -1, self.config.model_size), state[:, -1:])

    @full_precision
    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence: inputs (T, B, I), state (B, F) -> outputs (T, B, D), state (B, F)."""
        outputs, state, _ = self._run(inputs, state, episode_starts)
        return outputs, state

    @full_precision
    def diagnose(
        self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Run as `forward` and also return where every layer attended.

        Returns:
            Outputs, state, and a dictionary of `attention` (T, B, L, W + 1), heads averaged, by distance: the first
            column is the oldest step of the window, the last one the step itself.
        """
        outputs, state, attention = self._run(inputs, state, episode_starts)
        by_distance = [_straighten(weights, self.config.window).mean(2).flatten(1, 2) for weights in attention]
        found = torch.stack(by_distance, dim=2)[:, : inputs.shape[0]].transpose(0, 1)
        return outputs, state, {"attention": found.detach()}

    def _run(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None) -> tuple[Tensor, Tensor, list[Tensor]]:
        self.check_shapes(inputs, state, episode_starts)
        view, window, attention, caches = self.unpack(state), self.config.window, [], []
        began = episode_begins(view.seen, episode_starts, inputs.shape[0], window)  # (B, T)
        band = make_band(began, window)
        x = self.embed(inputs.transpose(0, 1))  # (B, T, D)
        for layer, cache in zip(self.layers, torch.split(view.h, window, dim=1), strict=True):
            remembered = torch.cat([cache, x], dim=1)  # (B, W + T, D)
            x, weights = layer(x, remembered, band)
            attention.append(weights)
            caches.append(remembered[:, -window:])
        return x.transpose(0, 1).contiguous(), self._pack(caches, began[:, -1:], inputs.shape[0]), attention

    def _pack(self, caches: list[Tensor], began: Tensor, length: int) -> Tensor:
        """Return the flat state of every layer's inputs (B, T', D): the last W, zeros before `began` (B, 1)."""
        window = self.config.window
        times = torch.arange(length - window, length, device=began.device)
        cache = torch.stack(caches, dim=1)  # (B, L, W, D)
        cache = cache.masked_fill((times < began)[:, None, :, None], 0.0)
        seen = (length - began).clamp(max=window).to(cache.dtype)
        return torch.cat([cache.flatten(1), seen], dim=1)


class _Layer(nn.Module):
    """One block: attention over the window, then a feed-forward map, each with its norm before and its gate after."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        size = config.model_size
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = _WindowAttention(config)
        self.expand, self.contract = scaled_linear(size, config.hidden_size), scaled_linear(config.hidden_size, size)
        gated = config.gating == "gru"
        self.attention_gate = _GRUGate(size, config.gate_bias) if gated else _Residual()
        self.feedforward_gate = _GRUGate(size, config.gate_bias) if gated else _Residual()
        self.rectify = gated

    def forward(self, x: Tensor, remembered: Tensor, band: Band) -> tuple[Tensor, Tensor]:
        """Map x (B, T, D) that remembers (B, W + T, D); return (B, T, D) and the attention (B, n, H, C, C + W)."""
        attended, weights = self.attention(self.attention_norm(remembered), band)
        x = self.attention_gate(x, self._rectified(attended))
        made = self.contract(torch.relu(self.expand(self.feedforward_norm(x))))
        return self.feedforward_gate(x, self._rectified(made)), weights

    def _rectified(self, made: Tensor) -> Tensor:
        """Apply GTrXL's ReLU before a gate (section 3.1); a plain residual block has none."""
        return torch.relu(made) if self.rectify else made


class _WindowAttention(nn.Module):
    """Attention to the step itself and the W before it, with relative positions (Dai et al. 2019, section 3.3)."""

    sinusoids: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        size, self.heads, self.window = config.model_size, config.heads, config.window
        self.query = scaled_linear(size, size, bias=False)
        self.key_value = scaled_linear(size, 2 * size, bias=False)
        self.out = scaled_linear(size, size)
        self.content_bias = nn.Parameter(torch.zeros(self.heads, 1, size // self.heads))
        self.position_bias = nn.Parameter(torch.zeros(self.heads, 1, size // self.heads))
        self.learned = config.positions == "learned"
        if self.learned:
            self.positions = scaled_parameter(self.window + 1, size)
        else:
            self.positions = scaled_parameter(size, size)
            self.register_buffer("sinusoids", _sinusoids(self.window, size), persistent=False)

    def forward(self, remembered: Tensor, band: Band) -> tuple[Tensor, Tensor]:
        """Read from (B, W + T, D); return what was read (B, T, D) and the attention (B, n, H, C, C + W)."""
        length = remembered.shape[1] - self.window
        queries = self._blocks(self.query(remembered[:, self.window :]), band.block, band.block)  # (B, n, H, d, C)
        keys_values = self._blocks(self.key_value(remembered), band.block + self.window, band.block)
        keys, values = keys_values.chunk(2, dim=3)  # (B, n, H, d, C + W)
        weights = self._weights(queries.transpose(3, 4), keys, band.allowed)
        read = weights @ values.transpose(3, 4)  # (B, n, H, C, d)
        return self.out(read.transpose(2, 3).flatten(3).flatten(1, 2)[:, :length]), weights

    def _blocks(self, steps: Tensor, width: int, stride: int) -> Tensor:
        """Cut steps (B, ..., H*d), padded with zeros at the end, into overlapping blocks (B, n, H, d, width)."""
        missing = (width - steps.shape[1]) % stride
        blocks = F.pad(steps, (0, 0, 0, missing)).unfold(1, width, stride)  # (B, n, H*d, width)
        return blocks.view(*blocks.shape[:2], self.heads, -1, width)

    def _weights(self, queries: Tensor, keys: Tensor, allowed: Tensor) -> Tensor:
        """Return softmax((q + u) k + (q + v) r), terms a to d of Dai et al.'s section 3.3, over the allowed steps."""
        scale = 1.0 / math.sqrt(queries.shape[-1])
        by_content = (queries + self.content_bias) @ keys  # (B, n, H, C, C + W)
        by_distance = (queries + self.position_bias) @ self._distance_keys()  # (B, n, H, C, W + 1)
        scores = scale * (by_content + _slant(by_distance))
        return torch.softmax(scores.masked_fill(~allowed, -math.inf), dim=-1)

    def _distance_keys(self) -> Tensor:
        """Return the keys r of the distances W, W - 1, ..., 0, (H, d, W + 1)."""
        keys = self.positions if self.learned else self.sinusoids @ self.positions
        return keys.t().reshape(self.heads, -1, self.window + 1)


class _GRUGate(nn.Module):
    """GTrXL's gate in place of a residual sum (Parisotto et al. 2020, section 3.2, gated-recurrent-unit gating)."""

    def __init__(self, size: int, bias: float) -> None:
        super().__init__()
        self.from_made = scaled_linear(size, 3 * size, bias=False)
        self.from_stream = scaled_linear(size, 2 * size, bias=False)
        self.from_reset = scaled_linear(size, size, bias=False)
        self.bias = nn.Parameter(torch.full((size,), bias))

    def forward(self, stream: Tensor, made: Tensor) -> Tensor:
        """Return (1 - z) x + z h for the stream x and the submodule's output, each (B, T, D)."""
        made_r, made_z, made_h = self.from_made(made).chunk(3, dim=-1)
        stream_r, stream_z = self.from_stream(stream).chunk(2, dim=-1)
        r = torch.sigmoid(made_r + stream_r)
        z = torch.sigmoid(made_z + stream_z - self.bias)
        h = torch.tanh(made_h + self.from_reset(r * stream))
        return torch.lerp(stream, h, z)


class _Residual(nn.Module):
    """The plain residual sum."""

    def forward(self, stream: Tensor, made: Tensor) -> Tensor:
        """Return the sum."""
        return stream + made


def episode_begins(seen: Tensor, episode_starts: Tensor | None, length: int, window: int) -> Tensor:
    """Return for every step the time at which its episode began, (B, T); negative for a beginning in the cache.

    Args:
        seen: (B, 1), how many cached steps belong to the episode.
        episode_starts: (T, B) or None.
        length: T.
        window: W, the number of cached steps; an older beginning counts as one of W steps ago.
    """
    before = -seen.detach().round().clamp(0, window).long()  # (B, 1)
    if episode_starts is None:
        return before.expand(-1, length)
    times = torch.arange(length, device=seen.device)
    return torch.where(episode_starts.bool().t(), times, before).cummax(dim=1).values


def make_band(began: Tensor, window: int) -> Band:
    """Return who may attend to whom: itself and the W steps before it, none of them from before `began` (B, T)."""
    length = began.shape[1]
    block = min(length, max(window, _SHORTEST_BLOCK))
    count = -(-length // block)
    padding = began[:, -1:].expand(-1, count * block - length)
    began = torch.cat([began, padding], dim=1).view(-1, count, block)  # (B, n, C)
    column = torch.arange(block + window, device=began.device) - window  # time within the block
    distance = torch.arange(block, device=began.device).unsqueeze(1) - column  # (C, C + W)
    near = (distance >= 0) & (distance <= window)
    times = column + block * torch.arange(count, device=began.device).unsqueeze(1)  # (n, C + W)
    allowed = near & (times.unsqueeze(1) >= began.unsqueeze(-1))  # (B, n, C, C + W)
    return Band(block, allowed.unsqueeze(2))


def _slant(by_distance: Tensor) -> Tensor:
    """Move row i of (..., C, W + 1) to columns i to i + W of (..., C, C + W): from distances to steps."""
    rows, columns = by_distance.shape[-2:]
    flat = F.pad(by_distance, (0, rows)).flatten(-2)[..., : rows * (rows + columns - 1)]
    return flat.reshape(*flat.shape[:-1], rows, -1)


def _straighten(by_step: Tensor, window: int) -> Tensor:
    """Undo `_slant`: columns i to i + W of row i of (..., C, C + W) become (..., C, W + 1)."""
    rows = by_step.shape[-2]
    flat = F.pad(by_step.flatten(-2), (0, rows))
    return flat.view(*flat.shape[:-1], rows, -1)[..., : window + 1]


def _sinusoids(window: int, size: int) -> Tensor:
    """Return Vaswani et al.'s sinusoids of the distances W, W - 1, ..., 0, sines then cosines, (W + 1, D)."""
    distances = torch.arange(window, -1, -1.0).unsqueeze(1)
    half = (size + 1) // 2
    angles = distances * 10000.0 ** (-torch.arange(half) / half)
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :size]
