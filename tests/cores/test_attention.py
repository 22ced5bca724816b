"""Attention against arrays worked out by hand, and its laws."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.cores.attention import attend_with_null, communicate, compete_between_units, select_active

UNITS, BATCH, HEADS, SLOTS = 5, 3, 2, 7
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def scores(units: int = UNITS, slots: int = SLOTS) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(units, BATCH, HEADS, slots, dtype=torch.float64)


class TestAttendWithNull:
    def test_one_slot_by_hand(self) -> None:
        """A score of log 3 against the null row's 0: shares of 3/4 and 1/4."""
        slots, null = attend_with_null(tensor([[[[log(3.0)]]], [[[-log(3.0)]]]]))
        assert_close(slots.flatten(), tensor([0.75, 0.25]), **TIGHT)
        assert_close(null.flatten(), tensor([0.25, 0.75]), **TIGHT)

    def test_two_slots_by_hand(self) -> None:
        """Scores log 2 and log 5: shares of 2/8 and 5/8, and 1/8 for the null row."""
        slots, null = attend_with_null(tensor([[[[log(2.0), log(5.0)]]]]))
        assert_close(slots.flatten(), tensor([0.25, 0.625]), **TIGHT)
        assert_close(null.flatten(), tensor([0.125]), **TIGHT)

    def test_null_attention_is_averaged_over_heads_after_the_softmax(self) -> None:
        _, null = attend_with_null(tensor([[[[log(3.0)], [0.0]]]]))
        assert_close(null, tensor([[0.375]]), **TIGHT)

    @pytest.mark.parametrize("slots", [1, SLOTS])
    def test_everything_sums_to_one(self, slots: int) -> None:
        given, null = attend_with_null(scores(slots=slots))
        assert given.shape == (UNITS, BATCH, HEADS, slots)
        assert null.shape == (UNITS, BATCH)
        assert_close(given.sum(dim=3).mean(dim=2) + null, torch.ones(UNITS, BATCH, dtype=torch.float64), **TIGHT)

    def test_a_slot_that_scores_minus_infinity_changes_nothing(self) -> None:
        """One slot goes by the logistic function, more by the softmax: both are the same function."""
        one = scores(slots=1)
        two = torch.cat([one, torch.full_like(one, -torch.inf)], dim=-1)
        assert_close(attend_with_null(two)[0][..., :1], attend_with_null(one)[0], **TIGHT)
        assert_close(attend_with_null(two)[1], attend_with_null(one)[1], **TIGHT)

    def test_large_scores_stay_finite(self) -> None:
        for slots in (1, SLOTS):
            given, null = attend_with_null(1e4 * scores(slots=slots))
            assert given.isfinite().all()
            assert null.isfinite().all()

    @pytest.mark.parametrize("slots", [1, SLOTS])
    def test_the_null_attention_carries_no_gradient_and_the_slots_do(self, slots: int) -> None:
        given, null = attend_with_null(scores(slots=slots).requires_grad_())
        assert given.requires_grad
        assert not null.requires_grad


class TestCompeteBetweenUnits:
    def test_by_hand(self) -> None:
        """Softmax (5, 3, 1, 1)/10: less the third, 1/10, leaves (4, 2)/10, renormalised (2, 1)/3."""
        given, unread = compete_between_units(tensor([log(5.0), log(3.0), 0.0, 0.0]).view(4, 1, 1, 1), 2)
        assert_close(given.flatten(), tensor([2 / 3, 1 / 3, 0.0, 0.0]), rtol=0.0, atol=1e-6)
        assert_close(unread.flatten(), 1.0 - given.flatten(), **TIGHT)

    def test_only_k_a_units_get_anything_of_a_slot(self) -> None:
        given, _ = compete_between_units(scores(), 3)
        assert ((given > 0.0).sum(dim=0) == 3).all()

    def test_what_is_given_of_a_slot_sums_to_one(self) -> None:
        given, _ = compete_between_units(scores(), 3)
        assert_close(given.sum(dim=0), torch.ones(BATCH, HEADS, SLOTS, dtype=torch.float64), rtol=0.0, atol=1e-4)

    def test_where_all_scores_tie_nobody_gets_anything(self) -> None:
        given, unread = compete_between_units(torch.zeros(UNITS, BATCH, HEADS, SLOTS, dtype=torch.float64), 3)
        assert torch.count_nonzero(given) == 0
        assert (unread == 1.0).all()

    def test_with_all_units_active_it_is_the_softmax(self) -> None:
        given, _ = compete_between_units(scores(), UNITS)
        assert_close(given, torch.softmax(scores(), dim=0), **TIGHT)

    def test_a_score_added_to_all_units_changes_nothing(self) -> None:
        assert_close(compete_between_units(scores() + 7.0, 3)[0], compete_between_units(scores(), 3)[0], **TIGHT)


class TestSelectActive:
    def test_takes_the_least_null_attention_of_each_batch_entry(self) -> None:
        null = tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.4], [0.3, 0.7], [0.4, 0.2]])
        assert select_active(null, 2).t().tolist() == [
            [False, True, False, True, False],
            [True, False, False, False, True],
        ]

    @pytest.mark.parametrize("active", [1, 2, 3, 4, 5])
    def test_ties_go_to_the_lower_index(self, active: int) -> None:
        mask = select_active(torch.full((UNITS, BATCH), 0.5), active)
        assert mask.t().tolist() == [[k < active for k in range(UNITS)]] * BATCH

    def test_a_tie_in_the_middle_goes_to_the_lower_index(self) -> None:
        null = tensor([[0.6], [0.5], [0.1], [0.5], [0.5]])
        assert select_active(null, 3).flatten().tolist() == [False, True, True, True, False]

    def test_more_units_than_a_sort_keeps_stable_by_chance(self) -> None:
        mask = select_active(torch.full((101, BATCH), 0.5), 37)
        assert mask[:37].all()
        assert not mask[37:].any()

    @pytest.mark.parametrize("active", [1, 2, 3, 4, 5])
    def test_exactly_that_many_are_chosen(self, active: int) -> None:
        mask = select_active(scores(slots=1).mean(dim=(2, 3)), active)
        assert mask.dtype == torch.bool
        assert (mask.sum(dim=0) == active).all()

    def test_carries_no_gradient(self) -> None:
        assert not select_active(torch.rand(UNITS, BATCH, requires_grad=True), 3).requires_grad


class TestCommunicate:
    def test_by_hand(self) -> None:
        """Unit 0 scores log 3 and 0 on the two units' keys: it reads 3/4 of unit 0's value and 1/4 of unit 1's."""
        queries, keys = tensor([[[1.0]], [[0.0]]]), tensor([[[log(3.0)]], [[0.0]]])
        values = tensor([[[10.0, 100.0]], [[20.0, 400.0]]])
        messages, attention = communicate(queries, keys, values, heads=1)
        assert_close(attention, tensor([[[[0.75, 0.25], [0.5, 0.5]]]]), **TIGHT)
        assert_close(messages, tensor([[[12.5, 175.0]], [[15.0, 250.0]]]), **TIGHT)

    def test_heads_are_consecutive_blocks_that_do_not_mix(self) -> None:
        torch.manual_seed(0)
        queries, keys = (torch.randn(UNITS, BATCH, HEADS * 11, dtype=torch.float64) for _ in range(2))
        values = torch.randn(UNITS, BATCH, HEADS * 13, dtype=torch.float64)
        messages, attention = communicate(queries, keys, values, HEADS)
        assert messages.shape == (UNITS, BATCH, HEADS * 13)
        assert attention.shape == (BATCH, HEADS, UNITS, UNITS)
        for head in range(HEADS):
            key_block, value_block = slice(head * 11, (head + 1) * 11), slice(head * 13, (head + 1) * 13)
            alone, weights = communicate(queries[..., key_block], keys[..., key_block], values[..., value_block], 1)
            assert_close(messages[..., value_block], alone, **TIGHT)
            assert_close(attention[:, head], weights[:, 0], **TIGHT)

    def test_a_query_of_zero_reads_the_mean(self) -> None:
        values = torch.arange(UNITS, dtype=torch.float64).view(UNITS, 1, 1).expand(UNITS, BATCH, 1)
        zeros = torch.zeros(UNITS, BATCH, 1, dtype=torch.float64)
        messages, _ = communicate(zeros, torch.ones_like(zeros), values, heads=1)
        assert_close(messages, torch.full_like(messages, 2.0), **TIGHT)

    def test_agrees_with_torchs_attention(self) -> None:
        torch.manual_seed(0)
        queries, keys, values = (torch.randn(UNITS, BATCH, HEADS * 11, dtype=torch.float64) for _ in range(3))
        messages, _ = communicate(queries / 11**0.5, keys, values, HEADS)
        q, k, v = (part.view(UNITS, BATCH, HEADS, 11).permute(1, 2, 0, 3) for part in (queries, keys, values))
        right = torch.nn.functional.scaled_dot_product_attention(q, k, v).permute(2, 0, 1, 3).flatten(2)
        assert_close(messages, right, **TIGHT)
