"""The slow reference against steps worked out by hand, with numbers and not with tensors."""

from __future__ import annotations

from math import exp, tanh
from typing import Any

import pytest
import torch

from rims_rl.cores import RIM, RIMConfig
from rims_rl.cores.reference import reference_rim

X = 0.7
H = (0.3, -0.5)
W = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))  # input to r, z, n
U = ((0.7, 0.8, 0.9), (1.2, 1.3, 1.4))  # state to r, z, n
BIAS = ((0.01, 0.02, 0.03), (0.04, 0.05, 0.06))
BIAS_HN = (0.07, 0.08)
QUERY = (1.1, 1.6)
KEY, VALUE = 2.0, 1.5
ASK, OFFER, SAY = (0.2, 0.7), (0.3, 1.1), (0.5, 1.3)  # queries, keys and values of the communication
HEAR = (1.7, 1.9)  # its output maps


def two_small_units(key_size: int = 1, message_key_size: int = 1, bounded: bool = False, **settings: Any) -> RIM:
    """Return two units of size 1, of which one is active; every entry along a key's axis is the same number."""
    config = RIMConfig(
        cell="gru",
        num_units=2,
        active_units=1,
        unit_size=1,
        input_key_size=key_size,
        input_value_size=1,
        communication_heads=1,
        communication_key_size=message_key_size,
        communication_value_size=1,
        bounded_messages=bounded,
        **settings,
    )
    core = RIM(1, config).double()
    numbers: dict[str, Any] = {
        "value": [[VALUE]],
        "key": [[KEY] * key_size],
        "weight_ih": [[W[k]] for k in range(2)],
        "from_state": [[[*U[k], *[QUERY[k]] * key_size]] for k in range(2)],
        "bias": [[BIAS[k]] for k in range(2)],
        "bias_hn": [[[BIAS_HN[k]]] for k in range(2)],
        "to_message": [[[*[ASK[k]] * message_key_size, *[OFFER[k]] * message_key_size, SAY[k]]] for k in range(2)],
        "from_message": [[[HEAR[k]]] for k in range(2)],
        "message_out.weight": [[1.2]],
        "message_out.bias": [0.1],
        "message_gate.weight": [[-0.8]],
        "message_gate.bias": [0.2],
    }
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            parameter.copy_(torch.tensor(numbers[name], dtype=torch.float64))
    return core


def one_step(core: RIM) -> list[float]:
    inputs = torch.full((1, 1, 1), X, dtype=torch.float64)
    state = torch.tensor([H], dtype=torch.float64)
    outputs, _ = reference_rim(core, inputs, state)
    numbers: list[float] = outputs.flatten().tolist()
    return numbers


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + exp(-x))


def hand_gru(k: int, share: float) -> float:
    """Return the candidate of unit k when it gets this share of the input."""
    read = share * VALUE * X
    r = sigmoid(W[k][0] * read + BIAS[k][0] + U[k][0] * H[k])
    z = sigmoid(W[k][1] * read + BIAS[k][1] + U[k][1] * H[k])
    n = tanh(W[k][2] * read + BIAS[k][2] + r * (U[k][2] * H[k] + BIAS_HN[k]))
    return (1.0 - z) * n + z * H[k]


def hand_score(k: int) -> float:
    return (QUERY[k] * H[k]) * (KEY * X)


def hand_message(own: float, other: float, scale: float = 1.0) -> float:
    """Return what unit 0 reads from itself and the other, before the output map."""
    to_itself, to_other = exp(scale * ASK[0] * own * OFFER[0] * own), exp(scale * ASK[0] * own * OFFER[1] * other)
    return (to_itself * SAY[0] * own + to_other * SAY[1] * other) / (to_itself + to_other)


class TestOneStepByHand:
    """Unit 0's query meets the key with a positive score, unit 1's with a negative one: unit 0 is the active one."""

    def test_the_active_unit_updates_and_reads_from_both_and_the_other_keeps_its_state(self) -> None:
        candidate = hand_gru(0, sigmoid(hand_score(0)))
        first, second = one_step(two_small_units())
        assert first == pytest.approx(candidate + HEAR[0] * hand_message(candidate, H[1]), abs=1e-14)
        assert second == H[1]

    def test_without_communication_the_candidate_is_the_new_state(self) -> None:
        first, second = one_step(two_small_units(communication=False))
        assert first == pytest.approx(hand_gru(0, sigmoid(hand_score(0))), abs=1e-14)
        assert second == H[1]

    def test_where_units_compete_the_winner_gets_all_but_the_epsilon(self) -> None:
        ahead = sigmoid(hand_score(0) - hand_score(1)) - sigmoid(hand_score(1) - hand_score(0)) - 1e-7
        first, second = one_step(two_small_units(competition="units", communication=False))
        assert first == pytest.approx(hand_gru(0, ahead / (ahead + 1e-7)), abs=1e-14)
        assert second == H[1]

    def test_an_inactive_unit_may_show_the_candidate_that_it_does_not_take(self) -> None:
        winner, loser = (hand_gru(k, sigmoid(hand_score(k))) for k in range(2))
        first, second = one_step(two_small_units(inactive_show="candidate"))
        assert first == pytest.approx(winner + HEAR[0] * hand_message(winner, loser), abs=1e-14)
        assert second == H[1]

    def test_a_bounded_message_passes_tanh(self) -> None:
        candidate = hand_gru(0, sigmoid(hand_score(0)))
        first, second = one_step(two_small_units(bounded=True))
        assert first == pytest.approx(candidate + tanh(HEAR[0] * hand_message(candidate, H[1])), abs=1e-14)
        assert second == H[1]

    def test_a_gated_message_is_sigmoid_of_the_gate_times_tanh_of_the_map(self) -> None:
        candidate = hand_gru(0, sigmoid(hand_score(0)))
        message = hand_message(candidate, H[1])
        first, second = one_step(two_small_units(gated_communication=True))
        gated = sigmoid(-0.8 * message + 0.2) * tanh(1.2 * message + 0.1)
        assert first == pytest.approx(candidate + gated, abs=1e-14)
        assert second == H[1]

    def test_scores_are_divided_by_the_root_of_the_key_size(self) -> None:
        candidate = hand_gru(0, sigmoid(4.0 * hand_score(0) / 2.0))
        message = hand_message(candidate, H[1], scale=9.0 / 3.0)
        first, second = one_step(two_small_units(key_size=4, message_key_size=9))
        assert first == pytest.approx(candidate + HEAR[0] * message, abs=1e-14)
        assert second == H[1]
