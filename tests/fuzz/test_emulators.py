"""States of an emulator: ALE reads what it is given without a doubt, so nothing else reaches it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ale_py import ALEState

from rims_rl.envs.emulator import load_emulator
from rims_rl.envs.emulator_state import check_emulator_state
from rims_rl.envs.games import game_names
from rims_rl.envs.gym_route import AtariGymEnv
from rims_rl.errors import ConfigError
from tests.fuzz.guard import survives
from tests.fuzz.hostile import fuzzed

pytestmark = pytest.mark.faults
BY_CARTRIDGE = {
    b"Cartridge2K": "pong", b"Cartridge4K": "seaquest", b"CartridgeF8": "asteroids", b"CartridgeF6": "solaris",
    b"CartridgeE0": "montezuma_revenge", b"CartridgeDPC": "pitfall2", b"CartridgeF8SC": "elevator_action",
    b"CartridgeF6SC": "klax", b"CartridgeFE": "robotank",
}  # fmt: skip
"""A game for each kind of cartridge that ALE's games have."""


def state_of(game: str, frames: int = 0) -> bytes:
    """Return a state of a game after some frames of random play."""
    ale, generator = load_emulator(game), np.random.default_rng(0)
    if frames:
        ale.reset_game()
        actions = ale.getMinimalActionSet()
        for choice in generator.integers(len(actions), size=frames):
            ale.act(actions[choice])
    return bytes(ale.cloneState(include_rng=True).serialize())


@cache
def own_and_good(game: str) -> tuple[bytes, bytes]:
    return state_of(game), state_of(game, 60)


def changed(state: bytes, after: bytes, words: int, value: int) -> bytes:
    """Return a state with another number, so many words behind a name."""
    place = state.index(after) + len(after) + 4 * words
    return state[:place] + struct.pack("<i", value) + state[place + 4 :]


class TestGoodStates:
    @pytest.mark.parametrize("game", game_names()[:: len(game_names()) // 12])
    def test_every_state_of_play_is_taken(self, game):
        own, good = own_and_good(game)
        check_emulator_state(own, own)
        check_emulator_state(good, own)

    @pytest.mark.slow
    @pytest.mark.parametrize("game", game_names())
    def test_of_every_game(self, game):
        own = state_of(game)
        for frames in (1, 60, 600):
            check_emulator_state(state_of(game, frames), own)

    @pytest.mark.parametrize("cartridge", BY_CARTRIDGE)
    def test_the_games_below_have_all_kinds_of_cartridges(self, cartridge):
        assert re.search(rb"Cartridge[0-9A-Z]+", own_and_good(BY_CARTRIDGE[cartridge])[0])[0].startswith(cartridge)

    def test_another_games_state_is_refused(self):
        with pytest.raises(ConfigError, match="not one of this game"):
            check_emulator_state(own_and_good("pong")[0], own_and_good("seaquest")[0])

    def test_another_modes_state_is_refused(self):
        own = own_and_good("pong")[0]
        for place in (16, 20):
            with pytest.raises(ConfigError, match="not one of this game"):
                check_emulator_state(own[:place] + b"\7" + own[place + 1 :], own)


class TestWhatWouldHarmTheProcess:
    """A count of RAM beyond it, banks that are not there, and places beyond ALE's tables."""

    @pytest.mark.parametrize(
        ("game", "after", "words", "value"),
        [
            ("pong", b"M6532", 0, 1_000), ("pong", b"M6532", 0, -1), ("pong", b"M6532", 0, 127),
            ("pong", b"TIA", 41, 32_000), ("pong", b"TIA", 45, -1), ("pong", b"TIA", 30, 120), ("pong", b"TIA", 34, -5),
            ("asteroids", b"CartridgeF8", 0, 65_535), ("asteroids", b"CartridgeF8", 0, 2),
            ("solaris", b"CartridgeF6", 0, 4), ("montezuma_revenge", b"CartridgeE0", 0, 1_600),
            ("montezuma_revenge", b"CartridgeE0", 2, 8), ("pitfall2", b"CartridgeDPC", 0, 2),
            ("pitfall2", b"CartridgeDPC", 1, 1_600), ("pitfall2", b"CartridgeDPC", 20, 2_048),
            ("elevator_action", b"CartridgeF8SC", 1, 4_000), ("klax", b"CartridgeF6SC", 0, 9),
            ("pong", b"M6502Low", 6, 1),
        ],
    )  # fmt: skip
    def test_is_refused(self, game, after, words, value):
        own, good = own_and_good(game)
        with pytest.raises(ConfigError, match="its emulator's state is not one of this game"):
            check_emulator_state(changed(good, after, words, value), own)

    @pytest.mark.parametrize("length", [2**31 - 1, -1, 10**6])
    def test_lengths_of_texts(self, length):
        own, good = own_and_good("pong")
        for place in [24, 28, good.index(b"System") - 4, good.index(b"System") + 10]:
            with pytest.raises(ConfigError, match="not one of this game"):
                check_emulator_state(good[:place] + struct.pack("<i", length) + good[place + 4 :], own)

    @pytest.mark.parametrize("cut", [lambda state: b"", lambda state: state[:-1], lambda state: state + b"\0"])
    def test_other_lengths(self, cut: Callable[[bytes], bytes]):
        own, good = own_and_good("pong")
        with pytest.raises(ConfigError, match="not one of this game"):
            check_emulator_state(cut(good), own)


class TestMutations:
    @fuzzed(500)
    def test_what_is_taken_can_be_played(self, tmp_path_factory, by):
        game = by.one_of(list(BY_CARTRIDGE.values()))
        own, good = own_and_good(game)
        state = by.bytes(good)
        if survives(lambda: check_emulator_state(state, own), Path(tmp_path_factory.getbasetemp())) is None:
            ale = load_emulator(game)
            ale.restoreState(ALEState(state))
            for _ in range(8):
                ale.act(1)
            ale.reset_game()

    @fuzzed(40)
    def test_numbers_at_their_places(self, by):
        """Whole words are overwritten, which keeps the state's structure, so most are taken."""
        game = by.one_of(list(BY_CARTRIDGE.values()))
        own, good = own_and_good(game)
        begin = good.index(b"M6502Low") + 8
        place = begin + 4 * by.random.randrange(14) if by.random.random() < 0.3 else good.index(b"M6532") + 9
        place += 4 * by.random.randrange(134) if place > begin + 56 else 0
        state = good[:place] + struct.pack("<I", by.one_of([0, 1, 255, 2**16, 2**32 - 1])) + good[place + 4 :]
        try:
            check_emulator_state(state, own)
        except ConfigError:
            return
        ale = load_emulator(game)
        ale.restoreState(ALEState(state))
        for _ in range(10):
            ale.act(0)


class TestSnapshots:
    @fuzzed(150)
    def test_of_the_whole_environment(self, tmp_path_factory, by):
        env, snapshot = _game()
        changed_snapshot = by.json(_without_arrays(snapshot))
        for name in ("emulator", "screen"):
            if isinstance(changed_snapshot, dict) and by.random.random() < 0.9:
                changed_snapshot[name] = snapshot[name]

        def restore() -> None:
            env.restore(changed_snapshot)
            for _ in range(3):
                env.step(np.int64(0))

        survives(restore, Path(tmp_path_factory.getbasetemp()))
        env.restore(snapshot)


@cache
def _game() -> tuple[AtariGymEnv, dict[str, object]]:
    env = AtariGymEnv("pong", distractor="balls:0.5", frame_stack=2)
    env.reset(seed=1)
    return env, env.snapshot()


def _without_arrays(snapshot: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in snapshot.items() if name not in ("emulator", "screen")}
