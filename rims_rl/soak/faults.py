"""What happens to a training in a soak: each fault is done to a running process, at a moment of chance."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rims_rl.soak.subject import REFUSED, Subject
from rims_rl.storage.plain_files import UNFINISHED

_WRITE_SECONDS = 5.0
_LONGEST_PAUSE = 1.0
ENDING_SECONDS = 60.0
KILLED, INTERRUPTED, TERMINATED = -signal.SIGKILL, 128 + signal.SIGINT, 128 + signal.SIGTERM

Act = Callable[[Subject, random.Random], None]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong."""

    name: str
    """What the report calls it."""
    act: Act
    """Does it."""
    codes: frozenset[int]
    """How the training ends of it; empty: it must go on."""
    late_codes: frozenset[int] = frozenset()
    """How else it may end when its training is over, where the program no longer listens to signals."""
    may_go_on: bool = False
    """Whether it need not end, although it may."""
    needs_two: bool = False
    """Whether there must be an older checkpoint to go back to."""
    weight: float = 1.0
    """How often it comes, relative to others: those that cost no new start of the training come more often."""


def kill(subject: Subject, chance: random.Random) -> None:
    """End the process at once."""
    subject.signal(signal.SIGKILL)
    subject.wait(ENDING_SECONDS)


def kill_at_a_write(subject: Subject, chance: random.Random) -> None:
    """End the process at once while a file of it is half written."""
    subject.wait(_WRITE_SECONDS, lambda: any(subject.folder.checkpoints.glob(f".*{UNFINISHED}")))
    kill(subject, chance)


def kill_at_the_start(subject: Subject, chance: random.Random) -> None:
    """End the process, start it anew, and end it before it trains."""
    kill(subject, chance)
    subject.start()
    subject.wait(chance.uniform(0.1, 4.0))
    kill(subject, chance)


def interrupt(subject: Subject, chance: random.Random) -> None:
    """Press Ctrl-C."""
    subject.signal(signal.SIGINT)
    subject.wait(ENDING_SECONDS)


def terminate(subject: Subject, chance: random.Random) -> None:
    """Ask the process to end, as a cluster's scheduler does."""
    subject.signal(signal.SIGTERM)
    subject.wait(ENDING_SECONDS)


def terminate_twice(subject: Subject, chance: random.Random) -> None:
    """Ask it to end, and ask again."""
    subject.signal(signal.SIGTERM)
    time.sleep(chance.uniform(0, 0.05))
    subject.signal(signal.SIGTERM)
    subject.wait(ENDING_SECONDS)


def pause(subject: Subject, chance: random.Random) -> None:
    """Stop the process and let it go on."""
    subject.signal(signal.SIGSTOP)
    time.sleep(chance.uniform(0.1, _LONGEST_PAUSE))
    subject.signal(signal.SIGCONT)


def fill_the_disk(subject: Subject, chance: random.Random) -> None:
    """Let no file grow any more for a while."""
    subject.limit_files(chance.choice((0, 100, 10_000)))
    subject.wait(chance.uniform(0.3, 1.5))
    subject.limit_files(None)


def cut_the_newest(subject: Subject, chance: random.Random) -> None:
    """End the process and cut its newest checkpoint short."""
    kill(subject, chance)
    path = _newest(subject)
    os.truncate(path, chance.randrange(path.stat().st_size))


def garble_the_newest(subject: Subject, chance: random.Random) -> None:
    """End the process and change some bytes of its newest checkpoint."""
    kill(subject, chance)
    path = _newest(subject)
    content = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 20)):
        content[chance.randrange(len(content))] ^= chance.randint(1, 255)
    path.write_bytes(content)


def kill_a_worker(subject: Subject, chance: random.Random) -> None:
    """End an environment's process at once."""
    _to_a_worker(subject, chance, signal.SIGKILL)


def hang_a_worker(subject: Subject, chance: random.Random) -> None:
    """Stop an environment's process for good."""
    _to_a_worker(subject, chance, signal.SIGSTOP)


def until_it_ends(act: Act) -> Act:
    """Return a fault's deed that waits for the training's end: it may save once more before it notices."""

    def act_and_wait(subject: Subject, chance: random.Random) -> None:
        act(subject, chance)
        subject.wait(ENDING_SECONDS)

    return act_and_wait


def _to_a_worker(subject: Subject, chance: random.Random, number: signal.Signals) -> None:
    workers = subject.workers()
    if workers:
        os.kill(chance.choice(workers), number)


def _newest(subject: Subject) -> Path:
    return subject.folder.checkpoints / f"step_{subject.step:09d}.safetensors"


ON_THE_PROCESS = (
    Fault("killed", kill, frozenset({KILLED})),
    Fault("killed while writing a checkpoint", kill_at_a_write, frozenset({KILLED})),
    Fault("killed while starting", kill_at_the_start, frozenset({KILLED})),
    Fault("Ctrl-C", interrupt, frozenset({INTERRUPTED}), frozenset({-signal.SIGINT})),
    Fault("SIGTERM", terminate, frozenset({TERMINATED}), frozenset({-signal.SIGTERM})),
    # The second one may come when all is saved and the program no longer listens.
    Fault("SIGTERM twice", terminate_twice, frozenset({TERMINATED, -signal.SIGTERM})),
    Fault("stopped and continued", pause, frozenset(), weight=4.0),
    Fault("disk full for a while", fill_the_disk, frozenset({REFUSED}), may_go_on=True, weight=4.0),
    Fault("newest checkpoint cut short", cut_the_newest, frozenset({KILLED}), needs_two=True),
    Fault("newest checkpoint garbled", garble_the_newest, frozenset({KILLED}), needs_two=True),
)
WORKER_ENDS_THE_RUN = (
    Fault("worker killed, run ends", until_it_ends(kill_a_worker), frozenset({REFUSED})),
    Fault("worker hangs, run ends", until_it_ends(hang_a_worker), frozenset({REFUSED})),
)
WORKER_IS_REPLACED = (
    Fault("worker killed, replaced", kill_a_worker, frozenset(), weight=4.0),
    Fault("worker hangs, replaced", hang_a_worker, frozenset(), weight=4.0),
)
