"""The laws of the core contract, for every core in the table of `every_core`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close

from rims_rl.cores import RecurrentCore
from rims_rl.errors import ConfigError
from tests.cores.every_core import BATCH, CASES, INPUT_SIZE, LENGTH, Case, lived_state, some_resets

pytestmark = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _loop_of_the_case(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIMS_RL_LOOP", case.loop)


def steps_one_by_one(
    core: RecurrentCore, inputs: Tensor, state: Tensor, starts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(inputs.shape[0]):
        output, state = core(inputs[t : t + 1], state, None if starts is None else starts[t : t + 1])
        outputs.append(output)
    return torch.cat(outputs), state


class TestSizes:
    def test_outputs_and_state_have_the_promised_sizes(self, case: Case) -> None:
        core = case.build()
        outputs, state = core(case.inputs(), core.initial_state(BATCH))
        assert outputs.shape == (LENGTH, BATCH, core.output_size)
        assert state.shape == (BATCH, core.state_size)

    def test_length_and_batch_are_free(self, case: Case) -> None:
        core = case.build()
        inputs, state, starts = case.inputs(13, 7), lived_state(core, case, 7), some_resets(13, 7)
        whole, _ = core(inputs, state, starts)
        for length, batch in [(1, 1), (1, 7), (13, 1), (2, 5)]:
            part, _ = core(inputs[:length, :batch], state[:batch], starts[:length, :batch])
            assert_close(part, whole[:length, :batch], **TIGHT)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_initial_state_is_flat_and_of_the_parameters_type(self, case: Case, dtype: torch.dtype) -> None:
        core = case.build(dtype)
        assert core.initial_state(7).shape == (7, core.state_size)
        assert core.initial_state(7).dtype == dtype

    def test_float32_comes_out_of_float32(self, case: Case) -> None:
        core = case.build(torch.float32)
        outputs, state = core(case.inputs(dtype=torch.float32), core.initial_state(BATCH))
        assert outputs.dtype == state.dtype == torch.float32

    def test_unpacks_to_a_named_tuple_whose_first_field_is_h_by_units(self, case: Case) -> None:
        core = case.build()
        view = core.unpack(core.initial_state(BATCH))
        assert view._fields[0] == "h"
        assert view[0].dim() == 3
        assert view[0].shape[0] == BATCH

    def test_the_named_view_holds_the_whole_state_once(self, case: Case) -> None:
        core = case.build()
        state = torch.arange(BATCH * core.state_size, dtype=torch.float64).view(BATCH, core.state_size)
        parts = [part.reshape(BATCH, -1) for part in core.unpack(state) if part is not None]
        assert torch.equal(torch.cat(parts, dim=1).sort(dim=1).values, state)


class TestWholeSequenceEqualsItsSteps:
    def test_step_by_step(self, case: Case) -> None:
        core = case.build()
        inputs, state = case.inputs(), lived_state(core, case)
        for fast, slow in zip(core(inputs, state), steps_one_by_one(core, inputs, state), strict=True):
            assert_close(fast, slow, **TIGHT)

    def test_step_by_step_across_resets(self, case: Case) -> None:
        core = case.build()
        inputs, state, starts = case.inputs(), lived_state(core, case), some_resets()
        for fast, slow in zip(core(inputs, state, starts), steps_one_by_one(core, inputs, state, starts), strict=True):
            assert_close(fast, slow, **TIGHT)

    def test_cut_into_two_chunks(self, case: Case) -> None:
        core = case.build()
        inputs, state, starts = case.inputs(), lived_state(core, case), some_resets()
        whole, last = core(inputs, state, starts)
        first, between = core(inputs[:5], state, starts[:5])
        second, end = core(inputs[5:], between, starts[5:])
        assert_close(torch.cat([first, second]), whole, **TIGHT)
        assert_close(end, last, **TIGHT)


class TestResetIsAFreshStart:
    def test_after_a_reset_in_mid_sequence_nothing_is_left_of_the_past(self, case: Case) -> None:
        core = case.build()
        inputs, starts = case.inputs(), torch.zeros(LENGTH, BATCH, dtype=torch.bool)
        starts[5, 1] = True
        outputs, last = core(inputs, lived_state(core, case), starts)
        fresh, end = core(inputs[5:, 1:2], core.initial_state(1))
        assert_close(outputs[5:, 1:2], fresh, **TIGHT)
        assert_close(last[1:2], end, **TIGHT)

    def test_the_other_sequences_go_on(self, case: Case) -> None:
        core = case.build()
        inputs, state, starts = case.inputs(), lived_state(core, case), torch.zeros(LENGTH, BATCH, dtype=torch.bool)
        starts[5, 1] = True
        outputs, _ = core(inputs, state, starts)
        undisturbed, _ = core(inputs, state)
        assert_close(outputs[:, [0, 2]], undisturbed[:, [0, 2]], **TIGHT)
        assert_close(outputs[:5], undisturbed[:5], **TIGHT)

    def test_at_the_first_step_the_given_state_is_forgotten(self, case: Case) -> None:
        core = case.build()
        inputs, starts = case.inputs(), torch.zeros(LENGTH, BATCH, dtype=torch.bool)
        starts[0] = True
        outputs, last = core(inputs, lived_state(core, case), starts)
        fresh, end = core(inputs, core.initial_state(BATCH))
        assert_close(outputs, fresh, **TIGHT)
        assert_close(last, end, **TIGHT)

    def test_no_gradient_crosses_it(self, case: Case) -> None:
        core = case.build()
        inputs, state = case.inputs().requires_grad_(), lived_state(core, case).requires_grad_()
        starts = torch.zeros(LENGTH, BATCH, dtype=torch.bool)
        starts[5] = True
        outputs, _ = core(inputs, state, starts)
        to_inputs, to_state = torch.autograd.grad(outputs[5:].sum(), [inputs, state], materialize_grads=True)
        assert torch.count_nonzero(to_inputs[:5]) == torch.count_nonzero(to_state) == 0
        assert torch.count_nonzero(to_inputs[5:]) > 0

    def test_no_starts_at_all_and_starts_of_false_are_the_same(self, case: Case) -> None:
        core = case.build()
        inputs, state = case.inputs(), lived_state(core, case)
        none, _ = core(inputs, state)
        false, _ = core(inputs, state, torch.zeros(LENGTH, BATCH, dtype=torch.bool))
        assert torch.equal(none, false)

    def test_starts_may_be_zeros_and_ones(self, case: Case) -> None:
        core = case.build()
        inputs, state, starts = case.inputs(), lived_state(core, case), some_resets()
        assert torch.equal(core(inputs, state, starts)[0], core(inputs, state, starts.float())[0])


class TestSequencesAreStrangers:
    def test_changing_one_sequence_leaves_the_others_alone(self, case: Case) -> None:
        core = case.build()
        inputs, state, starts = case.inputs(), lived_state(core, case), some_resets()
        other_inputs, other_state, other_starts = inputs.clone(), state.clone(), starts.clone()
        other_inputs[:, 1], other_state[1] = 3.0 * case.inputs()[:, 1], lived_state(core, case)[1]
        other_starts[:, 1] = ~starts[:, 1]
        before, after = core(inputs, state, starts), core(other_inputs, other_state, other_starts)
        assert_close(after[0][:, [0, 2]], before[0][:, [0, 2]], **TIGHT)
        assert_close(after[1][[0, 2]], before[1][[0, 2]], **TIGHT)
        assert not torch.allclose(after[0][:, 1], before[0][:, 1])

    def test_gradient_between_sequences_is_exactly_zero(self, case: Case) -> None:
        core = case.build()
        inputs, state = case.inputs().requires_grad_(), lived_state(core, case).requires_grad_()
        outputs, last = core(inputs, state)
        loss = outputs[:, 1].sum() + last[1].sum()
        to_inputs, to_state = torch.autograd.grad(loss, [inputs, state], materialize_grads=True)
        assert torch.count_nonzero(to_inputs[:, [0, 2]]) == torch.count_nonzero(to_state[[0, 2]]) == 0
        assert torch.count_nonzero(to_inputs[:, 1]) > 0


class TestGradients:
    def test_every_parameter_gets_gradient(self, case: Case) -> None:
        core = case.build()
        outputs, _ = core(case.inputs(), lived_state(core, case), some_resets())
        (outputs * torch.randn_like(outputs)).sum().backward()
        without = [name for name, p in core.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []

    def test_agree_with_finite_differences(self, case: Case) -> None:
        if not case.true_gradient:
            pytest.skip("blocks a gradient on purpose; its gradient is compared with the slow reference's")
        core = case.build()
        inputs, state, starts = case.inputs(5, 2), lived_state(core, case, 2), some_resets(5, 2)
        state = state + 0.1 * torch.randn_like(state)  # no two units in the same state, where a selection would jump
        names = [name for name, _ in core.named_parameters()]

        def run(inputs: Tensor, state: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
            outputs: tuple[Tensor, Tensor] = functional_call(
                core, dict(zip(names, parameters, strict=True)), (inputs, state, starts)
            )
            return outputs

        arguments = [inputs, state, *core.parameters()]
        arguments = [a.detach().clone().requires_grad_(a.numel() > 0) for a in arguments]
        assert torch.autograd.gradcheck(run, arguments, fast_mode=True, atol=1e-7, rtol=1e-5)


class TestNothingIsKept:
    def test_the_same_call_gives_the_same_bits(self, case: Case) -> None:
        core = case.build()
        inputs, state, starts = case.inputs(), lived_state(core, case), some_resets()
        for first, second in zip(core(inputs, state, starts), core(inputs, state, starts), strict=True):
            assert torch.equal(first, second)

    def test_training_and_evaluation_mode_are_the_same(self, case: Case) -> None:
        core = case.build()
        inputs, state = case.inputs(), lived_state(core, case)
        assert torch.equal(core.train()(inputs, state)[0], core.eval()(inputs, state)[0])

    def test_the_arguments_are_not_written_to(self, case: Case) -> None:
        core = case.build()
        arguments = [case.inputs(), lived_state(core, case), some_resets()]
        copies = [argument.clone() for argument in arguments]
        core(*arguments)
        assert all(torch.equal(argument, copy) for argument, copy in zip(arguments, copies, strict=True))


class TestMixedPrecision:
    def test_runs_in_bfloat16_autocast(self, case: Case) -> None:
        core = case.build(torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs, last = core(case.inputs(dtype=torch.float32), core.initial_state(BATCH))
        assert outputs.shape == (LENGTH, BATCH, core.output_size)
        assert outputs.isfinite().all()
        assert last.isfinite().all()


class TestDiagnose:
    def test_returns_what_forward_returns(self, case: Case) -> None:
        core = case.build()
        inputs, state, starts = case.inputs(), lived_state(core, case), some_resets()
        outputs, last, _ = core.diagnose(inputs, state, starts)
        for diagnosed, plain in zip((outputs, last), core(inputs, state, starts), strict=True):
            assert_close(diagnosed, plain, **TIGHT)

    def test_names_tensors_by_step_and_sequence_without_gradient(self, case: Case) -> None:
        core = case.build()
        _, _, found = core.diagnose(case.inputs(), core.initial_state(BATCH))
        assert all(tensor.shape[:2] == (LENGTH, BATCH) for tensor in found.values())
        assert not any(tensor.requires_grad for tensor in found.values())


class TestWrongShapes:
    @staticmethod
    def message(core: RecurrentCore, *arguments: Tensor) -> str:
        with pytest.raises(ConfigError) as caught:
            core(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_inputs_of_another_size_are_refused_with_the_right_size(self, case: Case) -> None:
        core = case.build()
        message = self.message(core, torch.zeros(LENGTH, BATCH, 19), core.initial_state(BATCH))
        assert f"I={INPUT_SIZE}" in message
        assert f"({LENGTH}, {BATCH}, 19)" in message

    @pytest.mark.parametrize("shape", [(INPUT_SIZE,), (BATCH, INPUT_SIZE), (2, 2, 2, 2, INPUT_SIZE)])
    def test_inputs_without_time_or_with_too_many_axes_are_refused(self, case: Case, shape: tuple[int, ...]) -> None:
        core = case.build()
        assert "inputs must be (T, B, I)" in self.message(core, torch.zeros(shape), core.initial_state(BATCH))

    @pytest.mark.parametrize("empty_axis", [0, 1])
    def test_no_steps_and_no_sequences_are_refused(self, case: Case, empty_axis: int) -> None:
        core = case.build()
        inputs = case.inputs().narrow(empty_axis, 0, 0)
        assert "inputs" in self.message(core, inputs, core.initial_state(inputs.shape[1]))

    def test_a_state_of_another_number_type_is_refused_and_never_misread(self, case: Case) -> None:
        core = case.build(torch.float32)
        if core.state_size:
            with pytest.raises((ConfigError, RuntimeError, ValueError)):
                core(case.inputs(dtype=torch.float32), core.initial_state(BATCH).double())

    def test_slots_are_refused_by_a_core_that_takes_none(self, case: Case) -> None:
        core = case.build()
        inputs = torch.zeros(LENGTH, BATCH, 7, INPUT_SIZE, dtype=torch.float64)
        if core.accepts_slots:
            assert core(inputs, core.initial_state(BATCH))[0].shape == (LENGTH, BATCH, core.output_size)
        else:
            assert "inputs must be (T, B, I)" in self.message(core, inputs, core.initial_state(BATCH))

    def test_a_state_of_another_batch_is_refused(self, case: Case) -> None:
        core = case.build()
        message = self.message(core, case.inputs(), core.initial_state(BATCH + 2))
        assert f"state must be (B, F) = ({BATCH}, {core.state_size})" in message

    def test_a_state_of_another_size_is_refused(self, case: Case) -> None:
        core = case.build()
        message = self.message(core, case.inputs(), torch.zeros(BATCH, core.state_size + 1))
        assert f"({BATCH}, {core.state_size + 1})" in message

    @pytest.mark.parametrize("shape", [(LENGTH,), (BATCH, LENGTH), (LENGTH - 1, BATCH)])
    def test_episode_starts_of_another_shape_are_refused(self, case: Case, shape: tuple[int, ...]) -> None:
        core = case.build()
        starts = torch.zeros(shape, dtype=torch.bool)
        message = self.message(core, case.inputs(), core.initial_state(BATCH), starts)
        assert f"episode_starts must be (T, B) = ({LENGTH}, {BATCH})" in message
