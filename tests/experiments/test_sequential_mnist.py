"""Sequential MNIST: pixels in order, digits that never mix, measures with known values, and trials from end to end."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rims_rl.errors import ConfigError
from rims_rl.experiments.experiment import Outcome
from rims_rl.experiments.presets import preset_names, preset_settings
from rims_rl.experiments.sequence_model import SequenceModel
from rims_rl.experiments.sequential_mnist.data import pixel_sequences, resize_nearest, shuffled, split
from rims_rl.experiments.sequential_mnist.experiment import (
    PAPER,
    SequentialMnist,
    SequentialMnistConfig,
    accuracy,
    class_scores,
)

TINY = SequentialMnistConfig(
    device="cpu", train_size=3, test_sizes=(4, 5), embedding_size=7, batch_size=5, learning_rate=0.02,
    rim={"num_units": 3, "active_units": 2, "unit_size": 5, "preset": "paper"},
)  # fmt: skip


def write_digits(folder: Path, stem: str, labels: np.ndarray) -> None:
    """Write digits whose image tells the class plainly: the first columns are white, three for each."""
    images = np.zeros((len(labels), 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, : 3 * label] = 255
    header = struct.pack(">4I", 2051, *images.shape)
    (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
    header = struct.pack(">2I", 2049, len(labels))
    (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + labels.astype(np.uint8).tobytes()))


@pytest.fixture
def data(tmp_path) -> Path:
    """Return a folder with 31 training digits and 23 test digits that are 0 or 9: black or almost white."""
    write_digits(tmp_path, "train", np.arange(31) % 2 * 9)
    write_digits(tmp_path, "t10k", np.arange(23) % 2 * 9)
    return tmp_path


def trial_of(data: Path, model: str = "rim", seed: int = 0, **settings):
    experiment = SequentialMnist(replace(TINY, data_dir=data, models=(model,), **settings))
    experiment.check()
    torch.manual_seed(seed)
    return experiment.trial(experiment.variants()[0], seed)


class TestPixels:
    def test_resizing_by_hand(self):
        image = torch.arange(16).reshape(1, 4, 4)
        assert resize_nearest(image, 2).tolist() == [[[0, 2], [8, 10]]]
        # floor(i * 4 / 3) is 0, 1, 2: the last row and column are left out.
        assert resize_nearest(image, 3).tolist() == [[[0, 1, 2], [4, 5, 6], [8, 9, 10]]]
        # floor(i * 4 / 5) is 0, 0, 1, 2, 3: the first row and column come twice.
        assert resize_nearest(image, 5)[0, :, 1].tolist() == [0, 0, 4, 8, 12]

    @pytest.mark.parametrize("size", [7, 10, 14, 16, 19, 24, 28, 31])
    def test_resizing_is_that_of_torch(self, size):
        images = torch.rand(3, 28, 28)
        expected = F.interpolate(images[:, None], size=(size, size), mode="nearest")[:, 0]
        assert torch.equal(resize_nearest(images, size), expected)

    def test_grey_is_rounded_at_a_half(self):
        images = np.zeros((5, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = [0, 1, 127, 128, 255]
        assert pixel_sequences(images, 14)[0].tolist() == [0, 0, 0, 1, 1]

    def test_pixels_are_read_row_by_row(self):
        images = np.zeros((2, 28, 28), dtype=np.uint8)
        images[0, 6, 10] = 255  # row 3, column 5 of 14
        images[1, 0, 26] = 255  # the end of the first row
        sequences = pixel_sequences(images, 14)
        assert sequences.shape == (196, 2)
        assert sequences[:, 0].nonzero().tolist() == [[3 * 14 + 5]]
        assert sequences[:, 1].nonzero().tolist() == [[13]]

    def test_rounding_comes_before_resizing_so_that_all_resolutions_show_the_same_pixels(self):
        images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
        small = pixel_sequences(images, 14).T.reshape(3, 14, 14)
        assert torch.equal(small, torch.from_numpy(images[:, ::2, ::2] >= 128).to(torch.uint8))


class TestSplit:
    def test_no_digit_is_in_both_and_none_is_lost(self):
        training, validation = split(103, None, 0.2)
        assert len(validation) == 21
        assert sorted([*training.tolist(), *validation.tolist()]) == list(range(103))

    def test_is_drawn_once(self):
        first, again = split(103, 41, 0.2), split(103, 41, 0.2)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
        assert len(first[0]) + len(first[1]) == 41

    def test_is_drawn_at_random(self):
        assert split(103, None, 0.2)[1].tolist() != list(range(21))
        assert not torch.equal(shuffled(53, "one"), shuffled(53, "other"))

    @pytest.mark.parametrize(
        ("count", "limit", "said"), [(10, 11, "digits is 11, but there are only 10"), (10, 1, "leave none")]
    )
    def test_too_few_digits_are_said(self, count, limit, said):
        with pytest.raises(ConfigError, match=said):
            split(count, limit, 0.2)


class TestMeasures:
    def test_perfection_is_a_hundred(self):
        labels = torch.arange(10).repeat(7)
        assert accuracy(F.one_hot(labels, 10).float(), labels) == 100.0

    def test_the_same_answer_always_is_chance(self):
        labels = torch.arange(10).repeat(7)
        scores = torch.zeros(70, 10)
        scores[:, 3] = 1
        assert accuracy(scores, labels) == 10.0

    def test_all_wrong_is_nothing(self):
        labels = torch.arange(10)
        assert accuracy(F.one_hot((labels + 1) % 10, 10).float(), labels) == 0.0

    def test_scores_do_not_depend_on_how_digits_are_batched(self, data, monkeypatch):
        model = trial_of(data).model
        pixels = torch.randint(2, (9, 11))
        whole = model.last(pixels)
        three_digits = 29  # of 9 pixels each
        monkeypatch.setattr("rims_rl.experiments.sequential_mnist.experiment._PIXELS_AT_ONCE", three_digits)
        torch.testing.assert_close(class_scores(model, pixels), whole, rtol=1e-5, atol=1e-6)

    def test_a_black_pixel_is_not_the_null_input(self, data):
        model = trial_of(data).model
        black = torch.zeros(9, 1, dtype=torch.long)
        null = model.write(model.core(torch.zeros(9, 1, 7), model.core.initial_state(1))[0][-1])
        assert not torch.allclose(model.last(black), null, atol=1e-3)


class TestTrainingData:
    def test_an_epoch_goes_once_through_the_training_digits(self, data):
        trial = trial_of(data)  # 25 of 31 digits are trained on, 5 at a time
        first, second = (torch.cat([trial._batch(5 * epoch + place) for place in range(5)]) for epoch in (0, 1))
        assert sorted(first.tolist()) == list(range(25))
        assert sorted(second.tolist()) == list(range(25))
        assert not torch.equal(first, second)

    def test_the_order_is_that_of_the_seed(self, data):
        assert torch.equal(trial_of(data, seed=2)._batch(7), trial_of(data, "lstm", seed=2)._batch(7))
        assert not torch.equal(trial_of(data, seed=2)._batch(7), trial_of(data, seed=3)._batch(7))

    def test_fewer_digits_than_a_batch_are_one_batch(self, data):
        assert sorted(trial_of(data, batch_size=64)._batch(1).tolist()) == list(range(25))

    def test_validation_digits_are_of_the_training_resolution_and_not_trained_on(self, data):
        labels = np.arange(31) % 10
        write_digits(data, "train", labels)
        trial = trial_of(data)
        training, validation = split(31, None, 0.2)
        assert trial.training.labels.tolist() == labels[training].tolist()
        assert trial.validation.labels.tolist() == labels[validation].tolist()
        assert trial.validation.pixels.shape == (9, 6)

    def test_test_digits_are_not_touched_before_the_test(self, data):
        trial = trial_of(data)
        for file in data.glob("t10k-*"):
            file.unlink()
        trial.update(0)
        trial.validate()
        with pytest.raises(ConfigError, match="test images"):
            trial.test()


class TestTrials:
    @pytest.mark.parametrize("model", ["rim", "lstm", "gru"])
    def test_black_and_white_digits_are_told_apart_at_every_resolution(self, data, model):
        trial = trial_of(data, model)
        assert trial.validate().keys() == {"accuracy", "validation_loss"}
        for step in range(60):
            figures = trial.update(step)
        assert figures["loss"] < 0.1
        with torch.no_grad():
            assert trial.validate()["accuracy"] == 100.0
            found = trial.test()
        assert [found.figures[f"accuracy_{size}"] for size in (3, 4, 5)] == [100.0, 100.0, 100.0]
        assert all(found.figures[f"loss_{size}"] < 0.5 for size in (3, 4, 5))

    def test_an_untrained_model_is_near_the_loss_of_guessing(self, data):
        assert abs(trial_of(data).validate()["validation_loss"] - np.log(10)) < 0.5

    def test_the_test_shows_who_was_active(self, data):
        with torch.no_grad():
            arrays = trial_of(data).test().arrays
        assert arrays["shown_labels"].tolist() == [0, 9]
        assert arrays["shown_pixels"].tolist() == [[0, 1]] * 9
        assert arrays["shown_taken_for"].shape == (2,)
        assert arrays["shown_active"].shape == (9, 2, 3)
        assert arrays["shown_active"].sum(dim=2).eq(2).all()

    def test_a_core_without_units_shows_none(self, data):
        with torch.no_grad():
            assert "shown_active" not in trial_of(data, "lstm").test().arrays

    def test_fewer_test_digits_can_be_asked_for(self, data):
        with torch.no_grad():
            figures = trial_of(data, test_digits=1).test().figures
        assert figures["accuracy_3"] in (0.0, 100.0)

    def test_an_update_depends_on_weights_and_step_alone(self, data):
        one, other = trial_of(data), trial_of(data)
        one.update(3)
        one.model.load_state_dict(other.model.state_dict())
        assert one.update(4)["loss"] == other.update(4)["loss"]

    @pytest.mark.parametrize("model", ["rim", "lstm"])
    def test_half_way_weights_and_optimizer_are_all_that_the_second_half_needs(self, data, model):
        whole, half, rest = (trial_of(data, model) for _ in range(3))
        for step in range(8):  # 5 updates are an epoch: the interruption lies within one
            whole.update(step)
        for step in range(3):
            half.update(step)
        rest.model.load_state_dict(half.model.state_dict())
        rest.optimizers["adam"].load_state_dict(half.optimizers["adam"].state_dict())
        for step in range(3, 8):
            rest.update(step)
        expected, found = whole.model.state_dict(), rest.model.state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"train_size": 1}, "at least 2"),
            ({"test_sizes": (16, 14)}, "must differ"),
            ({"test_sizes": (16, 16)}, "must differ"),
            ({"digits": 0}, "digits must be at least 1"),
            ({"test_digits": 0}, "test_digits must be at least 1"),
            ({"embedding_size": 0}, "embedding_size must be at least 1"),
            ({"validation_share": 1.0}, "validation_share must lie between 0 and 1"),
            ({"validation_share": float("nan")}, "validation_share"),
            ({"dropout": 1.0}, "dropout must lie in"),
            ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ],
    )
    def test_what_cannot_work_is_said_in_one_line(self, settings, said):
        with pytest.raises(ConfigError, match=said):
            SequentialMnistConfig(**settings).check()

    def test_missing_digits_are_said_before_anything_is_trained(self, tmp_path):
        with pytest.raises(ConfigError, match="train-images-idx3-ubyte"):
            SequentialMnist(replace(TINY, data_dir=tmp_path)).check()

    def test_a_missing_test_set_is_said_before_anything_is_trained(self, tmp_path):
        write_digits(tmp_path, "train", np.arange(31) % 10)
        with pytest.raises(ConfigError, match="t10k-images-idx3-ubyte"):
            SequentialMnist(replace(TINY, data_dir=tmp_path)).check()

    @pytest.mark.parametrize("name", ["small", "paper"])
    def test_the_presets_work(self, name):
        config = preset_settings("sequential-mnist", name, SequentialMnistConfig)
        config.check()
        assert preset_names("sequential-mnist") == ["paper", "small"]

    def test_the_papers_preset_has_the_papers_sizes(self):
        config = preset_settings("sequential-mnist", "paper", SequentialMnistConfig)
        experiment = SequentialMnist(config)
        assert config.sizes == (14, 16, 19, 24)
        for variant in experiment.variants():
            experiment.check_variant(variant)


class TestTable:
    def test_a_column_per_resolution_with_the_papers_numbers(self):
        columns = SequentialMnist(SequentialMnistConfig(match="width")).columns
        assert [column.key for column in columns] == ["accuracy_14", "accuracy_16", "accuracy_19", "accuracy_24"]
        assert all(column.higher_is_better for column in columns)
        assert columns[0].paper == {}
        assert [column.paper["rim"] for column in columns[1:]] == ["90.0", "73.4", "38.1"]

    def test_the_papers_numbers_do_not_stand_beside_another_resolution_or_size(self):
        for others in (SequentialMnistConfig(match="width", train_size=10), SequentialMnistConfig()):
            assert all(column.paper == {} for column in SequentialMnist(others).columns)

    def test_the_columns_are_what_the_test_finds(self, data):
        trial = trial_of(data)
        columns = SequentialMnist(trial.config).columns
        with torch.no_grad():
            assert {column.key for column in columns} <= trial.test().figures.keys()

    def test_the_caption_says_on_what_was_trained(self):
        config = replace(TINY, digits=1000, validation_share=0.1)
        caption = SequentialMnist(config).caption
        assert "trained at 3x3 (1,000 digits of the training set, 10 % of them for validation" in caption


class TestPlots:
    def outcome(self, variant: str, seed: int, trial=None) -> Outcome:
        figures = {f"accuracy_{n}": 90.0 - 20 * place - seed for place, n in enumerate((14, 16, 19, 24))}
        arrays = {}
        if trial is not None:
            with torch.no_grad():
                arrays = trial.test().arrays
        return Outcome(variant, seed, 1, 1, 1, "finished", 1.0, figures=figures, arrays=arrays)

    def test_accuracy_and_activity_are_drawn(self, data, tmp_path):
        experiment = SequentialMnist(SequentialMnistConfig())
        failed = Outcome("lstm", 1, ended="failed: loss")
        outcomes = [self.outcome("rim", 0, trial_of(data)), self.outcome("rim", 1), self.outcome("lstm", 0), failed]
        files = experiment.draw(outcomes, tmp_path / "plots")
        assert [file.name for file in files] == ["accuracy_by_resolution.png", "activity_rim_seed_0.png"]
        assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)

    def test_nothing_is_drawn_where_everything_failed(self, tmp_path):
        failed = Outcome("lstm", 1, ended="failed: loss")
        assert SequentialMnist(SequentialMnistConfig()).draw([failed], tmp_path) == []


class TestPaper:
    def test_a_rim_and_an_lstm_stand_in_every_column(self):
        assert all({"rim", "lstm"} <= numbers.keys() for numbers in PAPER.values())


def test_the_model_is_an_embedding_a_core_and_a_linear_map(data):
    model = trial_of(data, "lstm").model
    assert isinstance(model, SequenceModel)
    assert isinstance(model.read, nn.Embedding)
    assert model.read.weight.shape == (2, 7)
    assert model.write.out_features == 10
