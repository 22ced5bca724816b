"""The settings of each command: flat, frozen dataclasses whose field docstrings are the `--help` texts.

In rising order of precedence, a training setting comes from the defaults below, the preset (`rims_rl.presets`) or the
command line. Names follow rl-zoo's where the meaning is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from rims_rl.errors import ConfigError, shortened

Scalar = bool | int | float | str | None
_LARGEST = 1e38  # that float32 holds


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
        key, _, value = text.partition(":")
        if not (key and value):
            raise ConfigError(f"{text!r} is not of the form key:value")
        pairs[key.replace("-", "_")] = parse_scalar(value)
    return pairs


def parse_count(text: str) -> int:
    """Read a whole number that may be written as 10_000_000 or 1e7.

    Raises:
        ConfigError: when `text` is no whole number.
    """
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        raise ConfigError(f"{text!r} is not a whole number such as 30000, 30_000 or 3e4") from None
    if not number.is_integer():
        raise ConfigError(f"{text!r} is not a whole number")
    return int(number)


_PAIRS: PrimitiveConstructorSpec[dict[str, Any]] = PrimitiveConstructorSpec(
    nargs="*",
    metavar="KEY:VALUE ...",
    instance_from_str=parse_pairs,
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda pairs: [f"{key}:{value}" for key, value in pairs.items()],
)
_INT: PrimitiveConstructorSpec[int] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="INT",
    instance_from_str=lambda texts: parse_count(texts[0]),
    is_instance=lambda value: isinstance(value, int),
    str_from_instance=lambda count: [str(count)],
)
_INTS: PrimitiveConstructorSpec[tuple[int, ...]] = PrimitiveConstructorSpec(
    nargs="*",
    metavar="INT ...",
    instance_from_str=lambda texts: tuple(parse_count(text) for text in texts),
    is_instance=lambda value: isinstance(value, tuple) and all(isinstance(item, int) for item in value),
    str_from_instance=lambda counts: [str(count) for count in counts],
)
_INT_OR_NONE: PrimitiveConstructorSpec[int | None] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="INT",
    instance_from_str=lambda texts: None if texts[0].lower() == "none" else parse_count(texts[0]),
    is_instance=lambda value: value is None or isinstance(value, int),
    str_from_instance=lambda count: [str(count)],
)
_TEXT_OR_NONE: PrimitiveConstructorSpec[str | None] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="STR",
    instance_from_str=lambda texts: None if texts[0].lower() == "none" else texts[0],
    is_instance=lambda value: value is None or isinstance(value, str),
    str_from_instance=lambda text: [str(text)],
)
Pairs = Annotated[dict[str, Any], _PAIRS, arg(help_behavior_hint=lambda shown: f"(default: {shown or 'none'})")]
Int = Annotated[int, _INT]
Counts = Annotated[tuple[int, ...], _INTS]
OptionalInt = Annotated[int | None, _INT_OR_NONE]
TextOrNone = Annotated[str | None, _TEXT_OR_NONE]
Schedule = Annotated[str | float, arg(metavar="FLOAT|lin_FLOAT")]
OptionalText = Annotated[str | None, arg(metavar="STR")]
OptionalFloat = Annotated[float | None, arg(metavar="FLOAT")]
OptionalPath = Annotated[Path | None, arg(metavar="PATH")]


AS_TRAINED = "trained"
"""Distractors of an evaluation: those of the training."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a recurrent PPO agent; every option has a sensible default, and a preset (--config) sets many at once."""

    config: OptionalText = None
    """Preset to start from: a name that `rims-rl configs` lists, or the path of a YAML file."""
    env: str = "pong"
    """Atari game in any spelling (pong, ALE/Pong-v5, PongNoFrameskip-v4), or a Gymnasium id."""
    total_timesteps: Annotated[Int, arg(aliases=["-n"])] = 10_000_000
    """Environment steps of the whole run, over all copies and what a resumed run has done included."""
    seed: Int = 0
    """Seed of the weights, the environments and every random choice."""
    output: OptionalPath = None
    """Folder of this run; by default runs/<env>_<core>_<seed>_<time>."""
    name: OptionalText = None
    """Name of the run: its folder becomes runs/<name>, and W&B shows it."""
    resume: OptionalPath = None
    """Go on with the run in this folder, from its newest good checkpoint."""

    core: str = "rim"
    """Memory of the agent: rim, lstm, gru, or another of `rims-rl cores`."""
    core_kwargs: Pairs = field(default_factory=dict)
    """Settings of the core, e.g. num_units:6 active_units:4 cell:gru; added to the preset's for the same core."""
    core_parameters: OptionalInt = None
    """Choose the core's width so that it has about this many parameters, to compare cores of equal size."""
    encoder: OptionalText = None
    """Network before the core: nature (a CNN to one vector) or nature-slots (to 49 places); by default, what fits."""
    encoder_kwargs: Pairs = field(default_factory=dict)
    """Settings of the encoder, as KEY:VALUE pairs."""
    encoder_precision: Literal["float32", "bfloat16"] = "float32"
    """What the encoder computes in: bfloat16 is faster on processors and GPUs that have it, a little less exact."""
    bptt_length: OptionalInt = None
    """Steps that gradients flow back through time; divides n_steps. Default: n_steps."""
    reset_memory_on_life_loss: bool = False
    """Wipe the memory when a life is lost, too; otherwise only at the real end of an episode."""

    n_envs: Int = 8
    """Copies of the environment that are played side by side."""
    n_steps: Int = 128
    """Steps per copy between two updates."""
    batch_size: Int = 256
    """Steps per minibatch: a whole number of bptt_length chunks that divides n_envs x n_steps."""
    n_epochs: Int = 4
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
    most_skipped: Int = 10
    """Minibatches in a row that are left out when their loss or gradient is not finite; one more ends the run."""
    halve_on_oom: bool = False
    """Once memory runs out in an update, work minibatches through in halves, quarters, ... with the same gradient."""

    protocol: Literal["nature", "machado"] = "nature"
    """Atari: nature (no sticky actions, a lost life ends the return, few actions) or machado (sticky 0.25, all 18)."""
    route: Literal["vector", "gym"] = "vector"
    """Atari: vector (fast, in C++; resume is approximate) or gym (one environment per copy; resume is exact)."""
    frame_stack: Int = 4
    """Atari: frames per observation."""
    distractor: TextOrNone = None
    """What disturbs the agent's sight: kind:intensity, joined by +, e.g. balls:0.5+noise:0.2; none by default."""
    distractor_split: Annotated[Literal["train", "held-out"] | None, arg(metavar="{train,held-out}")] = None
    """From which half of their looks and motions distractors are drawn; the halves share nothing. Default: train."""
    subprocess: bool = False
    """Run each copy in a watched process of its own, which is replaced when it dies or hangs; not on route vector."""
    step_timeout: OptionalFloat = 60.0
    """Seconds without an answer after which such a process counts as hanging; none: never."""
    env_restarts: Int = 3
    """How often the process of each copy may be replaced; 0: the first fault ends the run."""
    env_kwargs: Pairs = field(default_factory=dict)
    """Further settings of the environment, e.g. mode:1 difficulty:0 for Atari's game variants."""

    save_freq: Int = 100_000
    """Steps between checkpoints; 0 saves only at the end and on a signal."""
    keep_checkpoints: Int = 3
    """Newest checkpoints that are kept; the best one stays as well."""
    eval_freq: Int = 0
    """Steps between evaluations during training; 0 for none."""
    eval_episodes: Int = 5
    """Episodes per evaluation during training."""
    video_freq: Int = 0
    """Steps between videos of an episode; 0 for none."""
    log_interval: Int = 10
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
    torch_threads: Int = 0
    """CPU threads for PyTorch; 0 leaves its default."""
    profile: bool = False
    """Print at the end where the run's time went: environment, inference, encoder, core, and so on."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Play full games with a trained agent and report raw scores."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, or a model.zip in it."""
    episodes: Int = 10
    """Games to play; each copy of the environment plays its fixed share, so that short games are not favoured."""
    seed: Int = 100_000
    """Seed of the games and of the sampled actions; training used seeds near its own."""
    checkpoint: OptionalText = None
    """Which weights: newest, best, final, or the number of a step; by default final, or newest while there is none."""
    trust_pickle: bool = False
    """Allow a model.zip of Stable-Baselines3, whose loading runs whatever code whoever made it put in."""
    deterministic: bool = False
    """Always take the likeliest action; otherwise actions are sampled, as is usual on Atari."""
    protocol: Annotated[Literal["nature", "machado"] | None, arg(metavar="{nature,machado}")] = None
    """Atari: rules of the games; by default those of the training."""
    distractor: str = AS_TRAINED
    """What disturbs the agent's sight: kind:intensity, joined by +; trained: what did in training; none: nothing."""
    distractor_split: Annotated[Literal["train", "held-out"] | None, arg(metavar="{train,held-out}")] = None
    """Looks and motions of the distractors: those of the training, or others; by default as they were given."""
    variant: OptionalText = None
    """Atari: a variant of the game, e.g. lazy_enemy or mode:1; none: the game itself; by default as trained."""
    route: Annotated[Literal["vector", "gym"] | None, arg(metavar="{vector,gym}")] = None
    """Atari: how the games are run; by default as in training."""
    n_envs: Int = 8
    """Games that are played side by side."""
    max_episode_steps: OptionalInt = None
    """Cut games after so many steps and count them as truncated. Default: 27000 on Atari, else 100000 or its own."""
    max_minutes: OptionalFloat = None
    """Stop after so many minutes: games that go on then are cut and count as truncated. Default: never."""
    json: OptionalPath = None
    """File for the result; by default evaluation[_<distractor>].json in the run's folder."""
    device: str = "cpu"
    """Where the networks run: cpu, cuda, cuda:1, auto."""


@dataclass(frozen=True)
class RecordConfig:
    """Film one episode of a trained agent beside the activity of its memory's units."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, or a model.zip in it."""
    output: OptionalPath = None
    """Video file (.mp4); by default videos/<checkpoint>_<seed>[_<distractor>].mp4 in the run's folder."""
    frame: OptionalPath = None
    """Also write one telling frame to this PNG file."""
    seed: Int = 100_000
    """Seed of the episode and of the sampled actions."""
    checkpoint: OptionalText = None
    """Which weights: newest, best, final, or the number of a step; by default final, or newest while there is none."""
    trust_pickle: bool = False
    """Allow a model.zip of Stable-Baselines3, whose loading runs whatever code whoever made it put in."""
    deterministic: bool = False
    """Always take the likeliest action; otherwise actions are sampled."""
    protocol: Annotated[Literal["nature", "machado"] | None, arg(metavar="{nature,machado}")] = None
    """Atari: rules of the game; by default those of the training."""
    distractor: str = AS_TRAINED
    """What disturbs the agent's sight: kind:intensity, joined by +; trained: what did in training; none: nothing."""
    distractor_split: Annotated[Literal["train", "held-out"] | None, arg(metavar="{train,held-out}")] = None
    """Looks and motions of the distractors: those of the training, or others; by default as they were given."""
    variant: OptionalText = None
    """Atari: a variant of the game, e.g. lazy_enemy or mode:1; none: the game itself; by default as trained."""
    max_steps: Int = 2_000
    """Stop filming after this many steps."""
    fps: Int = 15
    """Frames per second; Atari's real speed is 15 steps per second."""
    device: str = "cpu"
    """Where the networks run: cpu, cuda, cuda:1, auto."""


@dataclass(frozen=True)
class ConfigsConfig:
    """List the presets, or print the resolved settings of one."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None
    """A preset's name, or the path of a YAML file; by default all presets are listed."""


@dataclass(frozen=True)
class CoresConfig:
    """List the cores with their papers and sizes, or the settings of one."""

    name: Annotated[Positional[str | None], arg(metavar="[NAME]")] = None
    """A core's name; by default all cores are listed."""
    input_size: Int = 512
    """Size of the input vector that parameters are counted for."""
    parameters: OptionalInt = None
    """Show each core at the size that comes nearest to this many parameters; by default at its own."""


@dataclass(frozen=True)
class PlotConfig:
    """Draw learning curves of runs of one environment: each, and the mean of those that differ in their seeds alone."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]")]
    """Folders of the runs."""
    output: Annotated[Path, arg(metavar="PATH")] = Path("learning-curves.png")
    """Picture to write: .png, .svg or .pdf."""


FIELD_NAMES: tuple[str, ...] = tuple(entry.name for entry in fields(TrainConfig))

# What may differ between the parts of a resumed run: it changes how far and where the run goes, not what is learned.
RESUMABLE: frozenset[str] = frozenset(
    {"resume", "total_timesteps", "device", "torch_threads", "profile", "verbose", "log_interval", "save_freq"}
    | {"keep_checkpoints", "eval_freq", "eval_episodes", "video_freq", "most_skipped", "halve_on_oom"}
    | {"subprocess", "step_timeout", "env_restarts"}
    | {"wandb", "wandb_project", "wandb_entity", "wandb_tags"}
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
        raise ConfigError(f"{name} must be a number or lin_<number>, got {shortened(text)}") from None
    if not 0 < start < _LARGEST:
        raise ConfigError(f"{name} must be positive and finite, got {shortened(text)[1:-1]}")
    return start, text.startswith("lin_")
