"""The settings of a training run: one flat, frozen dataclass whose field docstrings are the `--help` texts.

A setting comes from, in rising order of precedence: the defaults below, the preset (`rims_rl.presets`), the command line.
Names follow rl-zoo's where the meaning is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from rims_rl.errors import ConfigError

Scalar = bool | int | float | str | None


def parse_scalar(text: str) -> Scalar:
    """Return the number, boolean or null that `text` spells, else the text itself; nothing is evaluated."""
    words: dict[str, Scalar] = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def parse_pairs(texts: Iterable[str]) -> dict[str, Any]:
    """Read `key:value` texts (one or more per text, separated by blanks or commas) into a dictionary of scalars."""
    pairs: dict[str, Any] = {}
    for text in " ".join(texts).replace(",", " ").split():
        key, colon, value = text.partition(":")
        if not (key and colon):
            raise ConfigError(f"{text!r} is not of the form key:value")
        pairs[key.replace("-", "_")] = parse_scalar(value)
    return pairs


_PAIRS: PrimitiveConstructorSpec[dict[str, Any]] = PrimitiveConstructorSpec(
    nargs="*",
    metavar="KEY:VALUE ...",
    instance_from_str=parse_pairs,
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda pairs: [f"{key}:{value}" for key, value in pairs.items()],
)
Pairs = Annotated[dict[str, Any], _PAIRS]
Schedule = Annotated[str | float, arg(metavar="FLOAT|lin_FLOAT")]
OptionalText = Annotated[str | None, arg(metavar="STR")]
OptionalInt = Annotated[int | None, arg(metavar="INT")]
OptionalFloat = Annotated[float | None, arg(metavar="FLOAT")]
OptionalPath = Annotated[Path | None, arg(metavar="PATH")]


@dataclass(frozen=True)
class TrainConfig:
    """Train a recurrent PPO agent; every option has a sensible default, and a preset (--config) sets many at once."""

    config: OptionalText = None
    """Preset to start from: a name that `rims-rl configs` lists, or the path of a YAML file."""
    env: str = "pong"
    """Atari game in any spelling (pong, ALE/Pong-v5, PongNoFrameskip-v4), or a Gymnasium id."""
    total_timesteps: Annotated[int, arg(aliases=["-n"])] = 10_000_000
    """Environment steps of the whole run, over all copies and before any resume (Atari: one step is 4 frames)."""
    seed: int = 0
    """Seed of the weights, the environments and every random choice."""
    output: OptionalPath = None
    """Folder of this run; by default runs/<env>_<core>_<seed>_<time>."""
    name: OptionalText = None
    """Name of the run: its folder becomes runs/<name>, and W&B shows it."""
    resume: OptionalPath = None
    """Go on with the run in this folder, from its newest good checkpoint."""

    core: str = "rim"
    """Memory of the agent: rim, lstm, gru, feedforward, or another registered core."""
    core_kwargs: Pairs = field(default_factory=dict)
    """Settings of the core, e.g. num_units:6 active_units:4 unit_size:85 cell:gru."""
    encoder: OptionalText = None
    """What turns observations into the core's inputs: nature (one vector) or nature-slots (49 places); default: by observation."""
    encoder_kwargs: Pairs = field(default_factory=dict)
    """Settings of the encoder, as KEY:VALUE pairs."""
    bptt_length: OptionalInt = None
    """Steps that gradients flow back through time; divides n_steps. Default: n_steps."""
    reset_memory_on_life_loss: bool = False
    """Wipe the memory when a life is lost, too; otherwise only at the real end of an episode."""

    n_envs: int = 8
    """Copies of the environment that are played side by side."""
    n_steps: int = 128
    """Steps per copy between two updates."""
    batch_size: int = 256
    """Steps per minibatch: a whole number of bptt_length chunks that divides n_envs x n_steps."""
    n_epochs: int = 4
    """Passes over the collected steps per update."""
    learning_rate: Schedule = "lin_2.5e-4"
    """Adam's step size; lin_2.5e-4 falls linearly from 2.5e-4 to 0 over the run."""
    clip_range: Schedule = "lin_0.1"
    """PPO's clipping of the probability ratio; lin_0.1 falls linearly to 0."""
    clip_range_vf: OptionalFloat = None
    """Clipping of the value's change; none by default."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Bias-variance trade of the generalised advantage."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Gradient norm above which gradients are scaled down."""
    normalize_advantage: bool = True
    """Normalise advantages within each minibatch."""
    target_kl: OptionalFloat = None
    """Stop an update's epochs early when the policy has moved this far; none by default."""

    protocol: Literal["nature", "machado"] = "nature"
    """Atari: nature (no sticky actions, a lost life ends the return, minimal actions) or machado (sticky 0.25, all actions)."""
    route: Literal["vector", "gym"] = "vector"
    """Atari: vector (fast, in C++; resume is approximate) or gym (one environment per copy; resume is exact)."""
    frame_stack: int = 4
    """Atari: frames per observation."""
    env_kwargs: Pairs = field(default_factory=dict)
    """Further settings of the environment, e.g. mode:1 difficulty:0 for Atari's game variants."""

    save_freq: int = 100_000
    """Steps between checkpoints; 0 saves only at the end and on a signal."""
    keep_checkpoints: int = 3
    """Newest checkpoints that are kept; the best one stays as well."""
    eval_freq: int = 0
    """Steps between evaluations during training; 0 for none."""
    eval_episodes: int = 5
    """Episodes per evaluation during training."""
    video_freq: int = 0
    """Steps between videos of an episode; 0 for none."""
    log_interval: int = 10
    """Updates between two tables, and two rows of progress.csv."""
    verbose: Literal[0, 1] = 1
    """1 shows progress and tables, 0 only what matters."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases: auto is online when logged in, else offline."""
    wandb_project: str = "rims-rl"
    """W&B project."""
    wandb_entity: OptionalText = None
    """W&B user or team."""
    wandb_tags: Annotated[tuple[str, ...], arg(metavar="TAG ...")] = ()
    """Tags beside those for environment, core, protocol and preset."""

    device: str = "auto"
    """Where the networks run: auto (cuda when present), cpu, cuda, cuda:1, ..."""
    torch_threads: int = 0
    """CPU threads for PyTorch; 0 leaves its default."""


FIELD_NAMES: tuple[str, ...] = tuple(entry.name for entry in fields(TrainConfig))

# What may differ between the two parts of a resumed run: it changes how far and where the run goes, not what is learned.
RESUMABLE: frozenset[str] = frozenset(
    {"resume", "total_timesteps", "device", "torch_threads", "verbose", "log_interval", "save_freq", "keep_checkpoints"}
    | {"eval_freq", "eval_episodes", "video_freq", "wandb", "wandb_project", "wandb_entity", "wandb_tags"}
)


def as_plain(config: TrainConfig) -> dict[str, Any]:
    """Return the settings as YAML- and JSON-safe values: paths become texts, tuples become lists."""
    plain = {name: value for name, value in asdict(config).items() if name != "resume"}
    plain["output"] = str(config.output) if config.output else None
    plain["wandb_tags"] = list(config.wandb_tags)
    return plain


def parse_schedule(name: str, value: str | float) -> tuple[float, bool]:
    """Return (start value, whether it falls linearly to 0) of a setting such as `lin_2.5e-4` or 3e-4.

    Raises:
        ConfigError: when the value is neither, or not a positive finite number.
    """
    text = str(value)
    try:
        start = float(text.removeprefix("lin_"))
    except ValueError:
        raise ConfigError(f"{name} must be a number or lin_<number>, got {text!r}") from None
    if not 0 < start < float("inf"):
        raise ConfigError(f"{name} must be positive and finite, got {text}")
    return start, text.startswith("lin_")
