"""The game of the experts, and its measures at chance and at perfection."""

import math

import pytest
import torch
from torch import nn

from rims_rl.experiments.inverse_mechanisms import competition as game


class Scaled(nn.Module):
    """An expert that multiplies."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, images):
        return self.factor * images


class Brightness(nn.Module):
    """A discriminator that likes bright images."""

    def forward(self, images):
        return images.mean(dim=(1, 2, 3))


class TestNetworks:
    def test_an_expert_keeps_an_images_shape_and_stays_between_black_and_white(self):
        made = game.make_expert(3)(torch.rand(5, 1, 11, 13))
        assert made.shape == (5, 1, 11, 13)
        assert 0 < made.min() < made.max() < 1

    def test_an_expert_has_five_convolutions_and_sees_five_pixels_far(self):
        torch.manual_seed(0)
        expert = game.make_expert(7).eval()
        assert sum(isinstance(layer, nn.Conv2d) for layer in expert) == 5
        image = torch.zeros(1, 1, 19, 19, requires_grad=True)
        expert(image)[0, 0, 9, 9].backward()
        seen = image.grad[0, 0].nonzero()
        assert seen.min(dim=0).values.tolist() == [4, 4]
        assert seen.max(dim=0).values.tolist() == [14, 14]

    def test_a_discriminator_gives_each_image_one_score(self):
        scores = game.make_discriminator(2, 11, 16)(torch.rand(3, 1, 16, 16))
        assert scores.shape == (3,)

    def test_every_part_of_the_discriminator_learns(self):
        discriminator = game.make_discriminator(2, 11, 16)
        discriminator(torch.rand(3, 1, 16, 16)).sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in discriminator.parameters())


class TestAttempts:
    def test_every_expert_tries_every_image(self):
        images = torch.rand(3, 1, 2, 2)
        outputs = game.attempts([Scaled(2.0), Scaled(5.0)], images)
        assert [output.tolist() for output in outputs] == [(2 * images).tolist(), (5 * images).tolist()]

    def test_scores_are_by_expert_and_image(self):
        outputs = torch.arange(6.0).view(2, 3, 1, 1, 1)
        assert game.scores_of(Brightness(), outputs).tolist() == [[0, 1, 2], [3, 4, 5]]

    def test_the_best_attempt_at_each_image_is_picked_across_batches(self):
        images = torch.tensor([1.0, -1.0, 2.0, -2.0, 3.0]).view(5, 1, 1, 1)
        scores, best = game.winning([Scaled(1.0), Scaled(-10.0)], Brightness(), images, batch=2)
        assert scores.tolist() == [[1, -1, 2, -2, 3], [-10, 10, -20, 20, -30]]
        assert best.flatten().tolist() == [1, 10, 2, 20, 3]


class TestLosses:
    def test_an_undecided_discriminator_loses_twice_log_two(self):
        loss = game.discriminator_loss(torch.zeros(3), torch.zeros(2, 3))
        assert float(loss) == pytest.approx(2 * math.log(2))

    def test_experts_are_averaged_and_losers_count(self):
        canonical, outputs = torch.tensor([math.log(3.0)]), torch.tensor([[0.0], [math.log(3.0)]])  # D = 3/4; 1/2, 3/4
        expected = -math.log(0.75) - (math.log(0.5) + math.log(0.25)) / 2
        assert float(game.discriminator_loss(canonical, outputs)) == pytest.approx(expected)

    def test_the_winner_loses_minus_log_d(self):
        assert float(game.winner_loss(torch.tensor([0.0, math.log(3.0)]))) == pytest.approx(
            -(math.log(0.5) + math.log(0.75)) / 2
        )


class TestAssignment:
    def test_shares_are_counted_by_mechanism_and_expert(self):
        shares = game.assignment_matrix(torch.tensor([[0, 0, 2, 0], [1, 1, 1, 1]]), 3)
        assert shares.tolist() == [[0.75, 0, 0.25], [0, 1, 0]]

    def test_perfect_specialists_all_have_their_own(self):
        shares = torch.eye(10)[torch.randperm(10)]
        assert game.own_experts(shares) == 10
        assert game.purity(shares) == 100

    def test_one_expert_for_everything_is_nobodys_own(self):
        shares = torch.zeros(10, 10)
        shares[:, 7] = 1
        assert game.own_experts(shares) == 0

    def test_winning_by_chance_gives_no_own_expert_and_the_purity_of_chance(self):
        shares = torch.full((10, 10), 0.1)
        assert game.own_experts(shares) == 0
        assert game.purity(shares) == pytest.approx(10)

    def test_an_expert_of_two_mechanisms_is_the_own_of_neither(self):
        shares = torch.tensor([[0.9, 0.1, 0], [0.6, 0.4, 0], [0, 0.2, 0.8]])
        assert game.own_experts(shares) == 1


class TestToldApart:
    def test_equal_scores_tell_nobody_apart(self):
        assert game.told_apart(torch.full((10, 70), 3.0)) == pytest.approx(1)

    def test_one_winner_of_everything_counts_as_one(self):
        scores = torch.zeros(10, 70)
        scores[4] = 50
        assert game.told_apart(scores) == pytest.approx(1)

    def test_clear_and_equal_specialists_count_as_many(self):
        assert game.told_apart(50 * torch.eye(7).repeat(1, 3)) == pytest.approx(7)

    def test_no_label_is_needed_and_the_order_of_images_does_not_matter(self):
        torch.manual_seed(1)
        scores = torch.randn(5, 41)
        shuffled = scores[:, torch.randperm(41)]
        assert game.told_apart(shuffled) == pytest.approx(game.told_apart(scores))
        assert 1 < game.told_apart(scores) < 5


class TestRestoration:
    def test_errors_are_mean_squares_per_mechanism(self):
        clean = torch.zeros(2, 1, 1, 2)
        images = torch.stack([clean + 0.5, clean + 2.0])
        assert game.errors(images, clean).tolist() == [0.25, 4.0]

    def test_undone_is_hundred_nothing_done_is_zero_and_worse_is_below(self):
        before = torch.tensor([1.0, 4.0])
        assert game.improvement(before, torch.zeros(2)) == 100
        assert game.improvement(before, before) == 0
        assert game.improvement(before, torch.tensor([2.0, 4.0])) == -50


class TestClassifier:
    def test_it_learns_to_name_what_it_is_shown(self):
        torch.manual_seed(0)
        labels = torch.arange(3).repeat(7)
        images = torch.zeros(21, 1, 8, 8)
        for number, label in enumerate(labels.tolist()):
            images[number, 0, :, 2 * label : 2 * label + 2] = 1
        classifier = game.make_classifier(3, 8)
        game.train_classifier(classifier, images, labels, updates=30, batch=5)
        assert torch.equal(game.names_in_batches(classifier, images, batch=4), labels)

    def test_confusion_has_the_truth_in_rows(self):
        table = game.confusion(torch.tensor([1, 1, 2]), torch.tensor([0, 1, 1]), 3)
        assert table.tolist() == [[0, 1, 0], [0, 1, 1], [0, 0, 0]]

    def test_the_worst_class_is_found_among_those_that_occur(self):
        assert game.worst_class(torch.tensor([[4, 0, 0], [1, 3, 0], [0, 0, 0]])) == 75

    def test_collapse_to_one_class_leaves_nothing_of_the_worst(self):
        found, labels = torch.zeros(20, dtype=torch.long), torch.arange(10).repeat(2)
        assert game.worst_class(game.confusion(found, labels, 10)) == 0
