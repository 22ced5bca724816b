"""What each variation does to the real game, in its RAM or in its pixels, against the game without it."""

from __future__ import annotations

import numpy as np
import pytest

from rims_rl.envs.variants import VariantAtariEnv, list_variants

_FIRE = 1


class Film:
    """RAM (T, 128), lives (T,) and raw screens (T, H, W, 3) of a game frame by frame; actions are a function of RAM."""

    def __init__(self, game, variant, n_frames, choose=lambda ram, frame: 0, screens=False, skip=0):
        env = VariantAtariEnv(game, training=False, noop_max=1, variant=variant)
        env.reset(seed=5)
        rams, pictures, lives = [], [], []
        for frame in range(skip + n_frames):
            env._act(env._actions[choose(env._ale.getRAM(), frame)])
            if frame >= skip:
                rams.append(env._ale.getRAM().astype(int))
                lives.append(env._ale.lives())
                if screens:
                    pictures.append(env.render())
        self.ram, self.lives = np.stack(rams), np.array(lives)
        self.first_frame = env._console.frame - n_frames  # by the variant's own count, which includes the reset's FIRE
        self.screens = np.stack(pictures) if screens else None


def _rally(ram, frame):
    """Pong: follow the ball."""
    if not ram[54]:
        return 0
    return 2 if int(ram[51]) + 8 > ram[54] else 3


def _catch(ram, frame):
    """Breakout: serve and follow the ball, so that it keeps flying."""
    if not ram[101]:
        return _FIRE
    aim = int(ram[99]) - 8
    return 2 if ram[72] < aim - 1 else 3 if ram[72] > aim + 1 else 0


class TestPong:
    def test_the_lazy_enemy_stands_still_while_the_ball_flies_to_the_player(self):
        plain, lazy = (Film("pong", variant, 900, _rally) for variant in ("", "lazy_enemy"))
        for film, moves in ((plain, True), (lazy, False)):
            flies_away = (film.ram[:, 54] > 0) & (film.ram[:, 58] == 255)
            assert flies_away.sum() > 50
            steps = np.diff(film.ram[:, 21])[flies_away[1:] & flies_away[:-1]]
            assert steps.any() == moves
        assert np.diff(lazy.ram[:, 21]).any()

    def test_the_hidden_enemy_is_unseen_and_plays_on(self):
        plain, hidden = (Film("pong", name, 5, _rally, screens=True, skip=150) for name in ("", "hidden_enemy"))
        np.testing.assert_array_equal(hidden.ram, plain.ram)
        changed = (hidden.screens != plain.screens).any(-1)
        _, _, columns = np.nonzero(changed)
        assert set(columns) == {16, 17, 18, 19}
        assert (plain.screens[changed] == (213, 130, 74)).all()
        assert (hidden.screens[changed] == (144, 72, 17)).all()
        assert len(columns) == 5 * 4 * 16

    @pytest.mark.parametrize(("direction", "address", "step"), [("up", 54, -1), ("down", 54, 1)])
    def test_the_ball_drifts_up_and_down(self, direction, address, step):
        self._drifts(direction, address, step, level=5, period=3)

    @pytest.mark.parametrize(("direction", "address", "step"), [("left", 49, -1), ("right", 49, 1)])
    def test_the_ball_drifts_left_and_right(self, direction, address, step):
        self._drifts(direction, address, step, level=1, period=10)

    @staticmethod
    def _drifts(direction, address, step, level, period):
        plain, drifting = (Film("pong", name, 70) for name in ("", f"{direction}_drift:{level}"))
        served = int(np.argmax(plain.ram[:, 54] > 0))
        frames = np.arange(served, 70)
        pushes = np.cumsum((frames + drifting.first_frame) % period == 0) * step
        assert np.abs(pushes).max() >= 1
        np.testing.assert_array_equal(drifting.ram[frames, address] - plain.ram[frames, address], pushes)


class TestBreakout:
    @pytest.mark.parametrize(
        ("variant", "address", "step"),
        [("right_drift:3", 99, 3), ("left_drift:3", 99, -3), ("gravity:4", 101, 4), ("inverse_gravity:4", 101, -4)],
    )
    def test_the_ball_is_pushed_every_ten_frames_and_no_wall_is_crossed(self, variant, address, step):
        plain, pushed = (Film("breakout", name, 700, _catch) for name in ("", variant))
        frames = np.arange(25)  # before the first bounce
        pushes = 1 + (frames + pushed.first_frame) // 10
        np.testing.assert_array_equal(pushed.ram[frames, address] - plain.ram[frames, address], pushes * step)
        flying = pushed.ram[:, 101] > 0
        assert 50 < pushed.ram[flying, 99].min() < pushed.ram[flying, 99].max() < 210

    @pytest.mark.parametrize(
        ("name", "colour"),
        [
            ("black", (0, 0, 0)),
            ("white", (214, 214, 214)),
            ("red", (144, 28, 0)),
            ("blue", (20, 0, 144)),
            ("green", (92, 186, 92)),
        ],
    )
    def test_bricks_and_paddle_take_the_named_colour(self, name, colour):
        film = Film("breakout", f"color_all_blocks_{name}+color_player_and_ball_{name}", 5, screens=True)
        bricks, paddle = film.screens[-1][57:93, 8:152], film.screens[-1][190, 99:113]
        assert (bricks == colour).all()
        assert (paddle == colour).all(-1).any()

    def test_colours_change_nothing_else(self):
        plain, coloured = (Film("breakout", name, 300, _catch) for name in ("", "color_all_blocks_blue"))
        others = [address for address in range(128) if address not in range(64, 70)]
        np.testing.assert_array_equal(coloured.ram[:, others], plain.ram[:, others])


class TestFreeway:
    @pytest.mark.parametrize(
        ("variant", "lower", "upper"), [("stop_all_cars", 15, 150), ("stop_all_cars_tunnel", 35, 55)]
    )
    def test_all_cars_stand_at_their_places(self, variant, lower, upper):
        plain, stopped = (Film("freeway", name, 100, screens=True, skip=3) for name in ("", variant))
        assert (np.ptp(plain.ram[:, 108:118], axis=0) > 0).all()
        assert (stopped.ram[:, 108:113] == lower).all()
        assert (stopped.ram[:, 113:118] == upper).all()
        road = stopped.screens[:, 27:182, 60:]
        assert (road == road[0]).all()

    def test_now_and_then_one_car_stands_for_a_second_and_drives_on(self):
        plain, stopping = (Film("freeway", name, 1500) for name in ("", "stop_random_car"))
        for film, stands in ((plain, False), (stopping, True)):
            rests = [self._longest_rest(film.ram[:, 108 + car]) for car in range(10)]
            assert (max(rests) >= 60) == stands
        assert (np.ptp(stopping.ram[-200:, 108:118], axis=0) > 0).all()
        standing = (stopping.ram[:, 33:43] > 8).sum(1)
        assert 0.3 < (standing > 0).mean() < 0.95

    @staticmethod
    def _longest_rest(positions):
        moves = np.flatnonzero(np.diff(positions))
        return int(np.diff(moves).max())

    @pytest.mark.parametrize(
        ("name", "colour"),
        [
            ("all_black_cars", (0, 0, 0)),
            ("all_white_cars", (236, 236, 236)),
            ("all_red_cars", (167, 26, 26)),
            ("all_green_cars", (53, 95, 24)),
            ("all_blue_cars", (0, 28, 136)),
            ("invisible_mode", (142, 142, 142)),
        ],
    )
    def test_all_cars_take_the_named_colour_and_drive_as_before(self, name, colour):
        plain, coloured = (Film("freeway", variant, 30, screens=True, skip=60) for variant in ("", name))
        np.testing.assert_array_equal(coloured.ram[:, 108:118], plain.ram[:, 108:118])
        changed = (coloured.screens != plain.screens).any(-1)
        assert changed[:, 27:182].sum() > 30 * 200
        assert (coloured.screens[changed] == colour).all()

    @pytest.mark.parametrize(("name", "period"), [("strobo_mode", 1), ("blinking_mode", 30)])
    def test_random_colours_change_in_their_rhythm(self, name, period):
        film = Film("freeway", name, 121)
        changes = np.flatnonzero((np.diff(film.ram[:, 77:87], axis=0) != 0).any(1)) + 1
        np.testing.assert_array_equal(changes, np.arange(period, 121, period))


class TestSpaceInvaders:
    _SHIELD = (181, 83, 40)
    _COLUMNS = {"left": (42, 50), "middle": (74, 82), "right": (106, 114)}  # noqa: RUF012 - a test's constant

    def _shield_columns(self, variant):
        film = Film("space_invaders", variant, 3, screens=True, skip=20)
        return set(np.flatnonzero((film.screens[-1][155:178] == self._SHIELD).all(-1).any(0)))

    @pytest.mark.parametrize("gone", [("left",), ("middle",), ("right",), ("left", "middle", "right")])
    def test_only_the_named_shields_vanish(self, gone):
        variant = "disable_shields" if len(gone) == 3 else f"disable_shield_{gone[0]}"
        left = {name: columns for name, columns in self._COLUMNS.items() if name not in gone}
        expected = {column for low, high in left.values() for column in range(low, high)}
        assert self._shield_columns(variant) == expected

    @pytest.mark.parametrize(
        ("variant", "shift"),
        [
            ("relocate_shields_slight_left", -8),
            ("relocate_shields_off_by_one", 1),
            ("relocate_shields_off_by_three", 3),
            ("relocate_shields_right", 10),
        ],
    )
    def test_the_shields_stand_elsewhere(self, variant, shift):
        assert self._shield_columns(variant) == {column + shift for column in self._shield_columns("")}
        effect = list_variants("space_invaders").variations[variant].effect
        assert effect == f"The shields stand {abs(shift)} pixels further {'right' if shift > 0 else 'left'}."

    @pytest.mark.parametrize(("strength", "curvature"), [("weak", 0.002), ("medium", 0.004), ("strong", 0.008)])
    def test_shots_bend_outwards_along_a_parabola(self, strength, curvature):
        film = Film("space_invaders", f"curved_shots_{strength}", 140, lambda ram, frame: _FIRE, skip=100)
        straight = Film("space_invaders", "", 140, lambda ram, frame: _FIRE, skip=100)
        start = int(np.flatnonzero((straight.ram[1:, 85] != 246) & (straight.ram[:-1, 85] == 246))[0]) + 1
        end = start + int(np.argmax((film.ram[start:, 85] == 246) | (straight.ram[start:, 85] == 246)))
        height = film.ram[start, 85] - film.ram[start:end, 85]
        assert height.max() > 20
        expected = np.maximum(film.ram[start, 87] - np.round(curvature * height**2).astype(int), 35)
        np.testing.assert_array_equal(film.ram[start:end, 87], expected)
        assert len(set(straight.ram[start:end, 87])) == 1

    def test_a_steered_shot_stays_above_the_player(self):
        film = Film("space_invaders", "controlable_missile", 90, lambda ram, frame: 4 if frame % 9 else 0, skip=100)
        in_flight = film.ram[:, 85] != 246
        assert np.ptp(film.ram[in_flight, 28]) > 20
        np.testing.assert_array_equal(film.ram[in_flight, 87], film.ram[in_flight, 28])


class TestSeaquest:
    _DOWN = 5

    def _dive(self, ram, frame):
        return self._DOWN if frame < 200 else 0

    def test_the_tank_stays_full_under_water(self):
        plain, full = (
            Film("seaquest", f"disable_enemies{name}", 600, self._dive, skip=300) for name in ("", "+unlimited_oxygen")
        )
        assert plain.ram[:, 102].min() < 50
        assert (full.ram[full.ram[:, 97] > 13][:, 102] == 64).all()
        assert (full.ram[:, 97] > 13).mean() > 0.5

    def test_the_submarine_sinks_a_pixel_every_five_frames_to_the_ground(self):
        plain, heavy = (
            Film("seaquest", f"disable_enemies+unlimited_oxygen{name}", 700, lambda ram, frame: 5 if frame < 130 else 0)
            for name in ("", "+gravity")
        )
        assert np.ptp(plain.ram[140:, 97]) == 0
        sinking = heavy.ram[140:, 97]
        assert (np.diff(sinking[::5])[:8] == 1).all()
        assert sinking[-1] == 105

    def test_there_are_no_enemies_and_nobody_dies_of_them(self):
        plain, alone = (
            Film("seaquest", name, 2400, self._dive)
            for name in ("unlimited_oxygen", "unlimited_oxygen+disable_enemies")
        )
        assert plain.lives[-1] < 4
        assert (alone.lives == 4).all()
        assert plain.ram[:, 36:40].any()
        assert not alone.ram[:, [36, 37, 38, 39, 60]].any()

    def test_enemies_change_their_colour_out_of_sight(self):
        film = Film("seaquest", "random_color_enemies", 1500, self._dive, skip=10)
        for lane in range(4):
            changes = np.flatnonzero(np.diff(film.ram[:, 44 + lane])) + 1
            assert len(changes) > 1
            assert (film.ram[changes, 30 + lane] >= 160).all()
        assert len(set(film.ram[:, 44:48].ravel())) > 6

    def test_the_colour_is_seen(self):
        plain, coloured = (
            Film("seaquest", name, 40, self._dive, screens=True, skip=350) for name in ("", "random_color_enemies")
        )
        np.testing.assert_array_equal(coloured.ram[:, 30:40], plain.ram[:, 30:40])
        assert (coloured.screens != plain.screens).any()
