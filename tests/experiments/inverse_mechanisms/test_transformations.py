"""The ten transformations against hand-written examples, and the letters that are drawn for the test."""

import numpy as np
import pytest
import torch

from rims_rl.experiments.inverse_mechanisms.transformations import (
    LETTERS,
    NOISE_VARIANCE,
    TRANSFORMATIONS,
    draw_letters,
    inverted,
    noisy,
    padded,
    shifted,
    transformed,
)

_DIRECTIONS = {
    "up": (-4, 0), "up-right": (-4, 4), "right": (0, 4), "down-right": (4, 4),
    "down": (4, 0), "down-left": (4, -4), "left": (0, -4), "up-left": (-4, -4),
}  # fmt: skip


class TestShifts:
    @pytest.mark.parametrize("name", _DIRECTIONS)
    def test_a_pixel_moves_by_four_and_nothing_else_appears(self, name):
        image = torch.zeros(1, 1, 11, 13)
        image[0, 0, 5, 6] = 0.7
        down, right = _DIRECTIONS[name]
        expected = torch.zeros(1, 1, 11, 13)
        expected[0, 0, 5 + down, 6 + right] = 0.7
        assert torch.equal(TRANSFORMATIONS[name](image), expected)

    def test_rows_and_columns_move_as_written_by_hand(self):
        image = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        assert shifted(image, 1, 0).tolist() == [[0, 0, 0], [1, 2, 3]]
        assert shifted(image, 0, -2).tolist() == [[3, 0, 0], [6, 0, 0]]
        assert shifted(image, -1, 1).tolist() == [[0, 4, 5], [0, 0, 0]]

    def test_what_leaves_the_image_does_not_come_back_on_the_other_side(self):
        assert shifted(torch.ones(5, 7), -4, -4).sum() == 3

    def test_the_given_image_stays_as_it_is(self):
        image = torch.rand(2, 1, 9, 9)
        before = image.clone()
        for change in TRANSFORMATIONS.values():
            change(image)
        assert torch.equal(image, before)


class TestInversion:
    def test_black_becomes_white_and_grey_its_opposite(self):
        assert inverted(torch.tensor([0.0, 0.25, 1.0])).tolist() == [1.0, 0.75, 0.0]


class TestNoise:
    def test_grey_values_stay_between_black_and_white(self):
        torch.manual_seed(3)
        changed = noisy(torch.rand(1, 1, 97, 97))
        assert changed.min() == 0
        assert changed.max() == 1

    def test_its_variance_is_a_quarter_before_clamping(self):
        torch.manual_seed(3)
        changed = noisy(torch.full((499, 499), 0.5))
        inside = ((changed > 0) & (changed < 1)).double().mean()  # within one standard deviation of 0.5: 68.27 %
        assert NOISE_VARIANCE == 0.25
        assert float(inside) == pytest.approx(0.6827, abs=0.004)

    def test_the_same_seed_gives_the_same_noise_and_another_seed_another(self):
        changed = []
        for seed in (5, 5, 6):
            torch.manual_seed(seed)
            changed.append(noisy(torch.zeros(7, 7)))
        assert torch.equal(changed[0], changed[1])
        assert not torch.equal(changed[0], changed[2])


class TestTheTen:
    def test_there_are_eight_shifts_inversion_and_noise(self):
        assert list(TRANSFORMATIONS) == [*_DIRECTIONS, "inversion", "noise"]

    def test_each_image_goes_through_its_own(self):
        images = torch.rand(3, 1, 9, 9)
        names = ("inversion", "left", "down")
        changed = transformed(images, torch.tensor([1, 0, 1]), names)
        assert torch.equal(changed[0], shifted(images[0], 0, -4))
        assert torch.equal(changed[1], 1 - images[1])
        assert torch.equal(changed[2], shifted(images[2], 0, -4))


class TestPadding:
    def test_two_black_pixels_are_added_on_each_side_and_bytes_become_grey_values(self):
        digits = np.full((2, 28, 28), 51, np.uint8)
        image = padded(digits)
        assert image.shape == (2, 1, 32, 32)
        assert torch.allclose(image[:, :, 2:30, 2:30], torch.tensor(0.2))
        assert float(image.double().sum()) == pytest.approx(2 * 28 * 28 * 0.2, rel=1e-6)


class TestLetters:
    def test_they_lie_in_mnists_box_with_their_mass_in_the_middle(self):
        place = np.arange(28)
        for letter in draw_letters(101, np.random.default_rng(0)).astype(float):
            rows, columns = letter.sum(axis=1), letter.sum(axis=0)
            assert np.flatnonzero(rows).size <= 21  # a box of 20 that need not begin at a whole pixel
            assert np.flatnonzero(columns).size <= 21
            assert abs((rows * place).sum() / rows.sum() - 13.5) <= 0.51
            assert abs((columns * place).sum() / columns.sum() - 13.5) <= 0.51

    def test_they_are_light_on_dark_with_about_as_much_ink_as_digits_have(self):
        letters = draw_letters(101, np.random.default_rng(0))
        assert letters.max() == 255
        assert 25 < letters.mean() < 50  # MNIST's test digits: 33.8

    def test_the_same_seed_draws_the_same_letters_and_no_letter_twice(self):
        first, again = (draw_letters(31, np.random.default_rng(2)) for _ in range(2))
        assert np.array_equal(first, again)
        assert len(np.unique(first.reshape(31, -1), axis=0)) == 31

    def test_letters_that_look_like_digits_are_left_out(self):
        assert not set(LETTERS) & set("0123456789OIZSGQJ")
