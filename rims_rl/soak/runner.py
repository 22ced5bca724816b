"""A soak from its beginning to its report.

First a run without faults. Then the same run again and again while faults happen to it, in turns: one whose workers'
faults end it, so that it must equal the run without faults bit for bit, and one whose workers are replaced, which goes
on with new episodes and is therefore another run, but must not lose a step.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path

from rich import get_console

from rims_rl.envs import is_atari
from rims_rl.output import say
from rims_rl.runs import RunFolder
from rims_rl.soak.checks import account, difference
from rims_rl.soak.config import SoakConfig
from rims_rl.soak.faults import ENDING_SECONDS, ON_THE_PROCESS, WORKER_ENDS_THE_RUN, WORKER_IS_REPLACED, Fault
from rims_rl.soak.ledger import Ledger
from rims_rl.soak.subject import Lost, Subject
from rims_rl.storage.plain_files import write_json

_UPDATE = 32
_STEPS = 60 * _UPDATE
_LONGEST_WAIT = 120.0
_LONGEST_RUN = 3_600.0
_STEP_TIMEOUT = 3.0


class Soak:
    """One soak: its folder, its chances, its ledger."""

    def __init__(self, config: SoakConfig) -> None:
        self.config = config
        self.ledger = Ledger()
        self._chance = random.Random(config.seed)
        self._folder = Path(config.output or tempfile.mkdtemp(prefix="rims-rl-soak-"))
        self._until = time.monotonic() + 60 * config.minutes

    def run(self) -> int:
        """Inject faults until the time is over, print what came of it, and return 0 when nothing was lost, else 1."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._inject()
        except Lost as loss:
            self.ledger.lost.append(str(loss))
        self._report()
        if self.ledger.is_clean and self.config.output is None:
            shutil.rmtree(self._folder)
        return 0 if self.ledger.is_clean else 1

    def _inject(self) -> None:
        reference = self._without_faults("reference")
        say(f"{_STEPS:,} steps without faults are done; now with faults, for {self.config.minutes:g} minutes in all")
        number = 0
        while time.monotonic() < self._until:
            number += 1
            replaced = number % 2 == 0
            faults = (*ON_THE_PROCESS, *(WORKER_IS_REPLACED if replaced else WORKER_ENDS_THE_RUN))
            run = self._with_faults(f"run_{number}", faults, restarts=10_000 if replaced else 0)
            self._judge(run, None if replaced else reference)

    def _without_faults(self, name: str) -> RunFolder:
        subject = self._subject(name, restarts=0)
        subject.start()
        try:
            if not subject.wait(_LONGEST_RUN) or subject.code != 0:
                raise Lost(f"{name}: a run without faults ended with code {subject.code}: {subject.last_words()}")
        finally:
            subject.end()
        return subject.folder

    def _with_faults(self, name: str, faults: tuple[Fault, ...], restarts: int) -> RunFolder:
        """Bring a run to its end while faults happen to it, until the time is over."""
        subject = self._subject(name, restarts)
        subject.start()
        try:
            while not self._has_ended(subject):
                (fault,) = self._chance.choices(faults, [each.weight for each in faults])
                if time.monotonic() > self._until:
                    subject.wait(_LONGEST_RUN)
                elif not fault.needs_two or len(subject.store.steps()) > 1:
                    self._one_fault(subject, fault)
        finally:
            subject.end()
        return subject.folder

    def _has_ended(self, subject: Subject) -> bool:
        """Wait until the process trains; return whether the run has come to its end instead."""
        if not subject.wait(_LONGEST_WAIT, lambda: subject.is_training):
            raise Lost(f"{subject.folder.path.name}: no checkpoint within {_LONGEST_WAIT:g} s: {subject.last_words()}")
        if subject.code is not None and not subject.has_ended_well:
            raise Lost(f"{subject.folder.path.name} ended with code {subject.code}: {subject.last_words()}")
        return subject.has_ended_well

    def _one_fault(self, subject: Subject, fault: Fault) -> None:
        """Inject a fault at a moment of chance, and see that the training goes on."""
        if subject.wait(self._chance.uniform(0, 1.0)):
            return
        step = subject.step
        fault.act(subject, self._chance)
        self.ledger.injected[fault.name] += 1
        self._recover(subject, fault, step)
        self.ledger.survived[fault.name] += 1
        say(f"{self.ledger.faults:4d}  {subject.folder.path.name} at step {step:,}: {fault.name}, survived")

    def _recover(self, subject: Subject, fault: Fault, step: int) -> None:
        """Wait until training has gone beyond a step or come to its end, and resume it where that was no good one.

        Raises:
            Lost: when it does not, or ends in another way than the fault explains.
        """
        name = f"{subject.folder.path.name} at step {step}, {fault.name}"
        if not subject.wait(_LONGEST_WAIT, lambda: subject.step > step and not subject.is_at_its_end):
            raise Lost(f"{name}: it did not go on within {_LONGEST_WAIT:g} s: {subject.last_words()}")
        explained = {None, *fault.codes, *(fault.late_codes if subject.is_at_its_end else ())}
        if subject.code not in explained and not subject.has_ended_well:
            raise Lost(f"{name}: it ended with code {subject.code}: {subject.last_words()}")
        if subject.code is None and fault.codes and not fault.may_go_on:
            raise Lost(f"{name}: it did not end within {ENDING_SECONDS:g} s: {subject.last_words()}")
        if subject.code is None or subject.code == 0:
            return
        subject.start()
        in_time = subject.wait(_LONGEST_WAIT, lambda: subject.is_training)
        if not in_time or not (subject.code is None or subject.has_ended_well):
            raise Lost(f"{name}: it could not be resumed ({subject.code}): {subject.last_words()}")

    def _judge(self, run: RunFolder, reference: RunFolder | None) -> None:
        """Note what is wrong with a run that has come to its end."""
        self.ledger.finished += 1
        wrong = account(run, _STEPS)
        if reference is not None and not wrong:
            self.ledger.comparable += 1
            wrong = difference(run, reference)
            self.ledger.equal += not wrong
        self.ledger.lost += [f"{run.path.name}: {line}" for line in wrong]

    def _subject(self, name: str, restarts: int) -> Subject:
        return Subject(RunFolder(self._folder / name), _STEPS, [*self._options(), *_workers(restarts)])

    def _options(self) -> list[str]:
        """Return the options of a small training that saves after every update."""
        words = (
            f"--env {self.config.env} --seed {self.config.seed} --core-kwargs num_units:4,active_units:2,unit_size:9 "
            f"--n-envs 2 --n-steps {_UPDATE // 2} --batch-size {_UPDATE // 2} --n-epochs 2 --learning-rate 1e-3 "
            f"--clip-range 0.2 --save-freq {_UPDATE} --log-interval 1 --wandb disabled --verbose 0 --device cpu "
        )
        return words.split() + (_ON_ATARI.split() if is_atari(self.config.env) else [])

    def _report(self) -> None:
        console = get_console()
        console.print(self.ledger.table())
        for line in self.ledger.lines():
            say(line)
        if not self.ledger.is_clean or self.config.output is not None:
            say(f"the runs and what they printed lie in {self._folder}")
        if self.config.json is not None:
            write_json(self.config.json, self.ledger.as_json())


_ON_ATARI = "--route gym --encoder nature --encoder-kwargs features_dim:16"


def _workers(restarts: int) -> list[str]:
    """Return the options for environments in processes of their own."""
    return ["--subprocess", "--step-timeout", str(_STEP_TIMEOUT), "--env-restarts", str(restarts)]
