"""Experts that compete for images before one discriminator: the networks, the game, and how its outcome is measured.

Parascandolo et al. 2018. A canonical distribution P (digits) has gone through unknown mechanisms; only the mixture Q of
what they made is seen, unpaired and without labels. Every expert tries its hand on every image of Q, a discriminator
that knows P scores the attempts, and the expert with the highest score alone learns from the image. Who is slightly
better at one mechanism wins more of its images and gets better still: experts specialise, each on the inverse of one
mechanism.

Scores are the discriminator's logits: D = sigmoid(score), so -log D = softplus(-score), -log(1 - D) = softplus(score).

Axes: E experts, B images, K mechanisms, N images per mechanism, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EXPERT_LAYERS = 5
_POOLS = 3


def make_expert(filters: int) -> nn.Sequential:
    """Return an expert: five 3x3 convolutions with batch norm and ELU between them, (B, 1, H, W) to the same shape."""
    layers: list[nn.Module] = []
    for before in (1, *[filters] * (_EXPERT_LAYERS - 2)):
        layers += [nn.Conv2d(before, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ELU()]
    layers += [nn.Conv2d(filters, 1, 3, padding=1), nn.Sigmoid()]
    return _channels_last(nn.Sequential(*layers))


def make_discriminator(filters: int, hidden: int, side: int) -> nn.Sequential:
    """Return a discriminator: convolutions of `filters`, twice and four times as many, halved by pooling after each.

    Args:
        filters: of the first three layers; 16 in replications of the paper.
        hidden: units of the last hidden layer, 1024 in the paper.
        side: rows and columns of an image (B, 1, side, side), a multiple of 8.

    Returns:
        A module that gives scores (B,).
    """
    layers: list[nn.Module] = []
    widths = (1, filters, filters, filters, None, 2 * filters, 2 * filters, None, 4 * filters, 4 * filters, None)
    before = 1
    for width in widths[1:]:
        layers += [nn.AvgPool2d(2)] if width is None else [nn.Conv2d(before, width, 3, padding=1), nn.ELU()]
        before = before if width is None else width
    inputs = before * (side // 2**_POOLS) ** 2
    layers += [nn.Flatten(), nn.Linear(inputs, hidden), nn.ELU(), nn.Linear(hidden, 1), nn.Flatten(0)]
    return _channels_last(nn.Sequential(*layers))


def _channels_last(network: nn.Sequential) -> nn.Sequential:
    """Order the weights so that convolutions run faster on a processor."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


# ---------------------------------------------------------------------- the game


def attempts(experts: Iterable[nn.Module], images: Tensor) -> list[Tensor]:
    """Return what each expert makes of images (B, 1, H, W), of the same shape; each has a graph of its own."""
    return [expert(images) for expert in experts]


def scores_of(discriminator: nn.Module, outputs: Tensor) -> Tensor:
    """Return the scores (E, B) of attempts (E, B, 1, H, W)."""
    scores: Tensor = discriminator(outputs.flatten(0, 1))
    return scores.view(outputs.shape[:2])


def discriminator_loss(canonical: Tensor, outputs: Tensor) -> Tensor:
    """Return -E_P[log D(x)] - 1/E sum_j E_Q[log(1 - D(E_j(x')))]: the losers' attempts count as much as the winner's.

    Args:
        canonical: scores (B,) of canonical images.
        outputs: scores (E, B) of the experts' attempts.
    """
    return F.softplus(-canonical).mean() + F.softplus(outputs).mean()


def winner_loss(scores: Tensor) -> Tensor:
    """Return -log D, averaged over the attempts (n,) with which one expert has won."""
    return F.softplus(-scores).mean()


# ---------------------------------------------------------------------- measures


def assignment_matrix(winners: Tensor, experts: int) -> Tensor:
    """Return which share of each mechanism's images each expert wins: (K, N) of numbers of experts to (K, E)."""
    return F.one_hot(winners, experts).double().mean(dim=1)


def own_experts(assignment: Tensor) -> int:
    """Return how many mechanisms have an expert of their own: one that wins most of their images, and no other's.

    Args:
        assignment: (K, E) shares. All K when experts have specialised perfectly; 0 when one expert wins everything, or
            when experts win by chance and ties go to the first.
    """
    return int((torch.bincount(assignment.argmax(dim=1), minlength=assignment.shape[1]) == 1).sum())


def purity(assignment: Tensor) -> float:
    """Return the share of images, in percent, that go to their mechanism's most frequent winner; by chance 100 / E."""
    return 100.0 * float(assignment.amax(dim=1).mean())


def told_apart(scores: Tensor) -> float:
    """Return the effective number of experts that the discriminator tells apart, from 1 to E, without any label.

    It is exp(I), where I is the mutual information of image and expert when an expert is drawn with the softmax of the
    scores: 1 when all experts score alike on each image, or the same one always wins; E when each wins its equal share
    of the images, and clearly.

    Args:
        scores: (E, B) of attempts at the same images.
    """
    log_p = F.log_softmax(scores.double(), dim=0)
    log_mean = log_p.logsumexp(dim=1) - torch.tensor(float(scores.shape[1])).log()
    information = (log_p.exp() * (log_p - log_mean[:, None])).sum(dim=0).mean()
    return float(information.exp())


def errors(images: Tensor, clean: Tensor) -> Tensor:
    """Return the mean squared error (K,) per mechanism of images (K, N, 1, H, W) against the clean (N, 1, H, W)."""
    return (images - clean).square().mean(dim=(1, 2, 3, 4))


def improvement(before: Tensor, after: Tensor) -> float:
    """Return by how many percent errors (K,) have fallen, averaged over mechanisms: 100 all undone, below 0 worse."""
    return 100.0 * float((1.0 - after / before).mean())


# ---------------------------------------------------------------------- the judge of digits


def make_classifier(classes: int, side: int) -> nn.Sequential:
    """Return a small convolutional network that names images (B, 1, side, side)."""
    inputs = 64 * (side // 4) ** 2
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, classes),
    )  # fmt: skip


def train_classifier(classifier: nn.Module, images: Tensor, labels: Tensor, updates: int, batch: int = 64) -> None:
    """Train a classifier on images (N, 1, H, W) and labels (N,); random numbers come from the global generator."""
    adam = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    for _ in range(updates):
        chosen = torch.randint(len(images), (batch,))
        loss = F.cross_entropy(classifier(images[chosen]), labels[chosen])
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()


def confusion(found: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return how often a true class (row) was named which (column): labels (n,) each, counts (classes, classes)."""
    return torch.bincount(labels * classes + found, minlength=classes**2).view(classes, classes)


def worst_class(table: Tensor) -> float:
    """Return the accuracy, in percent, on the class of a confusion table (row: truth) that is named worst."""
    seen = table.sum(dim=1)
    return 100.0 * float((table.diag()[seen > 0] / seen[seen > 0]).min())


def names_in_batches(classifier: nn.Module, images: Tensor, batch: int = 512) -> Tensor:
    """Return the classes (n,) that a classifier gives to images (n, 1, H, W)."""
    return torch.cat([classifier(some).argmax(dim=1) for some in torch.split(images, batch)])


def winning(
    experts: Sequence[nn.Module], discriminator: nn.Module, images: Tensor, batch: int = 128
) -> tuple[Tensor, Tensor]:
    """Return all scores (E, B) and the attempts (B, 1, H, W) of the experts that score highest; nothing learns."""
    scores, best = [], []
    for some in torch.split(images, batch):
        outputs = torch.stack(attempts(experts, some))
        found = scores_of(discriminator, outputs)
        best.append(outputs[found.argmax(dim=0), torch.arange(len(some), device=some.device)])
        scores.append(found)
    return torch.cat(scores, dim=1), torch.cat(best)
