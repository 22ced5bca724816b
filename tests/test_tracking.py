"""Weights & Biases: present, missing, slow, unreachable or broken, training goes on."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from stable_baselines3.common.logger import Logger

from rims_rl import tracking
from rims_rl.config import TrainConfig
from rims_rl.runs import RunFolder
from rims_rl.tracking import WandbRun, WandbWriter, start_wandb

pytestmark = pytest.mark.faults


class FakeRun:
    """Notes what it gets."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.id = settings["id"]
        self.url = f"https://example.org/{self.id}"
        self.dir = str(Path(settings["dir"]) / "wandb" / "offline-run-7" / "files")
        self.got: list[Any] = []

    def log(self, values: dict[str, Any], step: int) -> None:
        self.got.append((values, step))

    def log_artifact(self, artifact: Any) -> None:
        self.got.append(artifact)

    def finish(self) -> None:
        self.got.append("finished")


class FakeArtifact:
    def __init__(self, name: str, type: str) -> None:  # noqa: A002 - wandb's own name
        self.name, self.type, self.files = name, type, []

    def add_file(self, path: str) -> None:
        self.files.append(path)


class FakeSettings(SimpleNamespace):
    model_fields = ("silent", "console", "init_timeout")


class FakeWandb(ModuleType):
    """As much of wandb as is used; `fails` holds the modes in which `init` raises, `logged_in` what `login` answers."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.Settings, self.Artifact = FakeSettings, FakeArtifact
        self.Video = lambda path: ("video", path)
        self.fails: set[str] = set()
        self.logged_in: Any = True
        self.inits: list[dict[str, Any]] = []
        self.logins: list[dict[str, Any]] = []
        self.torn_down = 0

    def setup(self, settings: Any) -> None:
        assert settings.silent

    def teardown(self) -> None:
        self.torn_down += 1

    def login(self, **arguments: Any) -> bool:
        self.logins.append(arguments)
        if isinstance(self.logged_in, Exception):
            raise self.logged_in
        return bool(self.logged_in)

    def init(self, **settings: Any) -> FakeRun:
        self.inits.append(settings)
        if settings["mode"] in self.fails:
            raise OSError("no route\nto host")
        return FakeRun(settings)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


def start(folder: Path, mode: str = "auto", run_id: str | None = None, **settings: Any) -> tuple[WandbRun, list[str]]:
    said: list[str] = []
    config = TrainConfig(wandb=mode, **settings)  # type: ignore[arg-type]
    return start_wandb(config, RunFolder(folder / "run"), run_id, {"parameters": 7}, said.append), said


class TestTheCurrentFolder:
    """W&B obeys `wandb/settings` in the current folder, which may be a run from a stranger."""

    @pytest.mark.parametrize("folder", ["wandb", ".wandb"])
    @pytest.mark.parametrize("section", ["default", "DEFAULT"])
    def test_settings_that_name_a_server_keep_it_off(self, tmp_path, wandb, monkeypatch, folder, section):
        monkeypatch.chdir(tmp_path)
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "settings").write_text(f"[{section}]\nbase_url = http://127.0.0.1:1\n")
        run, said = start(tmp_path)
        assert run.mode == "disabled"
        assert said[0].startswith(f"W&B is off: ConfigError: {folder}/settings in this folder sets 'base_url'")
        assert not wandb.inits
        assert not wandb.logins

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda file: file.write_bytes(b"\xff["), lambda file: None])
    def test_what_cannot_be_read_keeps_it_off(self, tmp_path, wandb, monkeypatch, make):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "wandb").mkdir()
        make(tmp_path / "wandb" / "settings")
        run, _ = start(tmp_path)
        assert run.mode == ("disabled" if (tmp_path / "wandb" / "settings").exists() else "online")
        run.finish()

    def test_what_wandb_init_writes_is_harmless(self, tmp_path, wandb, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "wandb").mkdir()
        (tmp_path / "wandb" / "settings").write_text(
            "[default]\nentity = me\nproject = rims\nmode = online\nbase_url = https://api.wandb.ai/\n"
        )
        run, _ = start(tmp_path)
        assert run.mode == "online"
        run.finish()


class TestMode:
    def test_auto_is_online_when_logged_in(self, tmp_path, wandb):
        run, said = start(tmp_path)
        assert run.mode == "online"
        assert said == [f"W&B: https://example.org/{run.id}"]
        run.finish()

    def test_auto_is_offline_without_a_login_and_says_how_to_upload(self, tmp_path, wandb):
        wandb.logged_in = False
        run, said = start(tmp_path)
        assert run.mode == "offline"
        assert said == [f"W&B is offline; upload this run later with: wandb sync {tmp_path}/run/wandb/offline-run-7"]
        run.finish()

    def test_asking_for_a_login_asks_neither_user_nor_server(self, tmp_path, wandb):
        start(tmp_path)[0].finish()
        assert wandb.logins == [{"prompt": False, "verify": False}]

    def test_a_login_that_is_broken_is_no_login(self, tmp_path, wandb, caplog):
        wandb.logged_in = ValueError("API key has 3 characters")
        with caplog.at_level(logging.WARNING):
            run, _ = start(tmp_path)
        assert run.mode == "offline"
        assert "API key has 3 characters" in caplog.text
        run.finish()

    def test_a_wandb_that_cannot_be_asked_without_a_prompt_is_asked_for_its_key(self, tmp_path, wandb):
        wandb.logged_in = TypeError("unexpected keyword argument 'prompt'")
        wandb.api = SimpleNamespace(api_key="key")
        run, _ = start(tmp_path)
        assert run.mode == "online"
        run.finish()

    @pytest.mark.parametrize(
        ("variable", "mode"), [("offline", "offline"), ("disabled", "disabled"), ("online", "online")]
    )
    def test_auto_obeys_the_environment(self, tmp_path, wandb, monkeypatch, variable, mode):
        monkeypatch.setenv("WANDB_MODE", variable)
        run, _ = start(tmp_path)
        assert run.mode == mode
        run.finish()

    @pytest.mark.parametrize("mode", ["online", "offline"])
    def test_an_explicit_mode_is_taken(self, tmp_path, wandb, monkeypatch, mode):
        monkeypatch.setenv("WANDB_MODE", "disabled")
        wandb.logged_in = False
        run, _ = start(tmp_path, mode)
        assert run.mode == mode
        run.finish()

    def test_disabled_does_not_even_import_it(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "wandb", None)
        run, said = start(tmp_path, "disabled")
        assert (run.mode, run.id, said) == ("disabled", None, [])
        assert not (tmp_path / "run").exists()

    def test_a_missing_wandb_is_one_line(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "wandb", None)
        run, said = start(tmp_path)
        assert run.mode == "disabled"
        assert len(said) == 1
        assert said[0].startswith("W&B is off: ModuleNotFoundError")


class TestUnreachable:
    def test_it_goes_on_offline_with_one_warning(self, tmp_path, wandb):
        wandb.fails = {"online"}
        run, said = start(tmp_path)
        assert run.mode == "offline"
        assert said[0] == "W&B cannot be reached, going on offline (OSError: no route to host)"
        assert [settings["mode"] for settings in wandb.inits] == ["online", "offline"]
        assert len({settings["id"] for settings in wandb.inits}) == 1
        assert wandb.torn_down == 1
        run.finish()

    def test_a_start_that_hangs_is_given_up(self, tmp_path, wandb, monkeypatch):
        monkeypatch.setattr(tracking, "INIT_SECONDS", 0.05)
        release = threading.Event()
        monkeypatch.setattr(wandb, "init", lambda **_: release.wait(30))
        run, said = start(tmp_path)
        release.set()
        assert run.mode == "disabled"
        assert [line.split(":")[0].split(" (")[0] for line in said] == [
            "W&B cannot be reached, going on offline", "W&B is off"
        ]  # fmt: skip

    def test_when_offline_fails_too_it_is_off(self, tmp_path, wandb):
        wandb.fails = {"online", "offline"}
        run, said = start(tmp_path)
        assert run.mode == "disabled"
        assert said[-1] == "W&B is off: OSError: no route to host"
        run.log({"a": 1}, 7)
        run.finish()


class TestSettings:
    def test_what_w_and_b_is_told(self, tmp_path, wandb):
        run, _ = start(tmp_path, wandb_tags=("mine", "rim"), config="atari", env="pong", wandb_entity="team")
        run.finish()
        told = wandb.inits[0]
        assert told["tags"] == ["pong", "rim", "nature", "atari", "mine"]
        assert (told["project"], told["entity"], told["name"]) == ("rims-rl", "team", "run")
        assert told["dir"] == str(tmp_path / "run")
        assert (told["config"]["env"], told["config"]["parameters"]) == ("pong", 7)
        assert vars(told["settings"]) == {"silent": True, "console": "off", "init_timeout": tracking.INIT_SECONDS}
        assert "sync_tensorboard" not in told
        assert "monitor_gym" not in told

    def test_a_resumed_run_keeps_its_id(self, tmp_path, wandb):
        run, _ = start(tmp_path, run_id="abc123")
        run.finish()
        assert run.id == "abc123"
        assert (wandb.inits[0]["id"], wandb.inits[0]["resume"]) == ("abc123", "allow")

    def test_two_new_runs_have_two_ids(self, tmp_path, wandb):
        ids = {start(tmp_path)[0].id for _ in range(2)}
        assert len(ids) == 2

    def test_a_tag_that_is_too_long_is_cut(self, tmp_path, wandb):
        start(tmp_path, wandb_tags=("x" * 99,))[0].finish()
        assert max(len(tag) for tag in wandb.inits[0]["tags"]) == 64


class TestLogging:
    def test_everything_arrives_in_order_before_the_end(self, tmp_path, wandb):
        run, _ = start(tmp_path)
        (tmp_path / "policy.json").write_text("{}")
        for step in range(7):
            run.log({"x": step}, step * 10)
        run.log_video(tmp_path / "a.mp4", "video", 70)
        run.log_artifact([tmp_path / "policy.json", tmp_path / "gone"], "policy")
        fake = run._run
        run.finish()
        assert fake.got[:7] == [({"x": step}, step * 10) for step in range(7)]
        assert fake.got[7] == ({"video": ("video", str(tmp_path / "a.mp4"))}, 70)
        artifact = fake.got[8]
        assert (artifact.name, artifact.type, artifact.files) == ("policy", "model", [str(tmp_path / "policy.json")])
        assert fake.got[9:] == ["finished"]

    def test_later_changes_of_the_values_are_not_logged(self, tmp_path, wandb):
        run, _ = start(tmp_path)
        values = {"x": 1}
        run.log(values, 0)
        values["x"] = 2
        fake = run._run
        run.finish()
        assert fake.got[0] == ({"x": 1}, 0)

    def test_sb3s_logger_sends_numbers_with_the_step(self, tmp_path, wandb):
        run, _ = start(tmp_path)
        logger = Logger(None, [WandbWriter(run)])
        logger.record("train/loss", 0.5)
        logger.record("train/name", "text")
        logger.record("train/hidden", 1, exclude="wandb")
        logger.dump(70)
        logger.close()
        fake = run._run
        run.finish()
        assert fake.got[0] == ({"train/loss": 0.5}, 70)

    def test_a_call_that_fails_is_said_once_and_the_next_ones_are_sent(self, tmp_path, wandb, caplog):
        run, _ = start(tmp_path)
        fake = run._run
        fake.log = lambda values, step: fake.got.append(1 / values["x"])
        with caplog.at_level(logging.WARNING):
            for value in (0, 0, 2):
                run.log({"x": value}, 0)
            run.finish()
        assert [record.message for record in caplog.records] == [
            "W&B: ZeroDivisionError: division by zero; training goes on"
        ]
        assert fake.got == [0.5, "finished"]

    def test_nothing_is_sent_after_the_end(self, tmp_path, wandb):
        run, _ = start(tmp_path)
        fake = run._run
        run.finish()
        run.log({"x": 1}, 0)
        run.finish()
        assert fake.got == ["finished"]

    def test_a_disabled_run_takes_everything(self, tmp_path):
        run = WandbRun()
        run.log({"x": 1}, 0)
        run.log_video(tmp_path / "a.mp4", "video", 0)
        run.log_artifact([], "policy")
        run.finish()
        assert (run.mode, run.id) == ("disabled", None)


class TestStuck:
    """A W&B that hangs for ever keeps nobody waiting."""

    @pytest.fixture
    def stuck(self, tmp_path, monkeypatch):
        release = threading.Event()
        fake = FakeRun({"id": "x", "dir": str(tmp_path)})
        fake.log = lambda values, step: release.wait(30)
        monkeypatch.setattr(tracking, "_MOST_WAITING", 5)
        run = WandbRun("online", fake, finish_seconds=0.05)
        yield run
        release.set()
        run._queue.put(None, timeout=30)
        run._thread.join(30)

    def test_logging_does_not_wait_and_the_loss_is_said_once(self, stuck, caplog):
        with caplog.at_level(logging.WARNING):
            for step in range(20):
                stuck.log({"x": step}, step)
        assert [record.message for record in caplog.records] == [
            "W&B: it does not keep up, and some values are lost; training goes on"
        ]

    def test_finishing_is_given_up(self, stuck, caplog):
        stuck.log({"x": 1}, 0)
        with caplog.at_level(logging.WARNING):
            stuck.finish()
        assert "W&B: it did not finish within 0.05 seconds" in caplog.text

    def test_finishing_with_a_full_queue_is_given_up(self, stuck, caplog):
        stuck.log({"x": 0}, 0)
        while not stuck._queue.empty():
            time.sleep(0.001)
        for step in range(1, 6):
            stuck.log({"x": step}, step)
        with caplog.at_level(logging.WARNING):
            stuck.finish()
        assert "W&B: it is stuck, and the run ends without it" in caplog.text


class TestTheRealThing:
    def test_an_offline_run_lies_in_the_runs_folder(self, tmp_path, capfd):
        run, said = start(tmp_path, "offline")
        run.log({"train/loss": 0.5}, 70)
        run.log_artifact([Path(__file__)], "policy")
        run.finish()
        assert run.mode == "offline"
        assert len(said) == 1
        data = list((tmp_path / "run").glob(f"wandb/offline-run-*/run-{run.id}.wandb"))
        assert len(data) == 1
        assert str(data[0].parent) in said[0]
        limit = time.monotonic() + 20  # W&B's own process writes the file, and may still be at it
        while b"train/loss" not in data[0].read_bytes() and time.monotonic() < limit:
            time.sleep(0.05)
        assert b"train/loss" in data[0].read_bytes()
        shown = capfd.readouterr()
        assert (shown.out, shown.err) == ("", "")
