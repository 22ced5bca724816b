"""Processes as Linux' /proc shows them."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path


def parents() -> dict[int, int]:
    """Return the parent of every process that is not a zombie, by their ids."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            fields = _status(int(folder.name))
            if fields and fields[0] != "Z":
                found[int(folder.name)] = int(fields[1])
    return found


def group_of(leader: int) -> list[int]:
    """Return the processes in a process group that are not zombies."""
    found = []
    for process in parents():
        fields = _status(process)
        if fields and int(fields[2]) == leader:
            found.append(process)
    return found


def workers_of(process: int) -> list[int]:
    """Return the worker processes of a training: what its fork server has started.

    Python's fork server is a child of the training, and workers are children of it.
    """
    children = defaultdict(list)
    for child, parent in parents().items():
        children[parent].append(child)
    return sorted(worker for child in children[process] for worker in children[child])


def _status(process: int) -> list[str]:
    """Return state, parent, group, ... of a process; empty when it is gone."""
    try:
        text = (Path("/proc") / str(process) / "stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def end_group(leader: int) -> None:
    """Kill whatever is left of a process group."""
    try:
        os.killpg(leader, 9)
    except (ProcessLookupError, PermissionError):
        return
