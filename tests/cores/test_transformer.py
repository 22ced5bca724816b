"""The transformer's window is exactly what it says, and its blocks compute what a loop over steps computes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores import make_core
from rims_rl.cores.transformer import Transformer, TransformerConfig, episode_begins, make_band, scaled_linear
from rims_rl.errors import ConfigError
from tests.cores.every_core import some_resets

LENGTH, BATCH, INPUT_SIZE = 37, 3, 7  # long enough for several blocks, the last one not full
SMALL: dict[str, Any] = {"model_size": 2 * 5, "num_layers": 2, "heads": 2, "window": 3, "feedforward_size": 11}
TIGHT = {"rtol": 1e-12, "atol": 1e-12}

variants = pytest.mark.parametrize(
    "settings",
    [{}, {"gating": "residual"}, {"positions": "learned"}, {"window": 1}, {"window": 19}, {"num_layers": 1}],
    ids=["gru", "residual", "learned-positions", "window-1", "window-19", "one-layer"],
)


def build(**settings: Any) -> Transformer:
    torch.manual_seed(0)
    core = make_core("transformer", INPUT_SIZE, **{**SMALL, **settings}).double()
    assert isinstance(core, Transformer)
    for parameter in core.parameters():  # biases too, so that none can be forgotten
        torch.nn.init.normal_(parameter, std=0.5)
    return core


def some_inputs(length: int = LENGTH) -> Tensor:
    return torch.randn(length, BATCH, INPUT_SIZE, dtype=torch.float64)


def some_state(core: Transformer) -> Tensor:
    """Return the state of three sequences that have seen 5, 2 and 0 steps."""
    starts = torch.zeros(5, BATCH, dtype=torch.bool)
    starts[3, 1] = True
    with torch.no_grad():
        state = core(some_inputs(5), core.initial_state(BATCH), starts)[1]
    return state * torch.tensor([[1.0], [1.0], [0.0]], dtype=torch.float64)


class SlowTransformer:
    """The same transformer written like the papers: one sequence, one step, one head at a time."""

    def __init__(self, core: Transformer, layers_past: list[list[Tensor]]) -> None:
        self.core, self.past = core, layers_past
        self.weights = dict(core.named_parameters())

    def step(self, inputs: Tensor, starts: bool) -> Tensor:
        if starts:
            self.past = [[] for _ in self.past]
        x = self.weights["embed.weight"] @ inputs + self.weights["embed.bias"]
        for i, past in enumerate(self.past):
            reach = [*past, x][-self.core.config.window - 1 :]
            self.past[i] = reach
            x = self.layer(i, reach)
        return x

    def layer(self, i: int, reach: list[Tensor]) -> Tensor:
        relu = torch.relu if self.core.config.gating == "gru" else torch.nn.Identity()
        normed = [self.norm(f"layers.{i}.attention_norm", x) for x in reach]
        x = self.gate(f"layers.{i}.attention_gate", reach[-1], relu(self.attend(f"layers.{i}.attention", normed)))
        hidden = torch.relu(self.map(f"layers.{i}.expand", self.norm(f"layers.{i}.feedforward_norm", x)))
        return self.gate(f"layers.{i}.feedforward_gate", x, relu(self.map(f"layers.{i}.contract", hidden)))

    def attend(self, name: str, reach: list[Tensor]) -> Tensor:
        size, heads = self.core.config.model_size, self.core.config.heads
        width, read = size // heads, []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            query = self.weights[f"{name}.query.weight"][part] @ reach[-1]
            key_map, value_map = self.weights[f"{name}.key_value.weight"].view(heads, 2, width, size)[head]
            u, v = (self.weights[f"{name}.{kind}_bias"][head, 0] for kind in ("content", "position"))
            scores = []
            for distance, x in zip(reversed(range(len(reach))), reach, strict=True):
                r = self.distance_key(name, distance)[part]
                scores.append(((query + u) @ (key_map @ x) + (query + v) @ r) / math.sqrt(width))
            shares = torch.softmax(torch.stack(scores), dim=0)
            read.append(sum(share * (value_map @ x) for share, x in zip(shares, reach, strict=True)))
        return self.map(f"{name}.out", torch.cat(read))

    def distance_key(self, name: str, distance: int) -> Tensor:
        config, positions = self.core.config, self.weights[f"{name}.positions"]
        if config.positions == "learned":
            return positions[config.window - distance]
        half = config.model_size // 2
        angles = torch.tensor([distance / 10000 ** (i / half) for i in range(half)])
        return torch.cat([angles.sin(), angles.cos()]).double() @ positions

    def gate(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        if self.core.config.gating == "residual":
            return x + y
        w_r, w_z, w_g = self.weights[f"{name}.from_made.weight"].chunk(3)
        u_r, u_z = self.weights[f"{name}.from_stream.weight"].chunk(2)
        r = torch.sigmoid(w_r @ y + u_r @ x)
        z = torch.sigmoid(w_z @ y + u_z @ x - self.weights[f"{name}.bias"])
        h = torch.tanh(w_g @ y + self.weights[f"{name}.from_reset.weight"] @ (r * x))
        return (1 - z) * x + z * h

    def map(self, name: str, x: Tensor) -> Tensor:
        return self.weights[f"{name}.weight"] @ x + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])


def slowly(core: Transformer, inputs: Tensor, state: Tensor, starts: Tensor) -> Tensor:
    """Run the slow transformer over a batch, from the steps that the state says each sequence has seen."""
    outputs, view, window = [], core.unpack(state), core.config.window
    for b in range(inputs.shape[1]):
        seen = int(view.seen[b, 0])
        past = [list(cache[window - seen :].unbind()) for cache in view.h[b].split(window)]
        slow = SlowTransformer(core, past)
        outputs.append(torch.stack([slow.step(x, bool(s)) for x, s in zip(inputs[:, b], starts[:, b], strict=True)]))
    return torch.stack(outputs, dim=1)


class TestEqualsALoopOverStepsAndHeads:
    @variants
    def test_in_its_outputs(self, settings: dict[str, Any]) -> None:
        core = build(**settings)
        inputs, state, starts = some_inputs(), some_state(core), some_resets(LENGTH, BATCH)
        starts[31, 1] = True
        loose = {"rtol": 1e-6, "atol": 1e-6}  # the sinusoids are rounded to float32
        assert_close(core(inputs, state, starts)[0], slowly(core, inputs, state, starts), **loose)

    @variants
    def test_in_its_gradients(self, settings: dict[str, Any]) -> None:
        core = build(**settings)
        inputs, state, starts = some_inputs(19), some_state(core).requires_grad_(), some_resets(19, BATCH)
        weight = torch.randn(19, BATCH, core.output_size, dtype=torch.float64)
        wanted = [state, *core.parameters()]
        fast = torch.autograd.grad((core(inputs, state, starts)[0] * weight).sum(), wanted)
        slow = torch.autograd.grad((slowly(core, inputs, state, starts) * weight).sum(), wanted)
        for one, other in zip(fast, slow, strict=True):
            assert_close(one, other, rtol=1e-5, atol=1e-5)

    @variants
    def test_one_step_at_a_time_over_many_blocks(self, settings: dict[str, Any]) -> None:
        core = build(**settings)
        inputs, first, starts = some_inputs(), some_state(core), some_resets(LENGTH, BATCH)
        starts[31, 1] = True
        outputs, state = [], first
        for t in range(LENGTH):
            output, state = core(inputs[t : t + 1], state, starts[t : t + 1])
            outputs.append(output)
        whole, last = core(inputs, first, starts)
        assert_close(torch.cat(outputs), whole, **TIGHT)
        assert_close(state, last, **TIGHT)


class TestWindow:
    @pytest.mark.parametrize(("layers", "window"), [(1, 1), (1, 5), (2, 3), (3, 2), (2, 17)])
    def test_an_input_has_influence_up_to_the_receptive_field_and_exactly_none_beyond(
        self, layers: int, window: int
    ) -> None:
        core = build(num_layers=layers, window=window)
        assert core.receptive_field == layers * window
        inputs = some_inputs().requires_grad_()
        outputs, _ = core(inputs, core.initial_state(BATCH))
        (gradient,) = torch.autograd.grad(outputs[-1].sum(), inputs)
        reached = gradient.abs().amax(dim=(1, 2)) > 0
        assert reached.tolist() == [t >= LENGTH - 1 - layers * window for t in range(LENGTH)]

    def test_another_past_beyond_it_changes_no_bit(self) -> None:
        core = build()
        inputs = some_inputs()
        other = inputs.clone()
        other[:20] = 100.0 * some_inputs(20)
        same = core(inputs, core.initial_state(BATCH))[0] == core(other, core.initial_state(BATCH))[0]
        assert same.all(dim=(1, 2)).tolist() == [t >= 20 + core.receptive_field for t in range(LENGTH)]

    def test_reaches_as_far_through_the_state(self) -> None:
        core = build()
        inputs = some_inputs(core.receptive_field + 1).requires_grad_()
        state = core.initial_state(BATCH)
        for t in range(inputs.shape[0]):
            output, state = core(inputs[t : t + 1], state)
        (gradient,) = torch.autograd.grad(output.sum(), inputs, retain_graph=True)
        assert (gradient.abs().amax(dim=(1, 2)) > 0).all()
        later, _ = core(some_inputs(1), state)
        (gradient,) = torch.autograd.grad(later.sum(), inputs)
        reached = gradient.abs().amax(dim=(1, 2)) > 0
        assert reached.tolist() == [False] + [True] * core.receptive_field

    def test_steps_that_the_episode_has_not_seen_are_not_read_whatever_the_state_holds(self) -> None:
        core = build()
        inputs, state = some_inputs(), core.initial_state(BATCH)
        rubbish = state + 1e6 * torch.randn_like(state)
        rubbish[:, -1] = 0.0
        assert torch.equal(core(inputs, rubbish)[0], core(inputs, state)[0])

    def test_the_order_within_it_matters(self) -> None:
        for positions in ("sinusoidal", "learned"):
            core = build(num_layers=1, window=5, positions=positions)
            inputs = some_inputs(6)
            outputs, _ = core(inputs, core.initial_state(BATCH))
            swapped, _ = core(inputs[[1, 0, 2, 3, 4, 5]], core.initial_state(BATCH))
            assert not torch.allclose(outputs[-1], swapped[-1])


class TestState:
    def test_holds_the_last_inputs_of_every_layer_oldest_first(self) -> None:
        core = build()
        inputs = some_inputs(7)
        _, state = core(inputs, core.initial_state(BATCH))
        embedded = core.embed(inputs).transpose(0, 1)
        assert_close(core.unpack(state).h[:, :3], embedded[:, -3:], **TIGHT)
        nothing = torch.zeros(BATCH, 3, core.output_size, dtype=torch.float64)
        began = torch.zeros(BATCH, 7, dtype=torch.long)
        made, _ = core.layers[0](embedded, torch.cat([nothing, embedded], dim=1), make_band(began, 3))
        assert_close(core.unpack(state).h[:, 3:], made[:, -3:], **TIGHT)

    def test_counts_the_steps_of_the_episode_up_to_the_window(self) -> None:
        core = build()
        state, starts = core.initial_state(BATCH), torch.zeros(6, BATCH, dtype=torch.bool)
        starts[4, 1] = True
        seen = []
        for t in range(6):
            _, state = core(some_inputs(1), state, starts[t : t + 1])
            seen.append(core.unpack(state).seen[:, 0].tolist())
        assert seen == [[1, 1, 1], [2, 2, 2], [3, 3, 3], [3, 3, 3], [3, 1, 3], [3, 2, 3]]

    def test_is_zero_where_the_episode_has_no_step(self) -> None:
        core = build()
        starts = torch.zeros(9, BATCH, dtype=torch.bool)
        starts[7, 1] = True
        _, state = core(some_inputs(9), core.initial_state(BATCH), starts)
        held = core.unpack(state).h.abs().sum(dim=2) > 0
        assert held.tolist() == [[True] * 6, [False, True, True] * 2, [True] * 6]


class TestBand:
    def test_episodes_begin_at_their_start_or_in_the_cache(self) -> None:
        starts = torch.zeros(5, 3, dtype=torch.bool)
        starts[1, 0] = starts[3, 0] = starts[0, 1] = True
        began = episode_begins(torch.tensor([[2.0], [2.0], [1.0]]), starts, 5, window=2)
        assert began.tolist() == [[-2, 1, 1, 3, 3], [0, 0, 0, 0, 0], [-1, -1, -1, -1, -1]]

    def test_counts_that_are_not_whole_or_too_large_are_rounded_and_cut(self) -> None:
        began = episode_begins(torch.tensor([[1.9], [7.0], [-1.0]]), None, 2, window=3)
        assert began.tolist() == [[-2, -2], [-3, -3], [0, 0]]

    def test_a_step_may_read_itself_and_the_window_before_it(self) -> None:
        began = torch.tensor([[-1, -1, 2, 2]])  # columns are the times -2, -1, 0, 1, 2, 3
        band = make_band(began, window=2)
        assert band.block == 4
        assert band.allowed[0, 0, 0].int().tolist() == [
            [0, 1, 1, 0, 0, 0],
            [0, 1, 1, 1, 0, 0],
            [0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 1, 1],
        ]

    def test_long_sequences_are_cut_into_blocks_of_the_windows_length(self) -> None:
        band = make_band(torch.zeros(3, 70, dtype=torch.long), window=31)
        assert band.block == 31
        assert band.allowed.shape == (3, 3, 1, 31, 62)


class TestAttention:
    def test_is_shared_out_among_the_steps_of_the_window_and_the_episode(self) -> None:
        core = build()
        starts = torch.zeros(LENGTH, BATCH, dtype=torch.bool)
        starts[20, 1] = True
        _, _, found = core.diagnose(some_inputs(), core.initial_state(BATCH), starts)
        assert found["attention"].shape == (LENGTH, BATCH, 2, 4)
        assert_close(found["attention"].sum(dim=3), torch.ones(LENGTH, BATCH, 2, dtype=torch.float64))
        read = (found["attention"][[0, 1, 20, 21, 36], 1] > 0).int()
        assert read[:, 0].tolist() == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]

    def test_is_told_by_distance(self) -> None:
        core = build(num_layers=1, positions="learned")
        with torch.no_grad():
            attention = core.layers[0].attention
            for weight in (attention.query.weight, attention.content_bias, attention.positions):
                weight.zero_()
            attention.position_bias.fill_(1.0)
            attention.positions[1] = 50.0  # the row of distance window - 1 = 2
        _, _, found = core.diagnose(some_inputs(), core.initial_state(BATCH))
        expected = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64).expand(LENGTH - 2, BATCH, 1, 4)
        assert_close(found["attention"][2:], expected)


class TestGate:
    def test_shut_it_leaves_the_stream_as_it_is(self) -> None:
        core = build()
        with torch.no_grad():
            for layer in core.layers:
                layer.attention_gate.bias.fill_(1e4)
                layer.feedforward_gate.bias.fill_(1e4)
        inputs = some_inputs()
        assert torch.equal(core(inputs, core.initial_state(BATCH))[0], core.embed(inputs))

    def test_starts_at_the_configured_bias(self) -> None:
        core = make_core("transformer", INPUT_SIZE, **SMALL, gate_bias=3.0)
        biases = [value for name, value in core.named_parameters() if name.endswith("_gate.bias")]
        assert len(biases) == 4
        assert all((bias == 3.0).all() for bias in biases)


class TestInitialisation:
    def test_a_map_keeps_the_variance_of_its_input_and_is_cut_at_two_deviations(self) -> None:
        torch.manual_seed(0)
        layer = scaled_linear(400, 300)
        assert layer.weight.abs().max() <= 2.0 / 20.0
        assert_close(layer.weight.std().item(), 0.88 / 20.0, rtol=0.01, atol=0.0)  # 0.88: the cut normal's deviation
        assert not layer.bias.any()


class TestBadSettings:
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"window": 0}, ["window", "0"]),
            ({"heads": 3, "model_size": 10}, ["model_size=10", "heads=3"]),
            ({"heads": 0}, ["heads", "0"]),
            ({"num_layers": 0}, ["num_layers", "0"]),
            ({"model_size": 2.5}, ["model_size", "2.5"]),
            ({"feedforward_size": 0}, ["feedforward_size", "0"]),
            ({"gating": "lstm"}, ["gating", "gru", "residual", "'lstm'"]),
            ({"positions": "absolute"}, ["positions", "sinusoidal", "learned", "'absolute'"]),
            ({"gate_bias": math.nan}, ["gate_bias", "nan"]),
        ],
    )
    def test_are_refused_in_one_line_that_names_them(self, settings: dict[str, Any], named: list[str]) -> None:
        with pytest.raises(ConfigError) as caught:
            TransformerConfig(**settings)
        assert "\n" not in str(caught.value)
        assert [word for word in named if word not in str(caught.value)] == []
