"""Bouncing balls: the laws of physics, what is drawn by chance, and the pictures."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.envs.bouncing_balls import (
    SCENES,
    Balls,
    Scene,
    Window,
    advance,
    hide,
    render,
    sample_balls,
    sample_curtains,
    scene,
    simulate,
    window,
)
from rims_rl.errors import ConfigError, UnknownNameError

CROWDED = Scene(counts=(7,), radii=(0.05, 0.14), speeds=(0.1, 0.9))


def drawn(of: Scene, worlds: int, seed: int = 3) -> Balls:
    return sample_balls(of, worlds, np.random.default_rng(seed))


def world(*balls: tuple[float, float, float, float, float, float]) -> Balls:
    """Return one world of balls given as x, y, velocity in x and y, radius, mass."""
    values = np.array([balls], dtype=np.float64)
    return Balls(values[..., :2], values[..., 2:4], values[..., 4], values[..., 5])


def energy(balls: Balls) -> np.ndarray:
    moving = np.isfinite(balls.masses)
    return 0.5 * (np.where(moving, balls.masses, 0.0) * (balls.velocities**2).sum(-1)).sum(-1)


def gaps(positions: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the distance between the edges of every pair of balls that exist; positions (W, N, 2)."""
    first, second = np.triu_indices(radii.shape[1], k=1)
    apart = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1) - radii[:, first] - radii[:, second]
    return apart[(radii[:, first] > 0) & (radii[:, second] > 0)]


class TestCollisions:
    def test_a_head_on_collision_of_unequal_masses_is_as_computed_by_hand(self):
        # Masses 1 and 3 at speeds 2 and -1 leave at ((1-3) 2 + 6 (-1)) / 4 = -2.5 and ((3-1) (-1) + 2 2) / 4 = 0.5.
        # Edges are 0.3 apart and close in at 3: they meet after 0.1, at 0.4 and 0.7.
        balls = world((0.2, 0.5, 2.0, 0.0, 0.1, 1.0), (0.8, 0.5, -1.0, 0.0, 0.2, 3.0))
        after = advance(balls, 0.12)
        np.testing.assert_allclose(after.velocities[0], [[-2.5, 0.0], [0.5, 0.0]], atol=1e-12)
        np.testing.assert_allclose(after.positions[0, :, 0], [0.4 - 2.5 * 0.02, 0.7 + 0.5 * 0.02], atol=1e-12)

    def test_equal_masses_exchange_what_they_have_along_the_line_of_centres(self):
        # The centres touch along (0.6, 0.8); the first ball's (1, 0) has 0.6 of speed along it, which goes over.
        balls = world((0.4, 0.4, 1.0, 0.0, 0.1, 2.0), (0.4 + 0.12, 0.4 + 0.16, 0.0, 0.0, 0.1, 2.0))
        after = advance(balls, 1e-3)
        np.testing.assert_allclose(after.velocities[0], [[0.64, -0.48], [0.36, 0.48]], atol=1e-12)

    def test_a_ball_that_nothing_moves_sends_others_back_at_their_own_speed(self):
        balls = world((0.5, 0.5, 0.0, 0.0, 0.1, np.inf), (0.2, 0.5, 1.0, 0.0, 0.1, 1.0))
        after = advance(balls, 0.2)
        np.testing.assert_allclose(after.positions[0], [[0.5, 0.5], [0.2, 0.5]], atol=1e-12)
        np.testing.assert_allclose(after.velocities[0], [[0.0, 0.0], [-1.0, 0.0]], atol=1e-12)

    def test_a_wall_turns_round_the_part_across_it_alone(self):
        after = advance(world((0.8, 0.5, 0.4, 0.25, 0.1, 1.0)), 0.5)
        np.testing.assert_allclose(after.positions[0, 0], [0.8, 0.625], atol=1e-12)
        np.testing.assert_allclose(after.velocities[0, 0], [-0.4, 0.25], atol=1e-12)

    def test_walls_stand_where_the_width_says(self):
        after = advance(world((1.8, 0.5, 0.4, 0.0, 0.1, 1.0)), 0.5, width=2.0)
        np.testing.assert_allclose(after.positions[0, 0], [1.8, 0.5], atol=1e-12)

    def test_a_ball_that_grazes_another_passes_on(self):
        balls = world((0.2, 0.3, 1.0, 0.0, 0.1, 1.0), (0.5, 0.5 + 1e-9, 0.0, 0.0, 0.1, 1.0))
        np.testing.assert_array_equal(advance(balls, 0.5).velocities, balls.velocities)

    def test_energy_and_momentum_survive_a_collision_between_balls(self):
        balls = world((0.3, 0.45, 0.7, 0.1, 0.11, 1.3), (0.62, 0.5, -0.4, 0.0, 0.13, 2.9))
        after = advance(balls, 0.2)
        assert not np.allclose(after.velocities, balls.velocities)
        momentum = (balls.masses[..., None] * balls.velocities).sum(1)
        np.testing.assert_allclose((after.masses[..., None] * after.velocities).sum(1), momentum, rtol=1e-12)
        np.testing.assert_allclose(energy(after), energy(balls), rtol=1e-12)


class TestLaws:
    @pytest.mark.parametrize("of", [CROWDED, SCENES["678"], SCENES["crops-6"]], ids=["crowded", "678", "crops-6"])
    def test_energy_stays_and_balls_stay_inside_and_apart(self, of):
        start = balls = drawn(of, 23)
        for _ in range(67):
            balls = advance(balls, 1.0)
            assert gaps(balls.positions, balls.radii).min() > -1e-9
            assert (balls.positions >= balls.radii[..., None]).all()
            assert (balls.positions <= 1 - balls.radii[..., None]).all()
        np.testing.assert_allclose(energy(balls), energy(start), rtol=1e-9)
        assert not np.allclose(balls.velocities, start.velocities)

    def test_momentum_changes_only_by_what_the_walls_turn_round(self):
        # Four balls of the middle fly apart: until a wall is reached their momentum is what it was.
        balls = drawn(Scene(counts=(5,), radii=(0.1, 0.13), speeds=(0.3, 0.6)), 41)
        momentum = (balls.masses[..., None] * balls.velocities).sum(1)
        for _ in range(200):
            balls = advance(balls, 0.001)
            reached = balls.radii[..., None] + 0.002
            free = ((balls.positions > reached) & (balls.positions < 1 - reached)).all((1, 2))
            after = (balls.masses[..., None] * balls.velocities).sum(1)
            np.testing.assert_allclose(after[free], momentum[free], atol=1e-12)
            momentum = after

    def test_nothing_is_too_fast_to_hit(self):
        # In one step of 1 the first ball would cross the box 40 times.
        balls = world((0.2, 0.5, 40.0, 0.0, 0.1, 1.0), (0.7, 0.5, 0.0, 0.0, 0.1, 1.0))
        after = advance(balls, 1.0)
        assert after.positions[0, 0, 0] < after.positions[0, 1, 0]
        np.testing.assert_allclose(energy(after), energy(balls), rtol=1e-12)

    def test_many_short_steps_lead_where_a_long_one_does(self):
        balls = drawn(SCENES["4"], 11)
        long, short = advance(balls, 6.0), balls
        for _ in range(24):
            short = advance(short, 0.25)
        np.testing.assert_allclose(short.positions, long.positions, atol=1e-8)

    def test_time_run_backwards_leads_to_the_start(self):
        balls = drawn(SCENES["4"], 11)
        after = advance(balls, 13.0)
        back = advance(after._replace(velocities=-after.velocities), 13.0)
        np.testing.assert_allclose(back.positions, balls.positions, atol=1e-7)

    def test_a_world_moves_the_same_alone_and_among_others(self):
        balls = drawn(SCENES["678"], 7)
        alone = Balls(*(part[5:6] for part in balls))
        np.testing.assert_array_equal(advance(alone, 9.0).positions[0], advance(balls, 9.0).positions[5])

    def test_no_time_changes_nothing(self):
        balls = drawn(SCENES["4"], 3)
        np.testing.assert_array_equal(advance(balls, 0.0).positions, balls.positions)

    def test_time_cannot_be_negative(self):
        with pytest.raises(ConfigError, match="time must be at least 0 and finite, got -1"):
            advance(drawn(SCENES["4"], 3), -1.0)

    def test_paths_begin_at_the_start_and_go_on_frame_by_frame(self):
        balls = drawn(SCENES["4"], 3)
        paths = simulate(balls, 5)
        assert paths.shape == (3, 5, 4, 2)
        np.testing.assert_array_equal(paths[:, 0], balls.positions)
        np.testing.assert_array_equal(paths[:, 1], advance(balls, 1.0).positions)


class TestChance:
    @pytest.mark.parametrize("name", SCENES)
    def test_no_two_balls_overlap_at_the_start_and_all_are_inside(self, name):
        balls = drawn(scene(name), 97)
        edge = balls.radii[..., None]
        assert gaps(balls.positions, balls.radii).min(initial=1.0) > 0
        assert ((balls.positions >= edge) & (balls.positions <= 1 - edge)).all()

    def test_the_same_seed_gives_the_same_worlds_and_another_seed_others(self):
        one, same, other = (drawn(SCENES["678"], 5, seed) for seed in (1, 1, 2))
        for mine, theirs in zip(one, same, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert not np.array_equal(one.positions, other.positions)

    def test_numbers_of_balls_are_those_of_the_scene(self):
        counts = (drawn(SCENES["678"], 61).radii > 0).sum(1)
        assert set(counts) == {6, 7, 8}
        assert set((drawn(SCENES["crops-1"], 5).radii > 0).sum(1)) == {2}

    def test_masses_grow_with_the_area_and_are_one_at_the_mean_radius(self):
        balls = drawn(Scene(radii=(0.05, 0.11)), 5)
        np.testing.assert_allclose(balls.masses, (balls.radii / 0.08) ** 2)
        assert balls.masses.std() > 0.1

    def test_speeds_are_those_of_the_scene(self):
        speeds = np.linalg.norm(drawn(Scene(speeds=(0.02, 0.05)), 101).velocities, axis=-1)
        assert speeds.min() >= 0.02
        assert speeds.max() <= 0.05
        assert speeds.max() - speeds.min() > 0.02

    def test_the_fixed_ball_sits_in_the_middle_and_never_moves(self):
        balls = drawn(SCENES["crops-6"], 13)
        paths = simulate(balls, 29)
        assert np.isinf(balls.masses[:, 0]).all()
        np.testing.assert_array_equal(paths[:, :, 0], np.full((13, 29, 2), 0.5))

    def test_balls_that_do_not_fit_are_refused_in_one_line(self):
        with pytest.raises(ConfigError, match=r"30 balls of radius 0\.2 to 0\.2 do not fit into the box"):
            drawn(Scene(counts=(30,), radii=(0.2, 0.2)), 2)

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"counts": (0,)}, "counts must be numbers of balls of at least 1"),
            ({"radii": (0.2, 0.1)}, "radii must be positive, the smaller first"),
            ({"speeds": (0.0, 0.1)}, "speeds must be positive, the smaller first"),
            ({"radii": (0.1, 0.5)}, "a ball of radius 0.5 does not fit into a box of 1.0 x 1"),
            ({"curtain": 1.5}, "curtain must be from 0 to 1.0, got 1.5"),
            ({"view": 0.0}, "view must be above 0 and at most 1, got 0.0"),
        ],
    )
    def test_settings_that_cannot_work_are_refused_in_one_line(self, settings, said):
        with pytest.raises(ConfigError, match=said):
            Scene(**settings)

    def test_an_unknown_scene_is_refused_with_the_nearest_names(self):
        with pytest.raises(UnknownNameError, match="did you mean 'curtain'"):
            scene("curtains")


class TestPictures:
    def test_the_centre_of_brightness_is_the_ball(self):
        centres = np.random.default_rng(0).uniform(0.2, 0.8, (31, 1, 2))
        pictures = render(centres, np.full((31, 1), 0.11), Window(0.0, 0.0, 64.0, 64, 64))
        weights = pictures / pictures.sum((1, 2), keepdims=True)
        places = (np.arange(64) + 0.5) / 64
        found = np.stack([weights.sum(1) @ places, weights.sum(2) @ places], axis=-1)
        np.testing.assert_allclose(found, centres[:, 0], atol=0.02 / 64)

    def test_the_brightness_is_the_area(self):
        radii = np.array([[0.05], [0.08], [0.13]])
        pictures = render(np.full((3, 1, 2), 0.47), radii, Window(0.0, 0.0, 64.0, 64, 64))
        np.testing.assert_allclose(pictures.sum((1, 2)) / 64**2, np.pi * radii[:, 0] ** 2, rtol=0.02)

    def test_x_is_to_the_right_and_y_is_down(self):
        picture = render(np.array([[[0.75, 0.25]]]), np.array([[0.1]]), Window(0.0, 0.0, 40.0, 40, 40))[0]
        assert picture[10, 30] == 1
        assert picture[30, 10] == 0

    def test_all_values_lie_between_black_and_white_and_a_missing_ball_is_not_seen(self):
        balls = drawn(SCENES["678"], 17)
        pictures = render(balls.positions, balls.radii, window(SCENES["678"], 37))
        assert pictures.min() == 0
        assert pictures.max() == 1
        nothing = render(balls.positions, np.zeros_like(balls.radii), window(SCENES["678"], 37))
        assert nothing.max() == 0

    def test_a_picture_is_as_large_as_asked_and_as_wide_as_the_box(self):
        of = Scene(width=160 / 210)
        balls = drawn(of, 2)
        assert render(balls.positions, balls.radii, window(of, 210)).shape == (2, 210, 160)

    def test_a_crop_is_the_middle_of_the_whole_picture(self):
        balls = simulate(drawn(SCENES["crops"], 5), 19).reshape(95, 4, 2)
        radii = np.full((95, 4), 0.1)
        whole = render(balls, radii, Window(0.0, 0.0, 64.0, 64, 64))
        crop = render(balls, radii, window(SCENES["crops"], 48))
        np.testing.assert_allclose(crop, whole[:, 8:56, 8:56], atol=1e-5)
        assert whole[:, 8:56, 8:56].sum() < whole.sum()

    def test_a_curtain_blackens_its_pixels_and_no_others(self):
        pictures = np.ones((2, 20, 20), np.float32)
        shown = hide(pictures, np.array([[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.1, 0.2]]), Window(0, 0, 20, 20, 20))
        assert (shown[0, 10:, 5:15] == 0).all()
        assert shown[0].sum() == 400 - 100
        assert (shown[1, :4, :2] == 0).all()
        assert shown[1].sum() == 400 - 8

    def test_nothing_of_what_is_behind_a_curtain_shows(self):
        # Balls wholly behind the curtain may be anywhere there, or not exist: the picture is the same.
        curtain = np.array([[0.3, 0.3, 0.7, 0.7]])
        on = Window(0.0, 0.0, 64.0, 64, 64)
        outside = [0.15, 0.8]
        pictures = [
            hide(render(np.array([[outside, hidden]]), np.array([[0.1, radius]]), on), curtain, on)
            for hidden, radius in (([0.45, 0.45], 0.1), ([0.55, 0.5], 0.1), ([0.5, 0.5], 0.0))
        ]
        np.testing.assert_array_equal(pictures[0], pictures[1])
        np.testing.assert_array_equal(pictures[0], pictures[2])

    def test_curtains_lie_in_the_box_and_differ_from_world_to_world(self):
        curtains = sample_curtains(SCENES["curtain"], 43, np.random.default_rng(0))
        assert curtains.min() >= 0
        assert curtains.max() <= 1
        np.testing.assert_allclose(curtains[:, 2:] - curtains[:, :2], 0.4)
        assert curtains[:, 0].std() > 0.1
