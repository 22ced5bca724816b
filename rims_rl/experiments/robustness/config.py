"""The settings of `rims-rl robustness`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from rims_rl.config import Int, OptionalInt, OptionalPath, OptionalText
from rims_rl.envs.distractors.distractor import KINDS, SPLITS, Distractor, check_split
from rims_rl.errors import ConfigError
from rims_rl.validation import check_device, check_seed

_Names = Annotated[tuple[str, ...], arg(metavar="NAME ...")]
_LARGEST = 100_000
_MEASURED = ("runs", "kinds", "intensities", "splits", "variants", "test_envs")


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """Measure how well trained agents withstand distractors, variants of their game, or changed tasks."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]")] = ()
    """Folders of trained runs: several cores and seeds, several games if you like."""
    kinds: _Names = tuple(KINDS)
    """Kinds of distractors, on Atari; none for none."""
    intensities: Annotated[tuple[float, ...], arg(metavar="FLOAT ...")] = (0.25, 0.5, 1.0)
    """How strong they are, from 0 to 1."""
    splits: _Names = SPLITS
    """Looks and motions of the distractors: train, held-out, or both."""
    variants: _Names = ()
    """Variants of the Atari game, such as lazy_enemy or mode:1; only where all runs play games that have them."""
    test_envs: _Names = ()
    """Changed tasks, as Gymnasium ids, for runs on other environments; by default those that belong to the training's
    (rims_rl/PickObject-v0: -novel, -many, -novel-many)."""

    episodes: Int = 20
    """Games per run and condition."""
    seed: Int = 100_000
    """Seed of the games and of the sampled actions, the same for all runs and conditions."""
    checkpoint: OptionalText = None
    """Which weights: newest, best, final, or the number of a step; by default final, or newest while there is none."""
    deterministic: bool = False
    """Always take the likeliest action; otherwise actions are sampled."""
    max_episode_steps: OptionalInt = None
    """Cut games after this many steps; Atari: 27000 by default."""
    n_envs: Int = 10
    """Games that are played side by side in one process."""
    mechanism: bool = True
    """Also measure what happens inside the memory when a distractor appears in mid-game."""
    onset: Int = 100
    """Step of a game at which the distractor appears there."""
    window: Int = 100
    """Steps that are watched from then on."""

    workers: Int = 0
    """Processes that play side by side; 0: one per processor core."""
    output: OptionalPath = None
    """Folder of the report; by default runs/robustness_<time>."""
    resume: OptionalPath = None
    """Go on with the report in this folder: what was played stays, and runs, kinds and the like are added."""
    device: str = "cpu"
    """Where the networks run: cpu, cuda, cuda:1, auto."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "disabled"
    """Weights & Biases: one run with the table and the plots; auto is online when logged in, else offline."""
    wandb_project: str = "rims-rl"
    """W&B project."""
    wandb_entity: OptionalText = None
    """W&B user or team."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that cannot work."""
        if not self.runs:
            raise ConfigError("robustness needs the folder of at least one run")
        for name in ("episodes", "n_envs", "onset", "window"):
            if not 1 <= getattr(self, name) <= _LARGEST:
                raise ConfigError(f"{name} must be from 1 to {_LARGEST:,}, got {getattr(self, name)}")
        check_seed(self.seed)
        if self.workers < 0:
            raise ConfigError(f"workers must be at least 0, got {self.workers}")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ConfigError(f"max_episode_steps must be at least 1, got {self.max_episode_steps}")
        self._check_distractors()
        check_device(self.device)

    def joined_by(self, other: RobustnessConfig) -> RobustnessConfig:
        """Return the other settings with all that is measured here, too: a resume adds and never takes away."""
        both: dict[str, Any] = {
            name: tuple(dict.fromkeys((*getattr(self, name), *getattr(other, name)))) for name in _MEASURED
        }
        if len(both["kinds"]) > 1:
            both["kinds"] = tuple(kind for kind in both["kinds"] if kind != "none")
        return replace(other, **both)

    @property
    def kinds_shown(self) -> tuple[str, ...]:
        """The kinds, each once; empty for `none`."""
        return () if self.kinds == ("none",) else tuple(dict.fromkeys(self.kinds))

    def _check_distractors(self) -> None:
        for kind in self.kinds_shown:
            for intensity in self.intensities:
                Distractor(kind, intensity)
        for split in self.splits:
            check_split(split)
        if self.kinds_shown and not (self.intensities and self.splits):
            raise ConfigError("kinds of distractors need at least one intensity and one split")


FREE_TO_CHANGE = frozenset(
    {"resume", "mechanism", "workers", "device", "wandb", "wandb_project", "wandb_entity", *_MEASURED}
)
"""What a resumed report may be given: it adds to what is measured, or changes where it is, not how."""


def plain_settings(config: RobustnessConfig) -> dict[str, Any]:
    """Return the settings as YAML- and JSON-safe values, without `resume` and `output`."""
    plain = {name: value for name, value in asdict(config).items() if name not in ("resume", "output")}
    plain["runs"] = [str(run) for run in config.runs]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
