"""The inverse mechanisms: data, the rules of the game in a trial, and a whole trial interrupted half way."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rims_rl.errors import ConfigError, UnknownNameError
from rims_rl.experiments.experiment import Outcome
from rims_rl.experiments.inverse_mechanisms.competition import make_expert
from rims_rl.experiments.inverse_mechanisms.experiment import InverseMechanisms, InverseMechanismsConfig, parse_way
from rims_rl.experiments.inverse_mechanisms.figures import mosaic
from rims_rl.experiments.inverse_mechanisms.transformations import TRANSFORMATIONS
from rims_rl.experiments.inverse_mechanisms.trial import InverseMechanismsTrial, split_digits
from rims_rl.experiments.loop import TrialFolder, read_outcome, run_trial
from rims_rl.experiments.mnist import Digits
from rims_rl.experiments.trial import seed_all

TINY = InverseMechanismsConfig(
    transformations=("left", "inversion"), experts=3, filters=2, discriminator_filters=2, discriminator_hidden=5,
    validation_digits=7, test_digits=11, updates=4, batch_size=5, eval_freq=2, identity_updates=3, classifier_updates=2,
    device="cpu",
)  # fmt: skip


def digits(count, seed=0):
    """Return bright rectangles whose place depends on the class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = np.zeros((count, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[6 + label : 12 + label, 6:20] = generator.integers(100, 255)
    return Digits(images, labels.astype(np.int64))


def make_trial(config=TINY, way="experts", seed=0):
    seed_all(seed, "weights")
    images = split_digits(digits(47), config)
    return InverseMechanismsTrial(config, parse_way(way, config.experts), images, lambda: digits(11, 1))


def weights_of(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def changed(module, before):
    return any(not torch.equal(parameter, old) for parameter, old in zip(module.parameters(), before, strict=True))


class TestTheHalves:
    def test_no_digit_is_both_canonical_and_transformed_or_in_validation(self):
        counted = Digits(np.zeros((47, 28, 28), np.uint8), np.arange(47) % 10)
        counted.images[:, 3, 5] = np.arange(47)
        images = split_digits(counted, TINY)
        seen = [(255 * part[:, 0, 5, 7]).round().int().tolist() for part in images[:3]]
        assert seen == [list(range(20)), list(range(20, 40)), list(range(40, 47))]

    def test_labels_go_with_their_digits(self):
        images = split_digits(digits(47), TINY)
        assert images.labels.tolist() == [n % 10 for n in range(40)]
        assert images.validation_labels.tolist() == [n % 10 for n in range(40, 47)]

    def test_fewer_digits_are_the_first_ones(self):
        images = split_digits(digits(47), replace(TINY, digits=18))
        assert [len(part) for part in images] == [5, 5, 7, 7, 10]
        assert images.validation_labels.tolist() == [n % 10 for n in range(11, 18)]

    def test_each_digit_always_goes_through_the_same_transformation(self):
        trial = make_trial()
        torch.manual_seed(0)
        drawn = torch.cat([trial._changed() for _ in range(20)])
        left = TRANSFORMATIONS["left"](trial.images.others[0::2])
        inverted = TRANSFORMATIONS["inversion"](trial.images.others[1::2])
        allowed = {image.numpy().tobytes() for image in torch.cat([left, inverted])}
        assert {image.numpy().tobytes() for image in drawn} <= allowed

    def test_too_few_digits_are_refused(self):
        with pytest.raises(ConfigError, match="47 digits are too few for digits=48"):
            split_digits(digits(47), replace(TINY, digits=48))
        with pytest.raises(ConfigError, match="too few"):
            split_digits(digits(47), replace(TINY, validation_digits=45))


class TestWinnerTakesAll:
    def test_only_experts_that_win_change_their_weights(self):
        trial = make_trial()
        before = [weights_of(expert) for expert in trial.experts]
        images = trial._changed()
        outputs = [expert(images) for expert in trial.experts]
        trial._teach_winners(outputs, torch.tensor([2, 2, 0, 2, 2]))
        assert [changed(expert, old) for expert, old in zip(trial.experts, before, strict=True)] == [True, False, True]

    def test_teaching_the_experts_leaves_the_discriminator_alone(self):
        trial = make_trial()
        before = weights_of(trial.discriminator)
        images = trial._changed()
        trial._teach_winners([expert(images) for expert in trial.experts], torch.tensor([0, 1, 2, 1, 0]))
        assert not changed(trial.discriminator, before)

    def test_a_winner_learns_from_its_own_images_alone(self):
        # Without batch norm an expert is a function of one image, so that what it did not win cannot matter.
        steps = []
        for rest in (0.0, 1.0):
            trial = make_trial()
            images = torch.full((5, 1, 32, 32), rest)
            images[1] = trial.images.canonical[3]
            trial.experts.eval()
            trial._teach_winners([expert(images) for expert in trial.experts], torch.tensor([0, 1, 0, 0, 0]))
            steps.append([weights_of(trial.experts[number]) for number in (0, 1)])
        others = [torch.equal(a, b) for a, b in zip(steps[0][0], steps[1][0], strict=True)]
        own = [torch.equal(a, b) for a, b in zip(steps[0][1], steps[1][1], strict=True)]
        assert all(own)
        assert not all(others)

    def test_the_expert_with_the_highest_score_is_the_one_that_learns(self):
        trial = make_trial()
        with torch.no_grad():  # the first expert paints white, which this discriminator likes; the others black
            for expert, bias in zip(trial.experts, (30.0, -30.0, -30.0), strict=True):
                expert[-2].bias.fill_(bias)
            for parameter in trial.discriminator.parameters():
                parameter.abs_()
        before = [weights_of(expert) for expert in trial.experts]
        trial.update(0)
        moved = [changed(expert, old) for expert, old in zip(trial.experts, before, strict=True)]
        assert moved[1:] == [False, False]

    def test_a_better_score_is_what_a_winner_gains(self):
        trial = make_trial(replace(TINY, learning_rate=1e-3))
        images = trial._changed()
        losses = [
            trial._teach_winners([expert(images) for expert in trial.experts], torch.zeros(5, dtype=torch.long))
            for _ in range(10)
        ]
        assert losses[-1] < losses[0]


class TestIdentityStart:
    def test_it_ends_when_the_error_is_small_enough(self):
        trial = make_trial(replace(TINY, identity_error=0.2, identity_updates=200, filters=4))
        assert trial.identity_error < 0.2

    def test_it_is_bounded(self):
        trial = make_trial(replace(TINY, identity_error=1e-9))
        assert trial.identity_error > 1e-9

    def test_it_brings_experts_nearer_to_what_they_are_given(self):
        images = split_digits(digits(47), TINY).others
        errors = []
        for updates in (1, 100):
            trial = make_trial(replace(TINY, experts=1, identity_updates=updates, identity_error=1e-9))
            with torch.no_grad():
                errors.append(float((trial.experts[0](images) - images).square().mean()))
        assert errors[1] < 0.5 * errors[0]

    def test_without_it_experts_stay_as_they_were_drawn(self):
        trial = make_trial(way="no-identity")
        assert np.isnan(trial.identity_error)
        seed_all(0, "weights")
        assert not changed(trial.experts[0], weights_of(make_expert(2)))


class TestJudge:
    def test_the_classifier_is_the_same_for_all_seeds_and_learns_nothing_more(self):
        one, other = make_trial(seed=0), make_trial(seed=1)
        assert not changed(one.classifier, weights_of(other.classifier))
        before = weights_of(one.classifier)
        one.update(0)
        assert not changed(one.classifier, before)

    def test_experts_that_do_nothing_undo_nothing(self):
        trial = make_trial()
        trial.experts = torch.nn.ModuleList([torch.nn.Identity() for _ in range(3)])
        with torch.no_grad():
            figures = trial.validate()
        assert figures["digits_undone"] == 0
        assert figures["accuracy_after"] == figures["accuracy_before"]
        assert figures["told_apart"] == pytest.approx(1)
        assert figures["own_experts"] == 0

    def test_perfect_inverses_give_the_figures_of_perfection(self):
        trial = make_trial()
        trial.experts = torch.nn.ModuleList([Right(), Inverse(), torch.nn.Identity()])
        trial.discriminator = Corner()
        with torch.no_grad():
            trial.validate()
            found = trial.test()
        assert found.figures["own_experts"] == 2
        assert found.figures["perfect"] == 100
        assert found.figures["purity"] == 100
        assert found.figures["digits_undone"] == found.figures["letters_undone"] == 100
        assert found.figures["letters_same_expert"] == 100
        assert found.figures["accuracy_after"] == found.figures["accuracy_clean"]
        assert found.arrays["assignment"].tolist() == [[1, 0, 0], [0, 1, 0]]


class Right(torch.nn.Module):
    def forward(self, images):
        return TRANSFORMATIONS["right"](images)


class Inverse(torch.nn.Module):
    def forward(self, images):
        return 1 - images


class Corner(torch.nn.Module):
    """Scores an image by how dark its margin is, and how well its mass is in the middle."""

    def forward(self, images):
        columns = images.sum(dim=(1, 2))
        centre = (columns * torch.arange(32.0)).sum(dim=1) / columns.sum(dim=1)
        return -10 * images[:, 0, 0].mean(dim=1) - (centre - 15).abs() / 2


class TestWays:
    @pytest.mark.parametrize(
        ("name", "experts", "identity"),
        [("experts", 3, True), ("no-identity", 3, False), ("one-net", 1, True), ("16-experts", 16, True)],
    )
    def test_a_name_says_how_many_compete_and_how_they_start(self, name, experts, identity):
        assert parse_way(name, 3).settings == {"experts": experts, "identity": identity}

    def test_an_unknown_way_is_refused_with_the_known_ones(self):
        with pytest.raises(UnknownNameError, match="unknown model 'expert'; did you mean 'experts'"):
            InverseMechanisms(replace(TINY, models=("expert",))).variants()

    def test_a_way_named_twice_is_refused(self):
        with pytest.raises(ConfigError, match="each once, got experts experts"):
            InverseMechanisms(replace(TINY, models=("experts", "experts"))).variants()


class TestSettings:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"experts": 0}, "experts must be at least 1, got 0"),
            ({"digits": 0}, "digits must be at least 1, got 0"),
            ({"identity_error": 0.0}, "identity_error must be positive"),
            ({"transformations": ("lef",)}, "unknown transformation 'lef'; did you mean 'left'"),
            ({"transformations": ("left", "left")}, "transformations must be given, each once"),
            ({"transformations": ()}, "transformations must be given, each once"),
        ],
    )
    def test_what_cannot_work_is_refused_in_one_line(self, wrong, message):
        with pytest.raises(ConfigError, match=message) as caught:
            replace(TINY, **wrong).check()
        assert "\n" not in str(caught.value)

    def test_missing_data_is_refused_before_anything_is_made(self, tmp_path):
        with pytest.raises(ConfigError, match="is no folder"):
            InverseMechanisms(replace(TINY, data_dir=tmp_path / "none")).check()


class Stopper:
    """Says stop before a certain question."""

    def __init__(self, after):
        self.left = after

    def __call__(self):
        self.left -= 1
        return self.left < 0


class TestTrial:
    def run(self, folder, stopped=lambda: False):
        return run_trial(make_trial, Outcome("experts", 0), TINY, TrialFolder(folder), lambda *_: None, stopped)

    def test_a_resumed_trial_equals_an_uninterrupted_one(self, tmp_path):
        whole = self.run(tmp_path / "whole")
        assert self.run(tmp_path / "parts", Stopper(3)) is None
        resumed = self.run(tmp_path / "parts")
        assert resumed.figures == whole.figures
        assert resumed.rows == whole.rows
        assert resumed.arrays.keys() == whole.arrays.keys()
        for name, array in whole.arrays.items():
            assert torch.equal(array, resumed.arrays[name]), name

    def test_the_result_has_all_columns_and_the_assignment_over_training(self, tmp_path):
        self.run(tmp_path)
        outcome = read_outcome(TrialFolder(tmp_path), "experts", 0)
        assert all(column.key in outcome.figures for column in InverseMechanisms(TINY).columns)
        assert outcome.arrays["validated"].tolist() == [0, 2, 4]
        assert outcome.arrays["assignments"].shape == (3, 2, 3)
        assert torch.allclose(outcome.arrays["assignments"].sum(dim=2), torch.ones(3, 2, dtype=torch.double))

    def test_its_plots_are_drawn(self, tmp_path):
        pytest.importorskip("matplotlib")
        outcome = self.run(tmp_path)
        files = InverseMechanisms(TINY).draw([outcome, replace(outcome, figures={})], tmp_path / "plots")
        assert [file.name for file in files] == [
            "accuracy.png", "assignment_experts_seed0.png", "pictures_experts_seed0.png",
        ]  # fmt: skip
        assert all(file.stat().st_size > 5_000 for file in files)


class TestMosaic:
    def test_each_image_lies_where_its_transformation_and_sample_say(self):
        clean = np.full((2, 3, 3), 0.1)
        given = np.arange(4.0).reshape(2, 2, 1, 1) * np.ones((1, 1, 3, 3)) / 10 + 0.2
        picture = mosaic(clean, given, given + 0.5)
        assert picture.shape == (18, 13)
        assert picture[0, 0] == 0.1
        assert picture[10, 5] == pytest.approx(given[0, 1, 0, 0])  # second sample, first transformation
        assert picture[15, 10] == pytest.approx(given[1, 1, 0, 0] + 0.5)
        assert picture[5, 0] == picture[3, 3] == 1  # nothing made of the clean image; the gap
