"""The vector route with distractors: copies of a game, see `raw_game`, in several processes.

Python's lock would let copies in threads play one after the other. So they are shared out evenly among as many
processes as there are processors, this one among them, and in each they take turns. In a process that is itself a
worker, perhaps one of several that share the processors, they are as many as PyTorch has threads there, and in a
daemonic one, which may have no others, it plays alone.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rims_rl.envs.distractors.distractor import Distractors
from rims_rl.envs.protocols import SCREEN_SIZE, AtariSettings
from rims_rl.envs.raw_game import Frame, RawGame, RawStep
from rims_rl.envs.watched.crew import end, gather
from rims_rl.envs.watched.faults import Trouble
from rims_rl.envs.watched.patience import SECONDS_TO_START
from rims_rl.envs.watched.process import WatchedProcess, request_for
from rims_rl.envs.watched.starting import Role
from rims_rl.errors import RimsError

_SECONDS_TO_CLOSE = 5.0


class Seen(NamedTuple):
    """What a step or a reset of some copies shows."""

    pictures: Frame
    """The newest pictures (n, 84, 84)."""
    counts: NDArray[np.int64]
    """Of each copy (n, 4): the lives that are left, the reward, whether the game is over, whether it was truncated."""
    last: dict[int, Frame]
    """By the index of copies whose game has ended: its last picture (84, 84)."""


class RawGames:
    """Some copies, which play one after the other."""

    def __init__(self) -> None:
        self._games: list[RawGame] = []

    def build(self, settings: AtariSettings, count: int, distractors: Distractors) -> None:
        """Make so many copies."""
        self._games = [RawGame(settings, distractors) for _ in range(count)]

    def reset(self, seeds: Sequence[int] | None) -> Seen:
        """Start a new game in every copy, with these seeds (n), or None to go on with the present random streams."""
        for index, game in enumerate(self._games):
            game.begin(None if seeds is None else seeds[index])
        return self._seen([RawStep()] * len(self._games))

    def step(self, actions: Sequence[int]) -> Seen:
        """Repeat each copy's action (n) for 4 frames; a finished game is followed by the next one."""
        return self._seen([game.step(action) for game, action in zip(self._games, actions, strict=True)])

    def close(self) -> None:
        """Let go of the emulators."""
        self._games = []

    def _seen(self, steps: list[RawStep]) -> Seen:
        counts = [
            (game.lives, step.reward, step.terminated, step.truncated)
            for game, step in zip(self._games, steps, strict=True)
        ]
        last = {index: step.last for index, step in enumerate(steps) if step.last is not None}
        return Seen(np.stack([game.picture for game in self._games]), np.array(counts, np.int64), last)


class _Group(WatchedProcess):
    """A process with some of the copies."""

    def __init__(self, game: str, first: int, behind: int) -> None:
        super().__init__()
        self._game = game
        self.copies = slice(first, behind)

    @property
    def count(self) -> int:
        """How many copies it has."""
        return self.copies.stop - self.copies.start

    @property
    def culprit(self) -> str:
        """Which copies they are."""
        last = self.copies.stop - 1
        which = f"environment {last}" if self.count == 1 else f"environments {self.copies.start} to {last}"
        return f"the process of {which} ({self._game})"


class RawEmulators:
    """Copies of one game that speak as `AtariVectorEnv` does, and show what distractors leave to be seen.

    Args:
        settings: how the game is played and seen.
        n_envs: how many copies.
        distractors: what disturbs the agent's sight.
        processes: among how many the copies are shared out, this one among them; None: as many as may play at once.

    Raises:
        ConfigError: for distractors that can't be shown in this game.
        EnvironmentFault: when another process dies; then all of them are ended.
    """

    def __init__(
        self, settings: AtariSettings, n_envs: int, distractors: Distractors, processes: int | None = None
    ) -> None:
        count = min(n_envs, processes or _processors())
        bounds = [n_envs * index // count for index in range(count + 1)]
        self._own = slice(*bounds[:2])
        self._groups = [_Group(settings.game, *both) for both in pairwise(bounds[1:])]
        self._asked: tuple[str, Sequence[int] | None] | None = None
        self._needs_reset = True
        self._observations = np.zeros((n_envs, settings.frame_stack, SCREEN_SIZE, SCREEN_SIZE), np.uint8)
        self._games = RawGames()
        self._games.build(settings, bounds[1], distractors)
        self.close = Finalize(self, end, (self._groups, _SECONDS_TO_CLOSE), exitpriority=10)
        """Ends the other processes."""
        self._start(settings, distractors)

    @property
    def processes(self) -> list[BaseProcess]:
        """The other processes."""
        return [group.process for group in self._groups]

    def reset(self, *, seed: NDArray[np.int64] | None) -> tuple[Frame, dict[str, Any]]:
        """Start a new game in every copy; return observations (n, frame_stack, 84, 84) and {"lives": (n,)}."""
        self._send("reset", None if seed is None else seed.tolist())
        pictures, counts, _ = self._recv()
        self._observations[:, :-1] = 0
        self._observations[:, -1] = pictures
        return self._observations.copy(), {"lives": counts[:, 0].astype(np.int32)}

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step with actions (n,)."""
        self._send("step", actions.tolist())

    def recv(self) -> tuple[Frame, NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Finish the step: observations, rewards, terminated, truncated (each (n,)) and {"lives", "final_obs"}.

        Arrays are new in every step; "final_obs" has those of games that have ended, by the index of the copy.
        """
        pictures, counts, last = self._recv()
        shown = self._observations
        shown[:, :-1] = shown[:, 1:]
        final = {index: np.concatenate([shown[index, :-1], picture[np.newaxis]]) for index, picture in last.items()}
        shown[list(last), :-1] = 0
        shown[:, -1] = pictures
        info = {"lives": counts[:, 0].astype(np.int32), "final_obs": final}
        return shown.copy(), counts[:, 1], counts[:, 2].astype(bool), counts[:, 3].astype(bool), info

    def _start(self, settings: AtariSettings, distractors: Distractors) -> None:
        """Start the other processes, all at once."""
        try:
            for group in self._groups:
                build = request_for("build", settings, group.count, distractors)
                group.begin(Role(group.culprit, RawGames, knows_main=False), SECONDS_TO_START, build)
            self._answers(SECONDS_TO_START)
        except BaseException:
            self.close()
            raise
        for group in self._groups:
            group.allow(None)

    def _send(self, command: str, values: Sequence[int] | None) -> None:
        """Ask every process for `reset` or `step` with its copies' part of the values; `_recv` does this one's."""
        self._check(command)
        if self._asked is not None:  # so that streams of random numbers don't depend on where a copy is played
            self._recv()
        gather(self._groups, None)  # what an interrupt has left
        for group in self._groups:
            group.send(request_for(command, _part(values, group.copies)))
        self._asked = command, _part(values, self._own)

    def _check(self, command: str) -> None:
        """Raise RimsError where nothing, or no step, can be asked."""
        if not self.close.still_active():
            raise RimsError("these environments have been closed; make new ones")
        if command == "step" and self._asked is not None:
            raise RimsError("a step is under way; call step_wait() first")
        if command == "step" and self._needs_reset:
            raise RimsError("a step needs a reset before it: there was none yet, or the last step was interrupted")

    def _recv(self) -> Seen:
        """Return what all copies show; an error ends all processes, and after an interrupt they must be reset."""
        if self._asked is None or not self.close.still_active():
            raise RimsError("step_wait() needs a step_async() before it")
        (command, values), self._asked, self._needs_reset = self._asked, None, True
        try:
            parts: list[Seen] = [getattr(self._games, command)(values), *self._answers(None)]
        except Exception:
            self.close()
            raise
        self._needs_reset = False
        return self._joined(parts)

    def _joined(self, parts: Sequence[Seen]) -> Seen:
        """Return what the copies of all processes show, in their order."""
        pairs = list(zip([0, *(group.copies.start for group in self._groups)], parts, strict=True))
        return Seen(
            np.concatenate([part.pictures for part in parts]),
            np.concatenate([part.counts for part in parts]),
            {first + index: picture for first, part in pairs for index, picture in part.last.items()},
        )

    def _answers(self, seconds: float | None) -> list[Any]:
        """Wait for the other processes' answers, or raise what went wrong."""
        gather(self._groups, seconds)
        for group in self._groups:
            if isinstance(group.outcome, Trouble):
                raise group.refusal() or group.fault()
        return [group.outcome for group in self._groups]


def _part(values: Sequence[int] | None, copies: slice) -> Sequence[int] | None:
    return None if values is None else values[copies]


def _processors() -> int:
    """Return among how many processes copies are shared out; a daemonic one may have no others."""
    if multiprocessing.current_process().daemon:
        return 1
    if multiprocessing.parent_process() is not None:
        return torch.get_num_threads()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
