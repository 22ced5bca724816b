"""Encoders: shapes, bytes and floats alike, places, and the RIM as a stateless extractor over stacked frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from torch import Tensor, nn
from torch.testing import assert_close

from rims_rl.agents import NatureEncoder, NatureSlots, RIMExtractor
from rims_rl.agents.extractors import check_image, encoder_class
from rims_rl.errors import ConfigError, UnknownNameError
from tests.agents.small_worlds import SMALL_IMAGE, SMALL_RIM, Sum

BATCH = 5
ATARI = spaces.Box(0, 255, (4, 84, 84), np.uint8)


def some_bytes(space: spaces.Box = SMALL_IMAGE) -> Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (BATCH, *space.shape), dtype=torch.uint8)


class TestNatureEncoder:
    def test_is_the_network_of_the_nature_dqn(self) -> None:
        mine, theirs = NatureEncoder(ATARI), NatureCNN(ATARI)
        with torch.no_grad():
            for own, other in zip(mine.parameters(), theirs.parameters(), strict=True):
                own.copy_(other)
        frames = some_bytes(ATARI)
        assert_close(mine(frames), theirs(frames.float() / 255), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kind", [NatureEncoder, NatureSlots])
    def test_makes_the_same_of_bytes_and_of_floats_from_0_to_1(self, kind: Any) -> None:
        encoder, frames = kind(SMALL_IMAGE), some_bytes()
        assert_close(encoder(frames), encoder(frames.float() / 255), rtol=1e-4, atol=1e-5)
        assert_close(encoder(frames), encoder(frames.double() / 255), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kind", [NatureEncoder, NatureSlots])
    def test_trains_the_same_on_bytes_and_on_floats(self, kind: Any) -> None:
        encoder, frames = kind(SMALL_IMAGE), some_bytes()
        gradients = []
        for images in (frames, frames.float() / 255):
            encoder.zero_grad()
            encoder(images).square().sum().backward()
            gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
        for one, other in zip(*gradients, strict=True):
            assert one.any()
            assert_close(one, other, rtol=1e-3, atol=1e-4)

    def test_gives_a_vector_of_the_asked_size(self) -> None:
        encoder = NatureEncoder(SMALL_IMAGE, features_dim=13)
        assert encoder(some_bytes()).shape == (BATCH, 13)
        assert (encoder.features_dim, encoder.slots) == (13, 1)


class TestNatureSlots:
    def test_of_an_atari_frame_are_49_places(self) -> None:
        encoder = NatureSlots(ATARI)
        assert (encoder.slots, encoder.map_size, encoder.features_dim) == (49, (7, 7), 64)
        assert encoder(some_bytes(ATARI)).shape == (BATCH, 49, 64)

    def test_are_of_the_asked_size(self) -> None:
        encoder = NatureSlots(SMALL_IMAGE, features_dim=13)
        assert encoder.map_size == (3, 2)
        assert encoder(some_bytes()).shape == (BATCH, 6, 13)

    def test_of_the_smallest_image_are_one_vector(self) -> None:
        space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
        encoder = NatureSlots(space)
        assert encoder.slots == 1
        assert encoder(some_bytes(space)).shape == (BATCH, 64)

    def test_run_through_the_map_row_by_row(self) -> None:
        encoder = NatureSlots(SMALL_IMAGE)
        nn.init.zeros_(encoder.position.weight)
        nn.init.zeros_(encoder.position.bias)
        maps = encoder.convolutions(some_bytes())  # (B, 64, 3, 2)
        assert_close(encoder(some_bytes())[:, 3], maps[:, :, 1, 1])

    def test_differ_by_their_place_even_in_a_blank_image(self) -> None:
        slots = NatureSlots(ATARI)(torch.zeros(1, 4, 84, 84))[0]
        distances = torch.cdist(slots, slots) + torch.eye(49)
        assert distances.min() > 1e-3

    def test_know_their_distances_from_the_four_sides(self) -> None:
        places = NatureSlots(SMALL_IMAGE).places
        assert places[0].tolist() == [0, 0, 1, 1]
        assert places[3].tolist() == [0.5, 1, 0.5, 0]
        assert places[5].tolist() == [1, 1, 0, 0]

    def test_see_a_change_only_where_it_is(self) -> None:
        encoder, frames = NatureSlots(ATARI), torch.zeros(2, 4, 84, 84)
        frames[1, :, :8, :8] = 1.0  # the last map's corner, by its receptive field of 36 pixels in steps of 8
        moved = (encoder(frames)[0] - encoder(frames)[1]).abs().amax(dim=1).view(7, 7) > 0
        assert moved[0, 0]
        assert not moved[1:].any()
        assert not moved[:, 1:].any()


class TestNames:
    def test_unknown_ones_come_with_the_nearest(self) -> None:
        with pytest.raises(UnknownNameError, match=r"'nature-slot'.*'nature-slots'"):
            encoder_class("nature-slot")

    def test_a_class_of_the_users_own_is_taken_as_it_is(self) -> None:
        assert encoder_class(NatureCNN) is NatureCNN

    @pytest.mark.parametrize("wrong", [nn.Linear, NatureEncoder(SMALL_IMAGE), 3])
    def test_anything_else_is_refused(self, wrong: Any) -> None:
        with pytest.raises(ConfigError, match="subclass of BaseFeaturesExtractor"):
            encoder_class(wrong)


class TestCheckImage:
    def test_passes_frames_and_gives_their_shape(self) -> None:
        assert check_image(SMALL_IMAGE) == (2, 52, 44)

    @pytest.mark.parametrize("shape", [(4, 35, 84), (4, 84, 35), (84, 84, 3)])
    def test_names_sizes_that_do_not_fit(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ConfigError, match="channel-first and at least 36 x 36") as caught:
            check_image(spaces.Box(0, 255, shape, np.uint8))
        assert str(shape) in str(caught.value)


def stack_of(shape: tuple[int, ...], **settings: Any) -> RIMExtractor:
    """Return an extractor whose core adds up what the frames are."""
    return RIMExtractor(spaces.Box(-9, 9, shape), core=Sum, encoder="flatten", **settings)


class Latest(Sum):
    """A memory that doubles at every step, so that its output tells which input came when."""

    def forward(self, inputs: Tensor, state: Tensor, episode_starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        for step in inputs:
            state = 2 * state + step
        return state.unsqueeze(0), state


class TestRIMExtractor:
    @pytest.mark.parametrize(
        ("shape", "n_stack", "steps", "size"),
        [
            ((4, 84, 84), None, 4, (1, 84, 84)),
            ((12, 84, 84), 4, 4, (3, 84, 84)),
            ((5, 3), None, 5, (3,)),
            ((6, 3), 2, 2, (3, 3)),
            ((12,), 4, 4, (3,)),
            ((12,), None, 1, (12,)),
        ],
        ids=str,
    )
    def test_cuts_a_stack_into_frames(
        self, shape: tuple[int, ...], n_stack: int | None, steps: int, size: tuple[int, ...]
    ) -> None:
        space = spaces.Box(0, 255, shape, np.uint8) if len(shape) == 3 else spaces.Box(-np.inf, np.inf, shape)
        extractor = RIMExtractor(space, core_kwargs=SMALL_RIM, n_stack=n_stack)
        assert (extractor.n_stack, extractor.frame_shape, extractor.features_dim) == (steps, size, 35)
        assert extractor(torch.rand(BATCH, *shape)).shape == (BATCH, 35)

    @pytest.mark.parametrize(("shape", "n_stack"), [((4, 1), None), ((4,), 4), ((4, 1), 4)])
    def test_reads_the_oldest_frame_first(self, shape: tuple[int, ...], n_stack: int | None) -> None:
        extractor = RIMExtractor(spaces.Box(-9, 9, shape), core=Latest, encoder="flatten", n_stack=n_stack)
        frames = torch.tensor([[1.0, 2.0, 3.0, 5.0], [5.0, 3.0, 2.0, 1.0]]).view(2, *shape)
        assert extractor(frames).flatten().tolist() == [8 + 8 + 6 + 5, 40 + 12 + 4 + 1]

    def test_reads_every_image_of_a_stack_alone_and_in_order(self) -> None:
        space = spaces.Box(0, 255, (6, 52, 44), np.uint8)
        extractor = RIMExtractor(space, core=Latest, encoder_kwargs={"features_dim": 7}, n_stack=3)
        images = some_bytes(space).float() / 255
        frames = images.view(BATCH, 3, 2, 52, 44)
        oldest, middle, newest = (extractor.encoder(frames[:, step]) for step in range(3))
        assert_close(extractor(images), 4 * oldest + 2 * middle + newest)

    def test_of_a_rim_depends_on_the_order_of_the_frames(self) -> None:
        torch.manual_seed(0)
        extractor = RIMExtractor(spaces.Box(-9, 9, (4, 3)), core_kwargs=SMALL_RIM)
        frames = torch.randn(BATCH, 4, 3)
        assert ((extractor(frames) - extractor(frames.flip(1))).abs().amax(dim=1) > 1e-4).all()

    def test_remembers_nothing_from_call_to_call(self) -> None:
        extractor = RIMExtractor(spaces.Box(-9, 9, (4, 3)), core_kwargs=SMALL_RIM)
        frames = torch.randn(BATCH, 4, 3)
        assert torch.equal(extractor(frames), extractor(frames))

    def test_starts_from_the_cores_initial_state(self) -> None:
        assert stack_of((2, 1), core_kwargs={"initial": 100.0})(torch.ones(1, 2, 1)).item() == 102

    def test_lets_units_attend_to_places(self) -> None:
        extractor = RIMExtractor(SMALL_IMAGE, core_kwargs=SMALL_RIM, encoder="nature-slots")
        assert extractor.encoder.slots == 6
        extractor(some_bytes().float() / 255).sum().backward()
        for name, parameter in extractor.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name

    @pytest.mark.parametrize(
        ("space", "settings", "says"),
        [
            (spaces.Box(-1, 1, (7,)), {"n_stack": 3}, r"\(7,\).*n_stack=3"),
            (spaces.Box(0, 255, (4, 84, 84), np.uint8), {"n_stack": 3}, r"\(4, 84, 84\).*n_stack=3"),
            (spaces.Box(-1, 1, (6,)), {"n_stack": 0}, "n_stack must be at least 1, got 0"),
            (spaces.Box(-1, 1, ()), {}, r"\(\)"),
            (spaces.Discrete(3), {}, "Box observations, got Discrete"),
            (spaces.Box(0, 255, (4, 35, 84), np.uint8), {}, "at least 36 x 36"),
            (SMALL_IMAGE, {"core": "lstm", "encoder": "nature-slots"}, "LSTM takes one vector.*6 slots"),
            (SMALL_IMAGE, {"encoder_kwargs": {"dim": 3}}, "'dim'.*features_dim"),
            (SMALL_IMAGE, {"core": "rims"}, "'rims'.*'rim'"),
        ],
        ids=str,
    )
    def test_says_in_one_line_what_does_not_fit(
        self, space: spaces.Space[Any], settings: dict[str, Any], says: str
    ) -> None:
        with pytest.raises(ConfigError, match=says) as caught:
            RIMExtractor(space, **settings)
        assert "\n" not in str(caught.value)
