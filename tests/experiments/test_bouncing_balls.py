"""Bouncing balls: pictures from paths, closed-loop roll-outs, scores of known value, and a tiny run end to end."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rims_rl.cores import make_core
from rims_rl.envs.bouncing_balls import scene, window
from rims_rl.errors import ConfigError
from rims_rl.experiments.bouncing_balls import experiment as bouncing_balls
from rims_rl.experiments.bouncing_balls.data import make_sequences
from rims_rl.experiments.bouncing_balls.drawing import draw_balls, film_frames
from rims_rl.experiments.bouncing_balls.experiment import BouncingBalls, BouncingBallsConfig, BouncingBallsTrial
from rims_rl.experiments.bouncing_balls.network import FramePredictor, ResizeConvolution
from rims_rl.experiments.bouncing_balls.scores import fit_baselines, scores, tally
from rims_rl.experiments.experiment import Outcome
from rims_rl.experiments.trial import seed_all
from rims_rl.experiments.variants import parse_variant
from tests.experiments.resuming import assert_resumed_equals_uninterrupted

TINY = BouncingBallsConfig(
    device="cpu", frame_size=16, channels=2, length=9, context=4, roll_out=5, train_sequences=11,
    validation_sequences=5, test_sequences=7, batch_size=3, updates=4, eval_freq=2,
    rim={"num_units": 3, "active_units": 2, "unit_size": 5, "preset": "paper"},
)  # fmt: skip


def tiny_model(core: str = "rim") -> FramePredictor:
    torch.manual_seed(0)
    settings = {"num_units": 3, "active_units": 2, "unit_size": 5} if core == "rim" else {}
    model = FramePredictor(make_core(core, 7, **settings), 16, 2).eval()
    for parameter in model.parameters():  # as far from the initial weights that hardly react to what they read
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def some_pictures(length: int, batch: int = 2) -> Tensor:
    return make_sequences("4", "test", 5, length).pictures(torch.arange(batch), 16)


def tiny_trial(config: BouncingBallsConfig = TINY, model: str = "rim") -> BouncingBallsTrial:
    seed_all(0, "weights")
    trial = BouncingBallsTrial(config, parse_variant(model, config))
    trial.model.eval()
    return trial


def tiny_outcome(model: str = "rim", config: BouncingBallsConfig = TINY, seed: int = 0) -> Outcome:
    with torch.no_grad():
        found = tiny_trial(config, model).test()
    return Outcome(model, seed, figures=found.figures, arrays=found.arrays)


class TestData:
    def test_pixels_are_black_or_white_and_balls_move(self):
        pictures = make_sequences("4", "train", 5, 13).pictures(torch.tensor([4, 1]), 32)
        assert pictures.shape == (13, 2, 32, 32)
        assert set(pictures.unique().tolist()) == {0.0, 1.0}
        assert (pictures[0] != pictures[-1]).any()

    def test_a_sequence_is_the_same_in_any_batch(self):
        sequences = make_sequences("678", "train", 5, 3)
        torch.testing.assert_close(
            sequences.pictures(torch.tensor([3]), 32)[:, 0], sequences.pictures(torch.arange(5), 32)[:, 3]
        )

    def test_white_is_the_area_of_the_balls(self):
        sequences = make_sequences("4", "train", 5, 3)
        white = sequences.pictures(torch.arange(5), 128).mean(dim=(2, 3))
        np.testing.assert_allclose(white[0], np.pi * (sequences.radii**2).sum(1), rtol=0.03)

    def test_what_is_asked_for_again_is_the_same_and_purposes_differ(self):
        one = make_sequences("4", "train", 5, 3).positions
        make_sequences.cache_clear()
        np.testing.assert_array_equal(make_sequences("4", "train", 5, 3).positions, one)
        assert not np.isin(make_sequences("4", "validation", 5, 3).positions, one).any()
        assert not np.isin(make_sequences("4", "test", 5, 3).positions, one).any()

    def test_curtains_hide_what_is_behind_them_and_nothing_else(self):
        sequences = make_sequences("curtain", "test", 17, 5)
        shown = sequences.pictures(torch.arange(17), 32)
        bare = sequences._replace(curtains=np.zeros_like(sequences.curtains)).pictures(torch.arange(17), 32)
        middle = (torch.arange(32) + 0.5) / 32
        left, top, right, bottom = torch.from_numpy(sequences.curtains).T[..., None]
        rows, columns = (middle >= top) & (middle < bottom), (middle >= left) & (middle < right)
        hidden = rows[:, :, None] & columns[:, None, :]
        torch.testing.assert_close(shown, bare * ~hidden)
        assert (bare * hidden).sum() > 0

    def test_crops_show_the_middle(self):
        assert window(scene("crops"), 48).scale == 64
        pictures = make_sequences("crops-6", "test", 3, 5).pictures(torch.arange(3), 48)
        assert (pictures[:, :, 21:27, 21:27] == 1).all()


class TestNetwork:
    def test_the_folded_convolution_is_the_enlarged_one(self):
        torch.manual_seed(0)
        layer, images = ResizeConvolution(3, 5), torch.randn(2, 3, 7, 4)
        large = F.pad(F.interpolate(images, scale_factor=2.0, mode="nearest"), (1, 2, 1, 2))
        wanted = F.conv2d(large, layer.kernel.weight, layer.kernel.bias)
        torch.testing.assert_close(layer(images), wanted, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("core", ["rim", "lstm"])
    def test_a_picture_is_predicted_after_each_and_from_no_later_one(self, core):
        model, pictures = tiny_model(core), some_pictures(6)
        logits = model(pictures)[0]
        assert logits.shape == pictures.shape
        torch.testing.assert_close(model(pictures[:4])[0], logits[:4])

    def test_the_state_carries_on(self):
        model, pictures = tiny_model(), some_pictures(6)
        _, state = model(pictures[:4])
        torch.testing.assert_close(model(pictures[4:], state)[0], model(pictures)[0][4:])

    def test_sequences_of_a_batch_do_not_see_each_other(self):
        model, pictures = tiny_model(), some_pictures(6, batch=5)
        torch.testing.assert_close(model(pictures[:, 3:4])[0], model(pictures)[0][:, 3:4], atol=1e-5, rtol=1e-5)

    def test_every_parameter_learns(self):
        model = tiny_model().train()
        model(some_pictures(6))[0].square().sum().backward()
        assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


class TestRollOut:
    def test_it_reads_its_own_predictions_as_probabilities(self):
        model, seen = tiny_model(), some_pictures(4)
        predicted = model.roll_out(seen, 5)
        assert predicted.shape == (8, 2, 16, 16)
        read = torch.cat([seen, predicted[3:-1].sigmoid()])  # true pictures 0 to 3, predictions of 4 to 7
        torch.testing.assert_close(model(read)[0], predicted)

    def test_its_first_step_is_the_one_step_prediction(self):
        model, pictures = tiny_model(), some_pictures(9)
        torch.testing.assert_close(model.roll_out(pictures[:4], 5)[3], model(pictures)[0][3])

    def test_what_comes_after_the_context_changes_nothing_and_the_last_seen_picture_does(self):
        trial, pictures = tiny_trial(), some_pictures(9)
        trial.model = tiny_model()
        baselines = trial._baselines()
        later, last = pictures.clone(), pictures.clone()
        later[4:] = 1 - later[4:]
        last[3] = 1 - last[3]
        found, with_later, with_last = (trial._predictions(p, baselines) for p in (pictures, later, last))
        for name in ("roll_out", "roll_out_copy", "roll_out_mean"):
            torch.testing.assert_close(with_later[name][0], found[name][0])
        assert not torch.allclose(with_later["one_step"][0], found["one_step"][0])
        assert not torch.allclose(with_last["roll_out"][0], found["roll_out"][0])

    def test_predictions_are_compared_with_the_pictures_that_they_are_of(self):
        trial, pictures = tiny_trial(), torch.arange(9.0).view(9, 1, 1, 1).expand(9, 2, 16, 16)
        found = trial._predictions(pictures, trial._baselines())
        assert found["one_step"][1][:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
        assert found["roll_out"][1][:, 0, 0, 0].tolist() == [4, 5, 6, 7, 8]
        for name, (logits, truth) in found.items():
            assert logits.shape == truth.shape, name


class TestScores:
    def test_perfect_predictions_cost_nothing(self):
        pictures = some_pictures(5)
        found = scores(tally(200 * (pictures - 0.5), pictures).over())
        assert found["cross_entropy"].item() == pytest.approx(0.0, abs=1e-9)
        assert found["squared_error"].item() == pytest.approx(0.0, abs=1e-9)
        assert found["f1"].item() == 100
        assert found["balanced_accuracy"].item() == 100

    def test_a_coin_for_every_pixel_costs_ln_2_each(self):
        pictures = some_pictures(5)
        found = scores(tally(torch.zeros_like(pictures), pictures))
        torch.testing.assert_close(found["cross_entropy"], torch.full((5,), 256 * math.log(2)).double())
        torch.testing.assert_close(found["squared_error"], torch.full((5,), 256 * 0.25).double())

    def test_shares_are_as_counted_by_hand(self):
        # Of 3 white pixels 2 are found, of 5 black ones 1 is taken for white: F1 = 4 / (4 + 1 + 1), shares 2/3 and 4/5.
        truth = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0.0]).view(1, 1, 2, 4)
        logits = torch.tensor([1, 1, -1, 1, -1, -1, -1, -1.0]).view(1, 1, 2, 4)
        found = scores(tally(logits, truth))
        assert found["f1"].item() == pytest.approx(100 * 4 / 6)
        assert found["balanced_accuracy"].item() == pytest.approx(100 * (2 / 3 + 4 / 5) / 2)

    def test_parts_add_up_to_the_whole(self):
        pictures = some_pictures(5, batch=5)
        logits = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
        whole = scores(tally(logits, pictures))
        parts = scores(tally(logits[:, :2], pictures[:, :2]).plus(tally(logits[:, 2:], pictures[:, 2:])))
        for name, figure in whole.items():
            torch.testing.assert_close(parts[name], figure)

    def test_early_steps_are_counted_alone(self):
        pictures = some_pictures(5)
        logits = torch.zeros_like(pictures)
        logits[2:] = 200 * (pictures[2:] - 0.5)
        total = tally(logits, pictures)
        assert scores(total.over(2))["cross_entropy"].item() == pytest.approx(256 * math.log(2))
        assert scores(total.over())["cross_entropy"].item() == pytest.approx(2 / 5 * 256 * math.log(2))


class TestBaselines:
    def test_chances_are_as_counted_by_hand(self):
        # Last seen: 2 white, 2 black. One step later 1 of the white is black; two steps later all four are white.
        pictures = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1.0]]).view(3, 1, 2, 2)
        chances = fit_baselines(pictures, context=1, steps=2).copy.sigmoid()
        torch.testing.assert_close(chances, torch.tensor([[1e-4, 0.5], [1 - 1e-4, 1 - 1e-4]]))

    def test_copying_predicts_from_the_last_picture_pixel_by_pixel(self):
        pictures = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1.0]]).view(3, 1, 2, 2)
        copied = fit_baselines(pictures, context=1, steps=2).copied(pictures[0], 2).sigmoid()
        torch.testing.assert_close(copied[0].flatten(), torch.tensor([0.5, 0.5, 1e-4, 1e-4]))
        assert copied.shape == (2, 1, 2, 2)

    def test_the_mean_picture_is_the_mean_over_sequences_and_time(self):
        pictures = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
        pictures[1, 0, 0, 0] = 0
        found = fit_baselines(pictures, 1, 1).constant(pictures).sigmoid()
        torch.testing.assert_close(found[1, 2], torch.tensor([[2 / 6, 0.5], [0.5, 0.5]]))

    def test_no_sureness_is_better_for_copying_than_the_fitted_one(self):
        trial = tiny_trial(replace(TINY, train_sequences=200, frame_size=32))
        baselines, train = trial._baselines(), make_sequences("4", "train", 200, 9)
        pictures = train.pictures(torch.arange(200), 32)
        fitted = tally(baselines.copied(pictures[3], 5), pictures[4:]).over()
        for sure in (1.0, 2.0, 4.0):
            plain = tally((2 * sure * (pictures[3] - 0.5)).expand(5, -1, -1, -1), pictures[4:]).over()
            assert fitted.cross_entropy < plain.cross_entropy


class TestTrial:
    def test_validation_looks_at_held_out_sequences_of_the_training_kind_alone(self, monkeypatch):
        asked = []

        def spy(name: str, purpose: str, count: int, length: int) -> object:
            asked.append((name, purpose, count))
            return make_sequences(name, purpose, count, length)

        monkeypatch.setattr(bouncing_balls, "make_sequences", spy)
        trial = tiny_trial(replace(TINY, train_on="678"))
        with torch.no_grad():
            trial.validate()
        assert asked == [("678", "validation", 5)]
        trial.update(0)
        assert asked[1:] == [("678", "train", 11)]

    def test_the_watched_figure_is_the_loss_on_those_sequences(self):
        trial = tiny_trial()
        pictures = make_sequences("4", "validation", 5, 9).pictures(torch.arange(5), 16)
        with torch.no_grad():
            loss = F.binary_cross_entropy_with_logits(trial.model(pictures[:-1])[0], pictures[1:])
            assert trial.validate()[trial.watched] == pytest.approx(256 * float(loss), rel=1e-5)

    def test_learning_lowers_the_loss(self):
        trial = tiny_trial(replace(TINY, learning_rate=1e-2))
        trial.model.train()
        losses = []
        for step in range(12):
            torch.manual_seed(0)
            losses.append(trial.update(step)["loss"])
        assert losses[-1] < 0.8 * losses[0]

    @pytest.mark.parametrize("train_on", ["4", "crops"])
    def test_the_test_finds_what_the_table_shows(self, train_on):
        config = replace(TINY, train_on=train_on)
        figures = tiny_outcome(config=config).figures
        for column in BouncingBalls(config).columns:
            assert math.isfinite(figures[column.key])

    def test_a_long_roll_out_has_a_column_for_its_first_steps(self):
        config = replace(TINY, length=16, roll_out=12, test_sequences=2)
        found = tiny_outcome(config=config)
        keys = [column.key for column in BouncingBalls(config).columns]
        assert keys[0] == "4/one_step/cross_entropy"
        assert keys[1:3] == ["4/roll_out/cross_entropy_10", "4/roll_out/cross_entropy"]
        curve = found.arrays["4/roll_out/cross_entropy"]
        assert found.figures[keys[1]] == pytest.approx(float(curve[:10].mean()))
        assert found.figures[keys[2]] == pytest.approx(float(curve.mean()))

    def test_films_hold_the_true_pictures_and_the_units_that_were_active(self):
        arrays = tiny_outcome().arrays
        truth = make_sequences("678", "test", 7, 9).pictures(torch.arange(4), 16)
        torch.testing.assert_close(arrays["678/truth"], (255 * truth).to(torch.uint8))
        assert arrays["678/active"].shape == (9, 3)
        assert (arrays["678/active"].sum(dim=1) == 2).all()
        assert "678/active" not in tiny_outcome("lstm").arrays

    def test_a_run_that_is_resumed_half_way_ends_as_one_that_is_not(self, tmp_path):
        whole = assert_resumed_equals_uninterrupted(
            BouncingBalls(TINY), parse_variant("rim", TINY), tmp_path, stop_after=3
        )
        assert whole.ended == "finished"


@pytest.mark.slow
class TestLearning:
    def test_after_some_minutes_the_next_picture_is_known_better_than_by_copying_the_last(self):
        config = replace(TINY, frame_size=32, channels=16, length=51, context=15, roll_out=35, train_sequences=5000,
                         validation_sequences=64, batch_size=16, rim=BouncingBallsConfig().rim)  # fmt: skip
        trial = tiny_trial(config)
        trial.model.train()
        for step in range(300):
            seed_all(0, "update", step)
            trial.update(step)
        trial.model.eval()
        pictures = make_sequences("4", "validation", 64, 51).pictures(torch.arange(64), 32)
        copied = trial._baselines().copied(pictures[:-1].flatten(0, 1), 1)[0].view_as(pictures[1:])
        with torch.no_grad():
            found = trial.validate()["cross_entropy"]
        assert found < 0.9 * scores(tally(copied, pictures[1:]).over())["cross_entropy"]


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"frame_size": 60}, "frame_size must be a multiple of 8, got 60"),
            ({"length": 49}, "length must be at least context \\+ roll_out = 50, got 49"),
            ({"context": 0}, "context must be at least 1, got 0"),
            ({"test_sequences": 0}, "test_sequences must be at least 1, got 0"),
        ],
    )
    def test_what_cannot_work_is_refused_in_one_line(self, settings, said):
        with pytest.raises(ConfigError, match=said):
            BouncingBallsConfig(**settings).check()

    def test_crops_are_tested_on_one_to_six_balls(self):
        assert BouncingBallsConfig(train_on="crops").test_sets == tuple(f"crops-{n}" for n in range(1, 7))


class TestPlots:
    def test_a_plot_a_strip_and_a_film_are_made_per_test_set(self, tmp_path):
        outcomes = [tiny_outcome("rim"), tiny_outcome("rim", seed=1), tiny_outcome("lstm"), Outcome("gru", 0)]
        drawn = draw_balls(outcomes, {"curtain": "curtain"}, 4, tmp_path)
        names = ["roll_out.png", "pictures_curtain.png", "roll_out_curtain.mp4", "activity_curtain.png"]
        assert [file.name for file in drawn] == names
        assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)
        assert all(file.stat().st_size > 1000 for file in drawn)

    def test_without_the_films_encoder_it_says_so_and_draws_the_rest(self, tmp_path, monkeypatch, caplog):
        monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
        drawn = draw_balls([tiny_outcome()], {"4": "4 balls"}, 4, tmp_path)
        assert "roll_out_4.mp4" not in [file.name for file in drawn]
        assert tmp_path / "pictures_4.png" in drawn
        assert 'it needs imageio-ffmpeg, pip install "rims-rl[video]"' in caplog.text

    def test_nothing_is_drawn_when_every_trial_failed(self, tmp_path):
        assert draw_balls([Outcome("rim", 0)], {"4": "4 balls"}, 4, tmp_path) == []

    def test_a_film_shows_truth_and_prediction_side_by_side(self):
        truth, predicted = (np.full((2, 3, 16, 16), value, np.uint8) for value in (100, 200))
        frames = list(film_frames({"truth": truth, "rim": predicted}, 1))
        assert len(frames) == 2 * 3
        height, width = frames[0].shape[:2]
        assert frames[0][height // 2, width // 4].tolist() == [100, 100, 100]
        assert frames[0][height // 2, 3 * width // 4].tolist() == [200, 200, 200]
