"""A disk that is really full: a small file system of its own, on which training goes on and nothing good is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_training import SMALL

pytestmark = pytest.mark.faults
SCRIPT = """
import logging, os, subprocess, sys
from pathlib import Path

from rims_rl.agents.checkpoint import CheckpointStore
from rims_rl.cli import main
from rims_rl.loading import load_agent
from rims_rl.runs import RunFolder

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True)
small = ("--env cartpole-novel --core-kwargs num_units:3,active_units:2,unit_size:5 --n-envs 2 --n-steps 16 "
         "--batch-size 16 --n-epochs 1 --log-interval 1 --save-freq 32 --wandb disabled --verbose 0 "
         "--device cpu").split()
assert main(["train", *small, "-n", "128", "--output", str(disk / "run")]) == 0
run = RunFolder(disk / "run")
ballast = disk / "ballast"
free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
ballast.write_bytes(b"x" * (free - int(sys.argv[2])))
code = main(["train", "--resume", str(run.path), "-n", "320"])
print("code", code, "steps", CheckpointStore(run.checkpoints).steps(), flush=True)
newest = CheckpointStore(run.checkpoints).newest()
print("whole", newest.manifest["num_timesteps"], flush=True)
print("plays", load_agent(run).step, flush=True)
ballast.unlink()
assert main(["train", "--resume", str(run.path), "-n", "384"]) == 0
print("then", load_agent(run).step, len((run.path / "progress.csv").read_text().splitlines()) - 1, flush=True)
"""


@pytest.mark.parametrize("free", [0, 100_000], ids="{} bytes free".format)
def test_training_goes_on_and_catches_up_once_there_is_room(tmp_path: Path, free: int) -> None:
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets no user mount a small file system of his own")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = ["unshare", "-Urm", sys.executable, str(tmp_path / "script.py"), str(tmp_path), str(free)]
    (tmp_path / "disk").mkdir()
    command[-2] = str(tmp_path / "disk")
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    said = dict(line.split(" ", 1) for line in found.stdout.splitlines() if line.split(" ")[0] in SAID)
    assert said["then"] == "384 12"
    assert "Traceback" not in found.stderr
    assert "o space left" in found.stdout + found.stderr
    assert int(said["whole"]) >= 128


def test_what_is_printed_may_be_lost_but_not_the_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rims_rl", "train", *SMALL, "-n", "96", "--output", str(tmp_path / "run")]
    with open("/dev/full", "w") as full:
        verbose = subprocess.run([*command, "--verbose", "1"], stdout=full, stderr=full, timeout=120, check=False)
    assert verbose.returncode == 0
    assert (tmp_path / "run" / "policy.safetensors").is_file()


SAID = ("code", "whole", "plays", "then")


_REFUSED = """
import resource, sys
from rims_rl.cli import main

_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
sys.exit(main(["no-such-command"]))
"""


def test_the_line_that_tells_of_an_error_may_be_lost_but_not_its_code(tmp_path: Path) -> None:
    with open(tmp_path / "said", "wb") as said:
        code = subprocess.run([sys.executable, "-c", _REFUSED], stdout=said, stderr=said, check=False).returncode
    assert code == 2
    assert (tmp_path / "said").read_bytes() == b""
