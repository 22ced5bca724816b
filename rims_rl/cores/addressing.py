"""Addressing of an external memory as free functions, shared by the Neural Turing Machine and the DNC.

Axes: B batch, H heads (R of them read, the others write), N memory rows, M width of a row, D number of shifts. A
weighting is a soft address: one number per row, none negative, with a sum of at most one. Graves et al. 2014 is arXiv
1410.5401, Graves et al. 2016 is doi 10.1038/nature20101 (its Methods number nothing, so steps are cited by name).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SMOOTHING = 1e-6
"""What is added to squared norms, as in the DNC's reference implementation."""
_SMALLEST_WEIGHT = 1e-12
"""Below it a weight counts as zero, where a logarithm is taken."""
_TIE_SLOPE = 1e-6
"""How much freer than a row its lower neighbour counts when the least used row is sought."""


def oneplus(x: Tensor) -> Tensor:
    """Return 1 + log(1 + e^x), which maps any number to [1, inf) (Graves et al. 2016, Methods)."""
    return 1.0 + F.softplus(x)


def cosine_similarity(keys: Tensor, memory: Tensor) -> Tensor:
    """Compare every key with every row: u.v / (|u| |v|) (Graves et al. 2014, eq. 6).

    Squared norms are smoothed, so an empty row is like nothing, and its gradient is finite.

    Args:
        keys: (B, H, M).
        memory: (B, N, M).

    Returns:
        (B, H, N), between -1 and 1.
    """
    key_norms = (keys * keys).sum(dim=2, keepdim=True) + _SMOOTHING
    row_norms = (memory * memory).sum(dim=2).unsqueeze(1) + _SMOOTHING
    return torch.bmm(keys, memory.mT) * torch.rsqrt(key_norms * row_norms)


def content_weights(keys: Tensor, strengths: Tensor, memory: Tensor) -> Tensor:
    """Focus on the rows that resemble a key: softmax over rows of strength times similarity (2014, eq. 5).

    Args:
        keys: (B, H, M).
        strengths: (B, H, 1), positive; the greater, the sharper.
        memory: (B, N, M).

    Returns:
        Weightings (B, H, N) that sum to one.
    """
    return torch.softmax(strengths * cosine_similarity(keys, memory), dim=-1)


def circular_shift(weights: Tensor, shifts: Tensor) -> Tensor:
    """Move weightings along the rows, last and first being neighbours: w~(i) = sum_j w(j) s(i - j) (2014, eq. 8).

    Args:
        weights: (B, H, N).
        shifts: (B, H, D), how much to move by -(D-1)/2 ... (D-1)/2 rows; D is odd and at most N.

    Returns:
        (B, H, N).
    """
    reach = shifts.shape[-1] // 2
    padded = torch.cat([weights[..., weights.shape[-1] - reach :], weights, weights[..., :reach]], dim=-1)
    windows = padded.unfold(-1, shifts.shape[-1], 1)  # (B, H, N, D): w(i - reach) ... w(i + reach)
    return torch.matmul(windows, shifts.flip(-1).unsqueeze(-1)).squeeze(-1)


def sharpen(weights: Tensor, powers: Tensor) -> Tensor:
    """Raise weightings (B, H, N) to powers (B, H, 1) of at least one and renormalise them (2014, eq. 9).

    Computed as the softmax of power times logarithm, which is the same and cannot divide by zero.
    """
    return torch.softmax(powers * weights.clamp(min=_SMALLEST_WEIGHT).log(), dim=-1)


def erase_and_add(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """Write: all heads erase, then all heads add (2014, eq. 3 and 4; 2016, Methods, with one head).

    Args:
        memory: (B, N, M).
        weights: (B, H, N), where each head writes.
        erase: (B, H, M), between 0 and 1, what each head takes away.
        add: (B, H, M), what each head puts there.

    Returns:
        The memory afterwards, (B, N, M).
    """
    columns = weights.mT  # (B, N, H)
    if weights.shape[1] == 1:  # an outer product: no need of one (N, M) tensor per head
        return torch.baddbmm(memory - memory * torch.bmm(columns, erase), columns, add)
    kept = (1.0 - weights.unsqueeze(-1) * erase.unsqueeze(-2)).prod(dim=1)
    return torch.baddbmm(memory * kept, columns, add)


def usage_after_step(usage: Tensor, write_weights: Tensor, free_gates: Tensor, read_weights: Tensor) -> Tensor:
    """Raise usage where was written, lower it where was read and may be freed (2016, dynamic memory allocation).

    Args:
        usage: (B, N), between 0 and 1.
        write_weights: (B, N), where the last step wrote.
        free_gates: (B, R, 1), whether what each head read in the last step may be forgotten.
        read_weights: (B, R, N), where the last step read.

    Returns:
        u_t = (u_{t-1} + w - u_{t-1} w) psi with the retention psi = prod_i (1 - f_i w_i), (B, N).
    """
    retention = (1.0 - free_gates * read_weights).prod(dim=1)
    return (usage + write_weights - usage * write_weights) * retention


def allocation_weights(usage: Tensor) -> Tensor:
    """Point at the least used row (2016, dynamic memory allocation).

    a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i], phi sorting the rows by usage. Rows whose usages differ by less than
    a millionth per row between them count as ties, and ties go to the lower row: rounding must not decide. The gradient
    is that of the products; it knows nothing of the sorting.

    Args:
        usage: (B, N), between 0 and 1.

    Returns:
        A weighting (B, N); its sum approaches zero when every row is in use.
    """
    rows = torch.arange(usage.shape[1], dtype=usage.dtype, device=usage.device)
    order = torch.argsort(torch.add(usage.detach(), rows, alpha=_TIE_SLOPE), dim=1)
    ascending = usage.gather(1, order)
    before = torch.cat([torch.ones_like(ascending[:, :1]), ascending[:, :-1].cumprod(dim=1)], dim=1)
    return torch.zeros_like(usage).scatter(1, order, (1.0 - ascending) * before)


def link_in_order(links: Tensor, precedence: Tensor, write_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Note which row was written after which (2016, temporal memory linkage).

    Args:
        links: (B, N, N); L[i, j] is how far row i was written right after row j; its diagonal is zero.
        precedence: (B, N), how far each row was the last one written.
        write_weights: (B, N), where this step wrote.

    Returns:
        L_t[i, j] = (1 - w[i] - w[j]) L[i, j] + w[i] p[j] off the diagonal, and p_t = (1 - sum_i w[i]) p + w.
    """
    to, of = write_weights.unsqueeze(2), write_weights.unsqueeze(1)
    diagonal = torch.eye(write_weights.shape[1], dtype=torch.bool, device=links.device)
    links = torch.addcmul(to * precedence.unsqueeze(1), 1.0 - to - of, links).masked_fill(diagonal, 0.0)
    return links, torch.addcmul(write_weights, 1.0 - write_weights.sum(dim=1, keepdim=True), precedence)


def mixed_read_weights(links: Tensor, read_weights: Tensor, content: Tensor, modes: Tensor) -> Tensor:
    """Go back, look up or go forward (2016, read weighting).

    Args:
        links: (B, N, N) after this step's write.
        read_weights: (B, R, N), where the last step read.
        content: (B, R, N), the rows that resemble each head's key.
        modes: (B, R, 3) that sum to one: backward, content, forward.

    Returns:
        pi_1 L'w + pi_2 c + pi_3 L w, (B, R, N).
    """
    backward, lookup, forward = modes.chunk(3, dim=-1)
    moved = torch.addcmul(lookup * content, backward, torch.bmm(read_weights, links))
    return torch.addcmul(moved, forward, torch.bmm(read_weights, links.mT))
