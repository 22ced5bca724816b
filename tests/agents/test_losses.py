"""The losses against arrays computed by hand, closed forms and laws."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rims_rl.agents.losses import approximate_kl, clipped_surrogate, generalised_advantage, normalised, value_loss

LENGTH, BATCH = 7, 3
GAMMA, LAMBDA = 0.9, 0.8


def never() -> Tensor:
    return torch.zeros(LENGTH, BATCH, dtype=torch.bool)


def some_rewards_and_values() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    draw = torch.randn(2 * LENGTH + 1, BATCH, dtype=torch.float64)
    return draw[:LENGTH], draw[LENGTH:-1], draw[-1]


class TestGeneralisedAdvantage:
    def test_of_three_steps_is_the_one_computed_by_hand(self) -> None:
        rewards, values = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[10.0], [20.0], [30.0]])
        found = generalised_advantage(
            rewards, values, torch.tensor([40.0]), torch.zeros(3, 1), gamma=0.5, gae_lambda=0.5
        )
        # deltas: 1 + 10 - 10, 2 + 15 - 20, 3 + 20 - 30; then A = delta + A' / 4
        assert_close(found, torch.tensor([[1 - 4.75 / 4], [-3 - 7 / 4], [-7.0]]))

    def test_of_constant_rewards_is_a_geometric_sum(self) -> None:
        zeros = torch.zeros(LENGTH, BATCH, dtype=torch.float64)
        found = generalised_advantage(zeros + 1, zeros, zeros[0], never(), GAMMA, LAMBDA)
        left = torch.arange(LENGTH, 0, -1, dtype=torch.float64)
        wanted = (1 - (GAMMA * LAMBDA) ** left) / (1 - GAMMA * LAMBDA)
        assert_close(found, wanted.unsqueeze(1).expand(LENGTH, BATCH))

    def test_is_zero_where_values_already_are_the_discounted_rewards(self) -> None:
        values = torch.full((LENGTH, BATCH), 1 / (1 - GAMMA), dtype=torch.float64)
        found = generalised_advantage(torch.ones_like(values), values, values[0], never(), GAMMA, LAMBDA)
        assert_close(found, torch.zeros_like(values))

    def test_with_lambda_0_is_the_one_step_error(self) -> None:
        rewards, values, last = some_rewards_and_values()
        following = torch.cat([values[1:], last.unsqueeze(0)])
        found = generalised_advantage(rewards, values, last, never(), GAMMA, 0.0)
        assert_close(found, rewards + GAMMA * following - values)

    def test_with_lambda_1_is_the_discounted_return_less_the_value(self) -> None:
        rewards, values, last = some_rewards_and_values()
        returns = [last]
        for reward in rewards.flip(0):
            returns.append(reward + GAMMA * returns[-1])
        found = generalised_advantage(rewards, values, last, never(), GAMMA, 1.0)
        assert_close(found, torch.stack(returns[:0:-1]) - values)

    @pytest.mark.parametrize("end", range(LENGTH))
    def test_is_cut_by_an_end(self, end: int) -> None:
        rewards, values, last = some_rewards_and_values()
        ends = never()
        ends[end, 1] = True
        found = generalised_advantage(rewards, values, last, ends, GAMMA, LAMBDA)
        alone = generalised_advantage(
            rewards[: end + 1], values[: end + 1], torch.zeros_like(last), never()[: end + 1], GAMMA, LAMBDA
        )
        uncut = generalised_advantage(rewards, values, last, never(), GAMMA, LAMBDA)
        assert_close(found[: end + 1, 1], alone[:, 1])
        assert_close(found[end + 1 :], uncut[end + 1 :])
        assert_close(found[:, [0, 2]], uncut[:, [0, 2]])


class TestClippedSurrogate:
    def test_takes_the_smaller_of_both_products(self) -> None:
        ratios = torch.tensor([0.5, 0.5, 1.0, 2.0, 2.0])
        advantages = torch.tensor([3.0, -3.0, 7.0, 3.0, -3.0])
        # clipped to [0.8, 1.2]: 0.5 * 3, 0.8 * -3, 7, 1.2 * 3, 2 * -3
        wanted = -(1.5 - 2.4 + 7.0 + 3.6 - 6.0) / 5
        found = clipped_surrogate(ratios.log(), torch.zeros(5), advantages, clip_range=0.2)
        assert found.item() == pytest.approx(wanted, rel=1e-6)

    def test_at_ratio_1_has_the_gradient_of_the_plain_policy_gradient(self) -> None:
        log_prob = torch.linspace(-3, -0.1, 5, dtype=torch.float64, requires_grad=True)
        advantages = torch.tensor([2.0, -3.0, 5.0, -7.0, 11.0], dtype=torch.float64)
        clipped_surrogate(log_prob, log_prob.detach().clone(), advantages, 0.2).backward()
        assert_close(log_prob.grad, -advantages / 5)

    @pytest.mark.parametrize(("ratio", "advantage", "moves"), [(1.3, 1, 0), (1.3, -1, 1), (0.7, 1, 1), (0.7, -1, 0)])
    def test_pushes_a_ratio_outside_the_range_only_back(self, ratio: float, advantage: float, moves: bool) -> None:
        log_prob = torch.tensor([math.log(ratio)], requires_grad=True)
        clipped_surrogate(log_prob, torch.zeros(1), torch.tensor([float(advantage)]), 0.2).backward()
        assert log_prob.grad is not None
        assert (log_prob.grad.item() != 0) == bool(moves)


class TestValueLoss:
    def test_without_clipping_is_the_mean_squared_error(self) -> None:
        found = value_loss(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2), torch.tensor([[4.0, 0.0]]), None)
        assert found.item() == pytest.approx((9 + 4) / 2)

    def test_clips_how_far_values_move_from_the_old_ones(self) -> None:
        values, old = torch.tensor([1.0, 2.05, 2.0]), torch.tensor([0.0, 2.0, 3.0])
        # clipped to 0.1, 2.05, 2.9, for returns of 1
        wanted = (0.9**2 + 1.05**2 + 1.9**2) / 3
        assert value_loss(values, old, torch.ones(3), 0.1).item() == pytest.approx(wanted, rel=1e-6)


class TestNormalised:
    def test_has_mean_0_and_deviation_1(self) -> None:
        found = normalised(torch.tensor([[2.0, 3.0], [5.0, 11.0]]))
        assert found.mean().item() == pytest.approx(0, abs=1e-6)
        assert found.std().item() == pytest.approx(1, abs=1e-6)

    def test_keeps_a_single_advantage(self) -> None:
        assert_close(normalised(torch.tensor([[7.0]])), torch.tensor([[7.0]]))

    def test_of_equal_advantages_is_zero_and_not_nan(self) -> None:
        assert_close(normalised(torch.full((2, 3), 5.0)), torch.zeros(2, 3))


class TestApproximateKL:
    def test_is_zero_for_the_same_policy(self) -> None:
        log_prob = torch.linspace(-3, -0.1, 5)
        assert approximate_kl(log_prob, log_prob).item() == 0

    @pytest.mark.parametrize("shift", [-2.0, -0.1, 0.1, 2.0])
    def test_is_positive_for_another_policy_whichever_way_it_moved(self, shift: float) -> None:
        log_prob = torch.linspace(-3, -0.1, 5, dtype=torch.float64)
        assert approximate_kl(log_prob + shift, log_prob).item() == pytest.approx(math.exp(shift) - 1 - shift)
        assert approximate_kl(log_prob + shift, log_prob).item() > 0

    def test_over_the_old_policys_actions_is_the_divergence_itself(self) -> None:
        old, new = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
        actions = torch.tensor([0, 0, 1, 2])  # as often as the old policy takes them
        wanted = (old * (old / new).log()).sum().item()
        assert approximate_kl(new.log()[actions], old.log()[actions]).item() == pytest.approx(wanted, rel=1e-6)
