"""The package's door is light, and its storeys stand on each other in one direction only."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import rims_rl

ROOT = Path(rims_rl.__file__).parent
HEAVY = {"stable_baselines3", "sb3_contrib", "gymnasium", "ale_py", "wandb", "cv2", "tyro", "rich"}
GROUND = {"rims_rl.compiling", "rims_rl.errors", "rims_rl.__version__", "rims_rl.versions"}
"""What every storey may use."""


def modules_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after some code."""
    program = f"{code}\nimport sys\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    return set(done.stdout.split())


def imports_of(path: Path) -> set[str]:
    """Return the absolute names of all modules that a file imports, wherever in the file."""
    package = [*path.relative_to(ROOT.parent).with_suffix("").parts][:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "rims_rl" else {module}
    return names


def foreign(storey: str, allowed_here: set[str]) -> dict[str, set[str]]:
    """Return, by file, what a storey imports of rims_rl beside itself, the ground and what is allowed."""
    allowed = {f"rims_rl.{storey}", *GROUND, *allowed_here}
    found = {}
    for path in sorted((ROOT / storey).rglob("*.py")):
        ours = {name for name in imports_of(path) if name.partition(".")[0] == "rims_rl"}
        wrong = {name for name in ours if not any(name == a or name.startswith(f"{a}.") for a in allowed)}
        if wrong:
            found[path.name] = wrong
    return found


class TestTheDoorIsLight:
    def test_importing_the_package_loads_not_even_torch(self) -> None:
        assert modules_after("import rims_rl") & {*HEAVY, "torch"} == set()

    def test_the_cores_load_torch_and_nothing_else_that_is_heavy(self) -> None:
        loaded = modules_after("from rims_rl import RIM, RIMConfig, make_core; make_core('rim', 7)")
        assert "torch" in loaded
        assert loaded & HEAVY == set()

    def test_the_three_names_are_those_of_the_cores(self) -> None:
        from rims_rl import RIM, RIMConfig, cores, make_core

        assert (RIM, RIMConfig, make_core) == (cores.RIM, cores.RIMConfig, cores.make_core)

    def test_everything_that_it_promises_is_there(self) -> None:
        assert [name for name in rims_rl.__all__ if not hasattr(rims_rl, name)] == []

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="module 'rims_rl' has no attribute 'LSTM'"):
            _ = rims_rl.LSTM

    def test_the_version_is_that_of_the_installed_package(self) -> None:
        assert rims_rl.__version__ == version("rims_rl")

    def test_says_that_it_is_typed(self) -> None:
        assert (ROOT / "py.typed").is_file()


class TestStoreys:
    def test_the_finder_sees_every_kind_of_import(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(f"{__name__}.ROOT", tmp_path / "rims_rl")
        file = tmp_path / "rims_rl" / "agents" / "some.py"
        file.parent.mkdir(parents=True)
        file.write_text(
            "import rims_rl.envs.atari as a\nfrom rims_rl import cli\nfrom rims_rl.cores import RIM\n"
            "from ..envs import games\nfrom .losses import x\ndef f():\n    import wandb\n"
        )
        assert imports_of(file) == {
            "rims_rl.envs.atari",
            "rims_rl.cli",
            "rims_rl.cores",
            "rims_rl.envs",
            "rims_rl.agents.losses",
            "wandb",
        }
        assert foreign("agents", {"rims_rl.cores"}) == {
            "some.py": {"rims_rl.envs.atari", "rims_rl.envs", "rims_rl.cli"}
        }

    def test_the_cores_import_torch_and_the_standard_library_alone(self) -> None:
        known = {"torch", "rims_rl", *sys.stdlib_module_names}
        for path in (ROOT / "cores").rglob("*.py"):
            with_gpus = (
                {"triton"} if path.parent.name == "unrolled" else set()
            )  # where PyTorch is for GPUs, it is there
            assert {name.partition(".")[0] for name in imports_of(path)} - known <= with_gpus, path.name

    def test_without_a_gpu_nobody_loads_triton(self) -> None:
        use = "import torch; from rims_rl import RIM; r = RIM(3); r(torch.zeros(2, 1, 3), r.initial_state(1))"
        assert "triton" not in modules_after(use)

    def test_the_cores_know_nothing_of_what_stands_on_them(self) -> None:
        assert foreign("cores", set()) == {}

    def test_the_agents_know_the_cores_but_neither_environments_nor_anything_above(self) -> None:
        assert foreign("agents", {"rims_rl.cores", "rims_rl.storage", "rims_rl.signals"}) == {}

    def test_storage_knows_nothing_else(self) -> None:
        assert foreign("storage", set()) == {}

    def test_the_environments_know_storage_and_signals_but_neither_cores_nor_agents_nor_anything_above(self) -> None:
        assert foreign("envs", {"rims_rl.storage", "rims_rl.signals"}) == {}

    def test_no_file_is_called_utils(self) -> None:
        assert [path for path in ROOT.rglob("*.py") if path.stem in ("util", "utils", "helpers")] == []
