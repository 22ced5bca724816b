"""What `rims-rl cores` prints: every core with its paper and its size, or the settings of one."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import fields
from typing import Any

from rich import box, get_console
from rich.table import Table
from rich.text import Text

from rims_rl.config import CoresConfig
from rims_rl.cores import RecurrentCore, core_class, core_names, matched_settings
from rims_rl.cores.base import require_at_least_one
from rims_rl.cores.matching import sketched_core
from rims_rl.errors import ConfigError


def list_cores(config: CoresConfig) -> None:
    """Print the table of all cores, or the settings of the one that is named.

    Raises:
        UnknownNameError: for an unknown core.
        ConfigError: for sizes below one, or a number of parameters that a core can't have.
    """
    require_at_least_one(input_size=config.input_size)
    if config.name is not None:
        core = core_class(config.name)
        get_console().print(Text(f"{config.name}: {_summary(core)} ({core.paper})"), soft_wrap=True)
        get_console().print(_settings_table(config.name, config))
        return
    get_console().print(_cores_table(config))


def _cores_table(config: CoresConfig) -> Table:
    matched = "" if config.parameters is None else f", matched to {config.parameters:,} parameters"
    table = Table(title=f"cores on {config.input_size} inputs{matched}", box=box.ROUNDED, title_justify="left")
    table.add_column("core")
    table.add_column("paper")
    for heading in ("parameters", "state", "output"):
        table.add_column(heading, justify="right")
    for name in core_names():
        core = sketched_core(name, config.input_size, **_sized(name, config))
        count = sum(parameter.numel() for parameter in core.parameters())
        table.add_row(name, core.paper, f"{count:,}", f"{core.state_size:,}", f"{core.output_size:,}")
    return table


def _settings_table(name: str, config: CoresConfig) -> Table:
    """Return every setting of a core with its value and what it means."""
    cls: Any = core_class(name).config_class
    shown, meanings = _sized(name, config), field_docstrings(cls)
    table = Table("setting", "value", "meaning", box=box.ROUNDED)
    for entry in fields(cls):
        table.add_row(entry.name, str(shown.get(entry.name, entry.default)), meanings[entry.name])
    return table


def _sized(name: str, config: CoresConfig) -> dict[str, Any]:
    """Return the settings of a core that is matched to the asked number of parameters; none where none is asked."""
    return {} if config.parameters is None else matched_settings(name, config.input_size, config.parameters)


def _summary(core: type[RecurrentCore]) -> str:
    return (inspect.getdoc(core) or "").split("\n\n")[0].replace("\n", " ").rstrip(".")


def field_docstrings(cls: type[Any]) -> dict[str, str]:
    """Return the text under each field of a dataclass, in one line; ConfigError where its source can't be read."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except OSError:
        raise ConfigError(f"the source of {cls.__name__} cannot be read") from None
    assert isinstance(body, ast.ClassDef)
    found = {entry.name: "" for entry in fields(cls)}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = _text(following)
    return found


def _text(statement: ast.stmt) -> str:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return ""
    return " ".join(str(statement.value.value).split())
