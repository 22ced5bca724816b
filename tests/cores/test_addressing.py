"""Each step of finding a row, against numbers worked out by hand and against the papers' sums written as loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores.addressing import (
    allocation_weights,
    circular_shift,
    content_weights,
    cosine_similarity,
    erase_and_add,
    link_in_order,
    mixed_read_weights,
    oneplus,
    sharpen,
    usage_after_step,
)

BATCH, HEADS, ROWS, WIDTH = 2, 3, 7, 5
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
SMOOTHED: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
"""Squared norms are smoothed by a millionth; these are the numbers without it."""


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def tensor(*values: object) -> Tensor:
    """Return the values with a batch axis of as many as there are arguments, mostly one."""
    return torch.tensor(values, dtype=torch.float64)


def one_hot(row: int, rows: int = ROWS) -> Tensor:
    return torch.eye(rows, dtype=torch.float64)[row]


def random_weights(*shape: int) -> Tensor:
    return torch.softmax(torch.randn(*shape, dtype=torch.float64), dim=-1)


class TestOneplus:
    def test_is_never_below_one(self) -> None:
        assert_close(oneplus(tensor(-100.0, 0.0, 100.0)), tensor(1.0, 1.0 + math.log(2.0), 101.0), **EXACT)


class TestSimilarity:
    def test_is_the_cosine_of_the_angle(self) -> None:
        keys, memory = tensor([[3.0, 4.0]]), tensor([[4.0, 3.0], [-6.0, -8.0], [-4.0, 3.0], [3.0, 4.0]])
        assert_close(cosine_similarity(keys, memory), tensor([[0.96, -1.0, 0.0, 1.0]]), **SMOOTHED)

    def test_an_empty_row_is_like_nothing_and_has_a_finite_gradient(self) -> None:
        memory = torch.zeros(1, ROWS, WIDTH, dtype=torch.float64, requires_grad=True)
        similarity = cosine_similarity(torch.ones(1, 1, WIDTH, dtype=torch.float64), memory)
        assert not similarity.any()
        (gradient,) = torch.autograd.grad(similarity.sum(), memory)
        assert gradient.isfinite().all()
        assert gradient.all()

    def test_every_key_of_a_sequence_meets_every_row_of_its_own_memory(self) -> None:
        keys, memory = torch.randn(BATCH, HEADS, WIDTH).double(), torch.randn(BATCH, ROWS, WIDTH).double()
        similarity = cosine_similarity(keys, memory)
        for b in range(BATCH):
            for h in range(HEADS):
                expected = torch.cosine_similarity(keys[b, h], memory[b], dim=-1)
                assert_close(similarity[b, h], expected, **SMOOTHED)


class TestContentWeights:
    def test_strength_is_the_base_of_the_softmax(self) -> None:
        memory = tensor([[1.0, 0.0], [0.0, 1.0]])
        weights = content_weights(tensor([[5.0, 0.0]]), tensor([[math.log(3.0)]]), memory)
        assert_close(weights, tensor([[0.75, 0.25]]), **SMOOTHED)

    def test_a_great_strength_picks_the_most_similar_row(self) -> None:
        memory = torch.randn(1, ROWS, WIDTH, dtype=torch.float64)
        weights = content_weights(memory[:, 4:5] * 0.1, tensor([[1000.0]]), memory)
        assert_close(weights[0, 0], one_hot(4), **SMOOTHED)

    def test_rows_that_are_alike_share_equally(self) -> None:
        weights = content_weights(tensor([[1.0, 2.0]]), tensor([[9.0]]), torch.ones(1, ROWS, 2, dtype=torch.float64))
        assert_close(weights, torch.full_like(weights, 1 / ROWS), **EXACT)


class TestShift:
    def test_moves_by_each_number_of_rows_as_far_as_it_is_told(self) -> None:
        moved = circular_shift(one_hot(3).view(1, 1, -1), tensor([[0.1, 0.2, 0.7]]))
        assert_close(moved[0, 0], 0.1 * one_hot(2) + 0.2 * one_hot(3) + 0.7 * one_hot(4), **EXACT)

    def test_last_and_first_row_are_neighbours(self) -> None:
        onwards, back = tensor([[0.0, 0.0, 1.0]]), tensor([[1.0, 0.0, 0.0]])
        assert circular_shift(one_hot(ROWS - 1).view(1, 1, -1), onwards)[0, 0].tolist() == one_hot(0).tolist()
        assert circular_shift(one_hot(0).view(1, 1, -1), back)[0, 0].tolist() == one_hot(ROWS - 1).tolist()

    @pytest.mark.parametrize("shifts", [3, 5, 7])
    def test_equals_the_papers_sum(self, shifts: int) -> None:
        weights, by = random_weights(BATCH, HEADS, ROWS), random_weights(BATCH, HEADS, shifts)
        expected = torch.zeros_like(weights)
        for i in range(ROWS):
            for offset in range(shifts):
                expected[..., i] += weights[..., (i - (offset - shifts // 2)) % ROWS] * by[..., offset]
        assert_close(circular_shift(weights, by), expected, **EXACT)


class TestSharpen:
    def test_is_the_power_renormalised(self) -> None:
        sharp = sharpen(tensor([[0.2, 0.3, 0.5]]), tensor([[2.0]]))
        assert_close(sharp, tensor([[0.04, 0.09, 0.25]]) / 0.38, **EXACT)

    def test_the_power_one_changes_nothing(self) -> None:
        weights = random_weights(BATCH, HEADS, ROWS)
        assert_close(sharpen(weights, torch.ones(BATCH, HEADS, 1).double()), weights, **EXACT)

    def test_a_power_at_which_every_weight_vanishes_still_gives_weights(self) -> None:
        weights = torch.full((1, 1, 1000), 1e-3, dtype=torch.float32)
        sharp = sharpen(weights, torch.tensor([[[50.0]]]))  # 1e-150 is zero in float32
        assert_close(sharp, weights)

    def test_zeros_stay_and_have_a_finite_gradient(self) -> None:
        weights = one_hot(2).view(1, 1, -1).requires_grad_()
        sharp = sharpen(weights, tensor([[1.5]]))
        assert_close(sharp[0, 0], one_hot(2), **EXACT)
        (gradient,) = torch.autograd.grad(sharp[0, 0, 2], weights)
        assert gradient.isfinite().all()


class TestEraseAndAdd:
    def test_one_head_by_hand(self) -> None:
        memory = tensor([[10.0, 20.0], [30.0, 40.0]])
        written = erase_and_add(memory, tensor([[0.5, 1.0]]), tensor([[1.0, 0.0]]), tensor([[2.0, 4.0]]))
        assert written.tolist() == [[[6.0, 22.0], [2.0, 44.0]]]

    def test_two_heads_by_hand(self) -> None:
        weights, erase, add = tensor([[1.0], [0.5]]), tensor([[0.5], [1.0]]), tensor([[3.0], [4.0]])
        written = erase_and_add(tensor([[8.0]]), weights, erase, add)
        assert written.tolist() == [[[8.0 * 0.5 * 0.5 + 3.0 + 2.0]]]

    def test_all_erase_before_any_adds_so_that_their_order_does_not_matter(self) -> None:
        memory, weights = torch.randn(BATCH, ROWS, WIDTH).double(), random_weights(BATCH, HEADS, ROWS)
        erase, add = torch.rand(BATCH, HEADS, WIDTH).double(), torch.randn(BATCH, HEADS, WIDTH).double()
        turned = erase_and_add(memory, weights.flip(1), erase.flip(1), add.flip(1))
        assert_close(erase_and_add(memory, weights, erase, add), turned, **EXACT)

    def test_a_head_beside_an_idle_one_writes_as_if_alone(self) -> None:
        memory, weights = torch.randn(BATCH, ROWS, WIDTH).double(), random_weights(BATCH, 2, ROWS)
        erase, add = torch.rand(BATCH, 2, WIDTH).double(), torch.randn(BATCH, 2, WIDTH).double()
        alone = erase_and_add(memory, weights[:, :1], erase[:, :1], add[:, :1])
        weights[:, 1] = 0.0
        assert_close(erase_and_add(memory, weights, erase, add), alone, **EXACT)


class TestUsage:
    def test_writing_raises_it_and_freeing_what_was_read_lowers_it(self) -> None:
        usage, write = tensor([0.5, 0.5, 0.0, 1.0]), tensor([0.5, 0.0, 1.0, 0.0])
        read, free = tensor([[0.0, 0.5, 0.0, 0.5], [0.0, 0.0, 0.0, 0.5]]), tensor([[1.0], [0.5]])
        after = usage_after_step(usage, write, free, read)
        assert after.tolist() == [[0.75, 0.25, 1.0, 0.5 * 0.75]]

    def test_without_free_gates_a_used_row_stays_used(self) -> None:
        usage = torch.ones(BATCH, ROWS, dtype=torch.float64)
        read, closed = random_weights(BATCH, HEADS, ROWS), torch.zeros(BATCH, HEADS, 1, dtype=torch.float64)
        assert_close(usage_after_step(usage, random_weights(BATCH, ROWS), closed, read), usage, **EXACT)


class TestAllocation:
    def test_by_hand(self) -> None:
        expected = tensor([0.1 * 0.1 * 0.5, 0.9, 0.5 * 0.1])  # the second row is the freest, then the third
        assert_close(allocation_weights(tensor([0.9, 0.1, 0.5])), expected, **EXACT)

    def test_equals_the_papers_product(self) -> None:
        usage = torch.rand(BATCH, ROWS, dtype=torch.float64)
        weights = allocation_weights(usage)
        for b in range(BATCH):
            free_list = usage[b].argsort().tolist()
            for j, row in enumerate(free_list):
                expected = (1 - usage[b, row]) * usage[b, free_list[:j]].prod()
                assert_close(weights[b, row], expected, **EXACT)

    def test_a_full_memory_allocates_nothing(self) -> None:
        assert_close(allocation_weights(torch.ones(1, ROWS)), torch.zeros(1, ROWS), **EXACT)

    def test_ties_go_to_the_lower_row_and_rounding_does_not_decide(self) -> None:
        for usage in (0.0, 0.3):
            tied = torch.full((1, ROWS), usage, dtype=torch.float32)
            rounded = tied - 1e-7 * torch.arange(ROWS)  # as far off as float32 is rounded, the last row the freest
            assert allocation_weights(tied)[0].argmax() == 0
            assert_close(allocation_weights(rounded), allocation_weights(tied), rtol=1e-4, atol=1e-6)

    def test_a_freed_row_is_the_next(self) -> None:
        usage = torch.ones(1, ROWS, dtype=torch.float64)
        opened = torch.ones(1, 1, 1, dtype=torch.float64)
        usage = usage_after_step(usage, torch.zeros_like(usage), opened, one_hot(4).view(1, 1, -1))
        assert_close(allocation_weights(usage)[0], one_hot(4), **EXACT)

    def test_its_gradient_is_the_derivative_away_from_ties(self) -> None:
        usage = torch.rand(BATCH, ROWS, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(allocation_weights, (usage,))

    def test_a_gradient_reaches_every_row_of_an_empty_memory(self) -> None:
        usage = torch.zeros(1, ROWS, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad((allocation_weights(usage) * torch.arange(1.0, ROWS + 1)).sum(), usage)
        assert gradient.isfinite().all()
        assert gradient[0, 0] == 2.0 - 1.0  # row 0 in use would send the next write to row 1


def links_after(*rows: int) -> tuple[Tensor, Tensor]:
    """Write one row after the other, each whole."""
    links, precedence = torch.zeros(1, ROWS, ROWS, dtype=torch.float64), torch.zeros(1, ROWS, dtype=torch.float64)
    for row in rows:
        links, precedence = link_in_order(links, precedence, one_hot(row).unsqueeze(0))
    return links, precedence


class TestLinks:
    def test_a_row_is_linked_to_the_one_written_before(self) -> None:
        links, precedence = links_after(2, 0, 5)
        assert links[0].nonzero().tolist() == [[0, 2], [5, 0]]
        assert precedence[0].tolist() == one_hot(5).tolist()

    def test_writing_a_row_again_breaks_its_old_links(self) -> None:
        links, _ = links_after(2, 0, 5, 2)
        assert links[0].nonzero().tolist() == [[2, 5], [5, 0]]

    def test_a_row_is_never_linked_to_itself(self) -> None:
        assert not links_after(3, 3, 3)[0].any()

    def test_a_step_without_a_write_changes_nothing(self) -> None:
        links, precedence = links_after(2, 0)
        unchanged = link_in_order(links, precedence, torch.zeros_like(precedence))
        assert torch.equal(unchanged[0], links)
        assert torch.equal(unchanged[1], precedence)

    def test_equals_the_papers_equations(self) -> None:
        links, precedence = torch.rand(ROWS, ROWS).double().fill_diagonal_(0.0), random_weights(ROWS)
        write = 0.7 * random_weights(ROWS)
        expected = torch.zeros_like(links)
        for i in range(ROWS):
            for j in range(ROWS):
                if i != j:
                    expected[i, j] = (1 - write[i] - write[j]) * links[i, j] + write[i] * precedence[j]
        after, following = link_in_order(links.unsqueeze(0), precedence.unsqueeze(0), write.unsqueeze(0))
        assert_close(after[0], expected, **EXACT)
        assert_close(following[0], 0.3 * precedence + write, **EXACT)


class TestReadModes:
    @pytest.mark.parametrize(("mode", "row"), [(0, 2), (1, 6), (2, 5)], ids=["backward", "content", "forward"])
    def test_each_leads_to_its_row(self, mode: int, row: int) -> None:
        links, _ = links_after(2, 0, 5)
        was, alike = one_hot(0).view(1, 1, -1), one_hot(6).view(1, 1, -1)
        read = mixed_read_weights(links, was, alike, one_hot(mode, 3).view(1, 1, -1))
        assert read[0, 0].tolist() == one_hot(row).tolist()

    def test_heads_mix_them_each_in_its_own_way(self) -> None:
        links, _ = links_after(2, 0, 5)
        was, alike = one_hot(0).expand(1, 2, -1), one_hot(6).expand(1, 2, -1)
        read = mixed_read_weights(links, was, alike, tensor([[0.5, 0.25, 0.25], [0.0, 0.75, 0.25]]))
        assert read[0, 0].tolist() == [0.0, 0.0, 0.5, 0.0, 0.0, 0.25, 0.25]
        assert read[0, 1].tolist() == [0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.75]
