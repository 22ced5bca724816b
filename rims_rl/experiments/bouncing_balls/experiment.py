"""Bouncing balls: predict the next picture, then many of them alone; other numbers of balls, and balls that hide.

Goyal et al. 2021, section 4.2 and appendix D.4: a network is trained to predict the next picture of four balls, or of
six to eight, from the true ones. In the test it sees 15 pictures and then goes on from its own predictions: with as
many balls as in training, with another number, and behind a curtain. Appendix D.5: only a part of the box is seen, and
one step is predicted for 1 to 6 balls. Weights are chosen by one-step predictions of the training's own kind.

Axes: T time, B batch, H rows, C columns, K units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rims_rl.config import Int
from rims_rl.errors import ConfigError
from rims_rl.experiments.bouncing_balls.data import Purpose, Sequences, make_sequences
from rims_rl.experiments.bouncing_balls.drawing import draw_balls
from rims_rl.experiments.bouncing_balls.network import FEATURES, FramePredictor
from rims_rl.experiments.bouncing_balls.scores import Baselines, Tally, fit_baselines, scores, tally
from rims_rl.experiments.config import ExperimentConfig
from rims_rl.experiments.experiment import Column, Experiment, Outcome
from rims_rl.experiments.trial import Findings, Trial, descend
from rims_rl.experiments.variants import Variant, build_core

CROPS = tuple(f"crops-{balls}" for balls in range(1, 7))
TITLES = {"4": "4 balls", "678": "6-8 balls", "curtain": "curtain"} | {
    name: f"{name[-1]} ball{'s' if name[-1] != '1' else ''}" for name in CROPS
}
"""What tables and plots call the test sets."""
EARLY = 10
"""Steps of a roll-out that are also looked at by themselves: later ones are hardly to be known."""
FILMED = 4
"""Sequences per test set of which the predictions are kept."""
_BASELINE_SEQUENCES = 256


@dataclass(frozen=True, kw_only=True)
class BouncingBallsConfig(ExperimentConfig):
    """Predict the next picture of bouncing balls, then many pictures alone."""

    train_on: Literal["4", "678", "crops"] = "4"
    """What is trained on: 4 balls or 6 to 8, tested on both and behind a curtain; or crops of 3 balls around a fixed
    one, tested on 1 to 6 (then --frame-size 48 --length 100, as in the paper)."""
    train_sequences: Int = 50_000
    """Sequences that are trained on."""
    validation_sequences: Int = 1_000
    """Sequences of the same kind by which the best weights are chosen."""
    test_sequences: Int = 10_000
    """Sequences per test set."""
    length: Int = 51
    """Pictures of a sequence in training."""
    context: Int = 15
    """Pictures that are seen before a roll-out."""
    roll_out: Int = 35
    """Pictures that are predicted alone."""
    frame_size: Int = 64
    """Rows and columns of a picture, a multiple of 8."""
    channels: Int = 16
    """Channels of the first convolution; the second has twice, the third four times as many."""

    batch_size: Int = 64
    """Sequences per update."""
    updates: Int = 78_100
    """Updates of a trial, at most; the paper's 100 epochs."""
    learning_rate: float = 7e-4
    """Adam's step size."""

    def check(self) -> None:
        """Raise ConfigError, in one line, for the first setting that cannot work."""
        super().check()
        self.require_at_least(1, "train_sequences", "validation_sequences", "test_sequences")
        self.require_at_least(1, "context", "roll_out", "channels")
        if self.frame_size < 8 or self.frame_size % 8:
            raise ConfigError(f"frame_size must be a multiple of 8, got {self.frame_size}")
        if self.length < self.context + self.roll_out:
            needed = self.context + self.roll_out
            raise ConfigError(f"length must be at least context + roll_out = {needed}, got {self.length}")

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of the scenes that are tested on."""
        return CROPS if self.train_on == "crops" else ("4", "678", "curtain")


class BouncingBallsTrial(Trial):
    """One model that learns to predict pictures."""

    watched = "cross_entropy"

    def __init__(self, config: BouncingBallsConfig, variant: Variant) -> None:
        self.config = config
        self.device = torch.device(config.device)
        core = build_core(variant, FEATURES, config)
        self.model = FramePredictor(core, config.frame_size, config.channels).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        super().__init__({"model": self.model}, {"adam": self.optimizer})

    def update(self, step: int) -> dict[str, float]:
        """Learn from some sequences drawn at random; the loss is logged in nats per picture, as all figures are."""
        train = self._sequences(self.config.train_on, "train")
        pictures = self._pictures(train, torch.randint(train.total, (self.config.batch_size,)))
        logits, _ = self.model(pictures[:-1])
        loss = F.binary_cross_entropy_with_logits(logits, pictures[1:])
        pixels = pictures.shape[2] * pictures.shape[3]
        return {"loss": pixels * descend(loss, self.optimizer, self.config.max_grad_norm)}

    def validate(self) -> dict[str, float]:
        """Return the figures of one-step predictions on held-out sequences of the kind that is trained on."""
        total: Tally | None = None
        for pictures in self._batches(self._sequences(self.config.train_on, "validation")):
            total = tally(self.model(pictures[:-1])[0], pictures[1:]).plus(total)
        assert total is not None
        return {name: float(value) for name, value in scores(total.over()).items()}

    def test(self) -> Findings:
        """Return figures of one-step predictions and of roll-outs on every test set, the baselines' too, and films."""
        figures: dict[str, float] = {}
        arrays: dict[str, Tensor] = {}
        baselines = self._baselines()
        for name in self.config.test_sets:
            sequences = self._sequences(name, "test")
            for who, total in self._tallies(sequences, baselines).items():
                figures |= _figures(f"{name}/{who}", total)
                arrays |= {f"{name}/{who}/{figure}": curve for figure, curve in scores(total).items()}
            arrays |= {f"{name}/{key}": array for key, array in self._film(sequences).items()}
        return Findings(figures, arrays)

    def _tallies(self, sequences: Sequences, baselines: Baselines) -> dict[str, Tally]:
        """Compare model and baselines with a test set: one step ahead over whole sequences, and in roll-outs."""
        totals: dict[str, Tally] = {}
        for pictures in self._batches(sequences):
            for name, (logits, truth) in self._predictions(pictures, baselines).items():
                totals[name] = tally(logits, truth).plus(totals.get(name))
        return totals

    def _predictions(self, pictures: Tensor, baselines: Baselines) -> dict[str, tuple[Tensor, Tensor]]:
        """Return logits and what came, by who predicts and how far, for pictures (T, B, H, C)."""
        context, steps = self.config.context, self.config.roll_out
        before, after = pictures[:-1], pictures[1:]
        seen, later = pictures[:context], pictures[context : context + steps]
        return {
            "one_step": (self.model(before)[0], after),
            "one_step_copy": (baselines.copied(before.flatten(0, 1), 1)[0].view_as(after), after),
            "roll_out": (self.model.roll_out(seen, steps)[-steps:], later),
            "roll_out_copy": (baselines.copied(seen[-1], steps), later),
            "roll_out_mean": (baselines.constant(later), later),
        }

    def _baselines(self) -> Baselines:
        """Fit the baselines to what is trained on."""
        train = self._sequences(self.config.train_on, "train")
        pictures = train.pictures(torch.arange(min(train.total, _BASELINE_SEQUENCES)), self.config.frame_size)
        return fit_baselines(pictures, self.config.context, self.config.roll_out)

    def _film(self, sequences: Sequences) -> dict[str, Tensor]:
        """Return truth and prediction of a few sequences, (T, B, H, C) of bytes, and who was active in the first."""
        context, steps = self.config.context, self.config.roll_out
        pictures = self._pictures(sequences, torch.arange(min(FILMED, sequences.total)))[: context + steps]
        predicted = self.model.roll_out(pictures[:context], steps).sigmoid()
        predicted = torch.cat([torch.zeros_like(predicted[:1]), predicted])  # nothing predicts the first
        found = {"truth": pictures, "predicted": predicted}
        film = {name: (255 * shown).round().to(torch.uint8).cpu() for name, shown in found.items()}
        active = self.model.activity(torch.cat([pictures[:context], predicted[context:]]))
        return film if active is None else film | {"active": active[:, 0].cpu()}

    def _sequences(self, name: str, purpose: Purpose) -> Sequences:
        config = self.config
        counts = {
            "train": config.train_sequences, "validation": config.validation_sequences, "test": config.test_sequences,
        }  # fmt: skip
        return make_sequences(name, purpose, counts[purpose], config.length)

    def _batches(self, sequences: Sequences) -> Iterator[Tensor]:
        """Yield the pictures (T, B, H, C) of all sequences, a batch at a time."""
        for first in range(0, sequences.total, self.config.batch_size):
            last = min(first + self.config.batch_size, sequences.total)
            yield self._pictures(sequences, torch.arange(first, last))

    def _pictures(self, sequences: Sequences, which: Tensor) -> Tensor:
        return sequences.pictures(which, self.config.frame_size).to(self.device)


def _figures(name: str, total: Tally) -> dict[str, float]:
    """Return the figures over all steps by name, of a roll-out also those over the first few."""
    found = {f"{name}/{figure}": float(value) for figure, value in scores(total.over()).items()}
    if "roll_out" in name and len(total.pictures) > EARLY:
        early = scores(total.over(EARLY))
        found |= {f"{name}/{figure}_{EARLY}": float(value) for figure, value in early.items()}
    return found


class BouncingBalls(Experiment[BouncingBallsConfig]):
    """Prediction of bouncing balls."""

    name = "bouncing-balls"
    config_class = BouncingBallsConfig
    trial_class = BouncingBallsTrial

    @property
    def input_size(self) -> int:
        """Size of the encoder's vectors."""
        return FEATURES

    def trial(self, variant: Variant, seed: int) -> BouncingBallsTrial:
        """Return a fresh trial."""
        return BouncingBallsTrial(self.config, variant)

    @property
    def columns(self) -> Sequence[Column]:
        """Cross entropy of the roll-outs, early and whole; for crops balanced accuracy and F1 one step ahead."""
        known = self.config.train_on
        columns = (
            [] if known == "crops" else [Column(f"{known}/one_step/cross_entropy", f"{TITLES[known]}: one step", 1)]
        )
        for name in self.config.test_sets:
            title = TITLES[name]
            if self.config.train_on == "crops":
                accuracy = f"{name}/one_step/balanced_accuracy"
                columns.append(Column(accuracy, f"{title}: bal. acc. %", 2, higher_is_better=True))
                columns.append(Column(f"{name}/one_step/f1", f"{title}: F1 %", 2, higher_is_better=True))
                continue
            if self.config.roll_out > EARLY:
                columns.append(Column(f"{name}/roll_out/cross_entropy_{EARLY}", f"{title}: first {EARLY}", 1))
            columns.append(Column(f"{name}/roll_out/cross_entropy", f"{title}: all {self.config.roll_out}", 1))
        return columns

    @property
    def caption(self) -> str:
        """What the table shows."""
        config = self.config
        if config.train_on == "crops":
            return (
                "Trained on crops of 3 balls around a fixed one. Balanced accuracy and F1 of white pixels, one step "
                "ahead, for 1 to 6 balls."
            )
        return (
            f"Trained on {TITLES[config.train_on]}, {config.frame_size}x{config.frame_size} pixels. Cross entropy in "
            "nats per picture (lower is better): one step ahead from true pictures, and mean over the first steps and "
            f"over all {config.roll_out} of a roll-out after {config.context} true pictures. (last picture): copying "
            "it, with the probability that serves best in training. The paper gives plots only."
        )

    def references(self, outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
        """Return what the last picture seen and the mean picture achieve, which every trial measures alike."""
        figures = outcomes[0].figures
        copied = {key.replace("_copy/", "/"): value for key, value in figures.items() if "_copy/" in key}
        mean = {key.replace("_mean/", "/"): value for key, value in figures.items() if "_mean/" in key}
        return {"(last picture)": copied} | ({"(mean picture)": mean} if mean else {})

    def draw(self, outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
        """Draw errors over the steps, film strips, videos and the units' activity."""
        titles = {name: TITLES[name] for name in self.config.test_sets}
        return draw_balls(outcomes, titles, self.config.context, folder)
