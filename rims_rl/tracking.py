"""Weights & Biases, kept at arm's length: it can be missing, slow, unreachable or broken, and the run never notices.

One daemon thread owns the W&B run; training only puts messages into its queue. So no call here blocks, none raises, and
starting and finishing take a bounded time.
"""

from __future__ import annotations

import configparser
import logging
import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Full, Queue
from typing import Any, Literal

from stable_baselines3.common.logger import KVWriter

from rims_rl.config import TrainConfig, as_plain
from rims_rl.errors import ConfigError, shortened
from rims_rl.logging import loggable
from rims_rl.output import say
from rims_rl.runs import RunFolder
from rims_rl.storage.plain_files import WANDB_FOLDERS, read_bytes, read_json

_log = logging.getLogger(__name__)
Mode = Literal["online", "offline", "disabled"]
Say = Callable[[str], None]

INIT_SECONDS = 15.0
"""Longest wait for the W&B server when a run starts."""
FINISH_SECONDS = 60.0
"""Longest wait for the upload's end when a run is over."""
_MOST_WAITING = 10_000
_MOST_TAG_CHARACTERS = 64
_MOST_ID_FILE = 2**16
_MOST_SETTINGS_FILE = 2**16
_HARMLESS_SETTINGS = frozenset({"entity", "project", "mode"})
_OWN_SERVER = "https://api.wandb.ai"  # which older `wandb init` wrote down
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # it becomes part of a folder's name


class WandbRun:
    """A W&B run, or one that does nothing when W&B is disabled."""

    def __init__(self, mode: Mode = "disabled", run: Any = None, finish_seconds: float = FINISH_SECONDS) -> None:
        self.mode: Mode = mode if run is not None else "disabled"
        self.id: str | None = None if run is None else run.id
        """W&B's id of this run, to give to `start_wandb` when the run is resumed."""
        self.finish_seconds = finish_seconds
        self._run = run
        self._is_open = run is not None
        self._warned = False
        self._queue: Queue[Callable[[], None] | None] = Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        if run is not None:
            self._thread.start()

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log values at an environment step."""
        kept = dict(values)
        self._put(lambda: self._run.log(kept, step=step))

    def log_video(self, path: Path, key: str, step: int) -> None:
        """Log a video file that lies on the disk."""
        self._put(lambda: self._run.log({key: _wandb().Video(str(path))}, step=step))

    def log_artifact(self, paths: list[Path], name: str) -> None:
        """Log files as one artifact of type `model`; those that do not exist are left out."""
        self._put(lambda: self._send_artifact(paths, name))

    def finish(self) -> None:
        """Wait for W&B to take everything, but no longer than `finish_seconds`; later calls do nothing."""
        if not self._is_open:
            return
        self._is_open = False
        self._queue_finish()
        self._thread.join(self.finish_seconds)
        if self._thread.is_alive():
            self._warn(f"it did not finish within {self.finish_seconds:g} seconds")

    def _queue_finish(self) -> None:
        try:
            self._queue.put(self._run.finish, timeout=self.finish_seconds)
            self._queue.put(None, timeout=self.finish_seconds)
        except Full:
            self._warn("it is stuck, and the run ends without it")

    def _send_artifact(self, paths: list[Path], name: str) -> None:
        artifact = _wandb().Artifact(name, type="model")
        for path in paths:
            if path.is_file():
                artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def _put(self, send: Callable[[], None]) -> None:
        """Queue a message; when W&B is so far behind that the queue is full, the message is lost."""
        if not self._is_open:
            return
        try:
            self._queue.put_nowait(send)
        except Full:
            self._warn("it does not keep up, and some values are lost")

    def _work(self) -> None:
        """Send what is queued until None comes; runs in the thread of its own."""
        while (send := self._queue.get()) is not None:
            try:
                send()
            except Exception as error:
                self._warn(_one_line(error))

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("W&B: %s; training goes on", reason)


class WandbWriter(KVWriter):
    """Sends each dump of SB3's logger to W&B, with the environment step as its step."""

    def __init__(self, run: WandbRun) -> None:
        self.run = run

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Send the numbers among the values."""
        values = loggable(key_values, key_excluded, "wandb")
        self.run.log({key: value for key, value in values.items() if not isinstance(value, str)}, step)

    def close(self) -> None:
        """Do nothing: whoever started the run finishes it."""


@dataclass(frozen=True)
class WandbSettings:
    """How a W&B run is started, and what it shows."""

    mode: Literal["auto", "online", "offline", "disabled"]
    """auto is online when logged in, else offline."""
    project: str
    """W&B project."""
    entity: str | None
    """W&B user or team."""
    name: str
    """Name of the run."""
    tags: tuple[str, ...] = ()
    """Its tags; empty ones are left out."""
    group: str | None = None
    """What it is shown together with."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its settings."""


def start_wandb(
    config: TrainConfig,
    folder: RunFolder,
    run_id: str | None = None,
    extra_config: Mapping[str, Any] | None = None,
    say: Say = say,
) -> WandbRun:
    """Start (or, with `run_id`, go on with) a training run's W&B run whose files lie in its folder; never raises.

    Args:
        config: the run's settings.
        folder: the run's folder.
        run_id: the id of the run that is resumed.
        extra_config: shown beside the settings, for example versions and parameter counts.
        say: prints the one line about where the run is logged.
    """
    settings = WandbSettings(
        config.wandb,
        config.wandb_project,
        config.wandb_entity,
        name=config.name or folder.path.resolve().name,
        tags=(config.env, config.core, config.protocol, config.config or "", *config.wandb_tags),
        config={**as_plain(config), **(extra_config or {})},
    )
    return start_wandb_run(settings, folder.path, run_id, say)


def stored_run_id(file: Path) -> str | None:
    """Return the id of a W&B run that `wandb_run.json` holds; None where there is none that W&B could have given."""
    try:
        run_id = read_json(file, _MOST_ID_FILE)["id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run_id if isinstance(run_id, str) and _RUN_ID.fullmatch(run_id) else None


def start_wandb_run(settings: WandbSettings, folder: Path, run_id: str | None = None, say: Say = say) -> WandbRun:
    """Start (or, with `run_id`, go on with) a W&B run whose files lie in `folder`, made when missing; never raises."""
    if settings.mode == "disabled":
        return WandbRun()
    try:
        _check_current_folder()
        mode = _chosen_mode(settings.mode)
        if mode == "disabled":
            return WandbRun()
        return _start(mode, _arguments(settings, folder, run_id), say)
    except Exception as error:
        say(f"W&B is off: {_one_line(error)}")
        return WandbRun()


def _check_current_folder() -> None:
    """Raise ConfigError where W&B would take from the current folder to which server it sends the API key, or the like.

    W&B obeys a file `wandb/settings` there, whoever made it: the current folder may be a run from elsewhere.
    """
    for file in (Path(name, "settings") for name in WANDB_FOLDERS):
        if file.exists():
            parser = configparser.ConfigParser(interpolation=None)
            parser.read_string(read_bytes(file, _MOST_SETTINGS_FILE).decode())
            found = [*parser.defaults().items(), *(pair for name in parser.sections() for pair in parser[name].items())]
            for name in sorted({name for name, value in found if not _is_harmless(name, value)}):
                raise ConfigError(f"{file} in this folder sets {shortened(name)}; remove the file if it is not yours")


def _is_harmless(name: str, value: str | None) -> bool:
    return name in _HARMLESS_SETTINGS or (name == "base_url" and value is not None and value.rstrip("/") == _OWN_SERVER)


def _start(mode: Mode, settings: dict[str, Any], say: Say) -> WandbRun:
    """Start online where asked, offline where that fails, and say in one line what came of it."""
    if mode == "online":
        try:
            run = _bounded(lambda: _init("online", settings), 2 * INIT_SECONDS)
            say(f"W&B: {run.url}")
            return WandbRun("online", run)
        except Exception as error:
            say(f"W&B cannot be reached, going on offline ({_one_line(error)})")
            _bounded(_forget_failed_start, INIT_SECONDS)
    run = _bounded(lambda: _init("offline", settings), 2 * INIT_SECONDS)
    say(f"W&B is offline; upload this run later with: wandb sync {Path(run.dir).parent}")
    return WandbRun("offline", run)


def _wandb() -> Any:
    """Import wandb when it is needed: it is slow to import, and may be broken."""
    import wandb

    return wandb


def _silence(wandb: Any) -> None:
    wandb.setup(wandb.Settings(silent=True))


def _forget_failed_start() -> None:
    """End W&B's service process, which holds the id of a run that failed to start."""
    _wandb().teardown()
    _silence(_wandb())


def _chosen_mode(wanted: str) -> Mode:
    """Return the mode for a setting: `auto` obeys WANDB_MODE, then asks whether there is a login; asks no server."""
    wandb = _wandb()
    _silence(wandb)
    if wanted in ("online", "offline"):
        return "online" if wanted == "online" else "offline"
    asked = os.environ.get("WANDB_MODE", "")
    if asked in ("offline", "dryrun"):
        return "offline"
    if asked == "disabled":
        return "disabled"
    return "online" if _logged_in(wandb) else "offline"


def _logged_in(wandb: Any) -> bool:
    """Whether credentials lie in the environment, the netrc file or W&B's settings; asks neither user nor server."""
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # wandb before 0.31 has no `prompt`
        return bool(wandb.api.api_key)
    except Exception as error:
        _log.warning("W&B's login cannot be used: %s", _one_line(error))
        return False


def _arguments(settings: WandbSettings, folder: Path, run_id: str | None) -> dict[str, Any]:
    """Return the arguments of `wandb.init` that do not depend on the mode."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "project": settings.project,
        "entity": settings.entity,
        "name": settings.name,
        "group": settings.group,
        "dir": str(folder),
        "id": run_id or secrets.token_hex(4),
        "resume": "allow",
        "tags": [tag[:_MOST_TAG_CHARACTERS] for tag in dict.fromkeys(settings.tags) if tag],
        "config": dict(settings.config),
        "settings": _quiet_settings(),
    }


def _quiet_settings() -> Any:
    """Return settings that print nothing, capture no output and bound every wait; unknown ones are left out."""
    settings = _wandb().Settings
    timeouts = {"init_timeout": INIT_SECONDS, "finish_timeout": 0.9 * FINISH_SECONDS}
    wanted = {"silent": True, "console": "off", **timeouts}
    return settings(**{name: value for name, value in wanted.items() if name in settings.model_fields})


def _init(mode: Mode, settings: Mapping[str, Any]) -> Any:
    return _wandb().init(mode=mode, **settings)


def _bounded(call: Callable[[], Any], seconds: float) -> Any:
    """Return what `call` returns, or raise what it raises, or TimeoutError when it takes longer than `seconds`."""
    outcome: list[Any] = []
    failure: list[Exception] = []

    def work() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="wandb-init", daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} seconds")
    return outcome[0]


def _one_line(error: BaseException) -> str:
    """Return an error as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:100]}{'...' if len(text) > 100 else ''}"
