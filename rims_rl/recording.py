"""Videos of an episode: the game beside the activity of the memory's units."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from rims_rl.building import env_settings
from rims_rl.config import RecordConfig, TrainConfig
from rims_rl.drawing import HEIGHT, WIDTH, Image, Painter
from rims_rl.envs import is_atari, resolve_game
from rims_rl.envs.distractors.distractor import as_distractors
from rims_rl.errors import ConfigError, printable
from rims_rl.evaluation import CHANGES, View, check_spaces, evaluation_env, fewer_games_advised
from rims_rl.loading import load_agent, locate
from rims_rl.playback import Step, action_names, play
from rims_rl.runs import RunFolder, load_config
from rims_rl.storage.plain_files import UNFINISHED, check_only_files, expanded, write_whole
from rims_rl.validation import check_seed

if TYPE_CHECKING:
    from rims_rl.tracking import WandbRun

_log = logging.getLogger(__name__)
_VIDEO_STEPS = 1_000
_VIDEO_SEED = 100_000
_VIDEO_FPS = 15


class Recorded(NamedTuple):
    """What a video shows."""

    frames: int
    """Pictures, one per step."""
    score: float
    """Raw score when the film ends."""
    ended: bool
    """Whether the episode had ended by then."""


def record_run(config: RecordConfig) -> Recorded:
    """Film an episode of a run's agent and say where the video lies.

    Raises:
        ConfigError: for a folder without a run, settings that can't work, or when imageio-ffmpeg is missing.
        CheckpointError: when the weights can't be read.
    """
    _check(config)
    check_encoder()
    folder, which = locate(config.run, config.checkpoint)
    run = load_config(folder)
    agent = load_agent(folder, which, config.device, trust_pickle=config.trust_pickle)
    view = View(config.distractor, config.distractor_split, config.variant)
    path = expanded(config.output or folder.video_of(agent.name, config.seed, view.text))
    _check_target(path)
    if config.output is None:
        check_only_files(folder.path)
    env = film_env(run, config.seed, config.protocol, view)
    try:
        check_spaces(agent.policy, env)
        steps = play(agent.policy, env, config.seed, config.deterministic, action_names(run, config.protocol))
        painter = Painter(title_of(run), subtitle_of(run, agent.step), note_of(run, view))
        with fewer_games_advised(1):
            recorded = film(steps, painter, path, config.fps, config.max_steps, config.frame)
    finally:
        env.close()
    end = "the episode's end" if recorded.ended else "--max-steps"
    print(printable(f"{path}: {recorded.frames:,} steps up to {end}, score {recorded.score:,.0f}"))
    return recorded


def _check(config: RecordConfig) -> None:
    for name, count in (("max-steps", config.max_steps), ("fps", config.fps)):
        if count < 1:
            raise ConfigError(f"--{name} must be at least 1, got {count}")
    check_seed(config.seed, "--seed")
    if config.frame is not None:
        _check_target(expanded(config.frame), ".png")


def _check_target(path: Path, ending: str = ".mp4") -> None:
    if path.suffix.lower() != ending:
        raise ConfigError(f"{path} must end in {ending}")
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"{path} cannot be written: {folder} is no folder that can be written to")


def check_encoder() -> None:
    """Raise ConfigError when there is nothing to write videos with."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise ConfigError('videos need imageio-ffmpeg: pip install "rims-rl[video]"') from None


def film_env(run: TrainConfig, seed: int, protocol: str | None = None, view: View = View()) -> VecEnv:  # noqa: B008 - a NamedTuple does not change
    """Return one copy of the run's environment that can show its frames.

    Raises:
        ConfigError: when the environment has no picture to show.
    """
    if is_atari(run.env):
        return evaluation_env(run, 1, seed, protocol=protocol, route="gym", view=view)
    return evaluation_env(run, 1, seed, view=view, render_mode="rgb_array")


def title_of(run: TrainConfig) -> str:
    """Return the name of what is played, as one reads it."""
    if not is_atari(run.env):
        return run.env.removesuffix("-v0").removesuffix("-v1").replace("-", " ").replace("cartpole", "CartPole")
    return resolve_game(run.env).replace("_", " ").title()


def subtitle_of(run: TrainConfig, steps: int) -> str:
    """Return who plays: the memory and how long it was trained."""
    memory = f"{run.core.upper() if len(run.core) < 4 else run.core} memory"
    if run.core == "rim":
        from rims_rl.cores import core_config

        core = core_config("rim", run.core_kwargs)
        memory += f": {core.num_units} units, {core.active_units} active at a time"
    return f"{memory}  |  trained for {steps:,} steps"


def note_of(run: TrainConfig, view: View = View()) -> str:  # noqa: B008 - a NamedTuple does not change
    """Return what is changed about the game, as one reads it; empty for nothing."""
    seen = {**env_settings(run), **view.settings}
    distractors = as_distractors(seen.get("distractor"), seen.get("distractor_split"))
    names = [f"{'  +  '.join(f'{one.kind} {one.intensity:g}' for one in distractors)}"] if distractors else []
    names += sorted({f"split {one.split}" for one in distractors})
    return "   ".join([*names, *(f"{name} {seen[name]}" for name in CHANGES if seen.get(name) is not None)])


def film(
    steps: Iterator[Step], painter: Painter, path: Path, fps: int, max_steps: int, still: Path | None = None
) -> Recorded:
    """Write the steps as an mp4, one picture each, and the most telling picture as a PNG when `still` is given."""
    frames, score, done, best, most = 0, 0.0, False, None, -1
    with video_writer(path, fps) as writer:
        for step in steps:
            image = painter.paint(step.moment)
            writer.send(np.ascontiguousarray(image))
            frames, score, done = frames + 1, step.score, step.done
            if still is not None and painter.switches() >= most:
                best, most = image, painter.switches()
            if frames == max_steps:
                break
    if still is not None and best is not None:
        _write_png(expanded(still), best)
    return Recorded(frames, score, done)


def _write_png(path: Path, image: Image) -> None:
    _, encoded = cv2.imencode(".png", image[..., ::-1])
    try:
        write_whole(path, encoded.tobytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None


@contextmanager
def video_writer(path: Path, fps: int) -> Iterator[Generator[None, Any, None]]:
    """Yield a generator that takes pictures (720, 1280, 3); the file appears at `path` when all are in."""
    import imageio_ffmpeg

    with TemporaryDirectory(UNFINISHED, ".", path.parent) as folder:  # the encoder would follow a link at a known name
        beside = Path(folder) / path.name
        writer = imageio_ffmpeg.write_frames(str(beside), (WIDTH, HEIGHT), fps=fps, codec="libx264", quality=7)
        writer.send(None)
        try:
            yield writer
            writer.close()
            os.replace(beside, path)
        finally:
            writer.close()


class VideoCallback(BaseCallback):
    """Films an episode every so many steps, between two updates; training goes on the same with it or without."""

    def __init__(self, run: TrainConfig, folder: RunFolder, tracker: WandbRun, every_steps: int) -> None:
        super().__init__()
        self.run, self.folder, self.tracker, self.every_steps = run, folder, tracker, every_steps
        self._periods_done = 0

    def _on_training_start(self) -> None:
        self._periods_done = self.model.num_timesteps // self.every_steps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        periods = self.model.num_timesteps // self.every_steps
        if periods > self._periods_done and not getattr(self.model, "stop_requested", False):
            self._periods_done = periods
            self._film()

    def _film(self) -> None:
        """Write one video; what goes wrong with it is said, and training goes on."""
        step = self.model.num_timesteps
        path = self.folder.videos / f"step_{step:09d}.mp4"
        policy: Any = self.model.policy
        try:
            env = film_env(self.run, _VIDEO_SEED)
            try:
                painter = Painter(title_of(self.run), subtitle_of(self.run, step), note_of(self.run))
                steps = play(policy, env, _VIDEO_SEED, names=action_names(self.run))
                film(steps, painter, path, _VIDEO_FPS, _VIDEO_STEPS)
            finally:
                env.close()
        except (OSError, ConfigError) as error:
            _log.warning("no video at step %d: %s", step, " ".join(str(error).split()))
            return
        self.tracker.log_video(path, "video/episode", step)
