"""Contrast of unit vectors. Similarities are float32 (or float64) whatever the precision around them."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.losses.tiled import tiled_info_nce

TILED = 2**17  # similarities from which on strips are faster than the whole matrix, measured on one CPU thread


def info_nce(
    query: Float[Tensor, "n d"],
    key: Float[Tensor, "n d"],
    negatives: Float[Tensor, "m d"],
    allowed: Bool[Tensor, "n m"],
    temperature: float | Tensor,
    counted: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """InfoNCE with explicit negatives (arXiv:1807.03748 Eq. 4; with a queue arXiv:1911.05722 Eq. 1).

    mean_i −log( e^{q_i·k_i/τ} / (e^{q_i·k_i/τ} + Σ_{j allowed} e^{q_i·n_j/τ}) ), over the ``counted`` rows. All
    vectors have unit length. ``allowed`` leaves out what must not be a negative: the same image, the same patient.
    Without a negative, or without a counted row, it is zero and still has a graph. From ``TILED`` similarities on the
    matrix of them is never there as a whole, and second derivatives are refused.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key, negatives = (widened(x) for x in (query, key, negatives))
        if allowed.numel() >= TILED:
            return tiled_info_nce(query, key, negatives, allowed, temperature, counted)
        same = (query * key).sum(1, keepdim=True) / temperature  # (n, 1)
        # Masked after the division: −∞ / τ would make the gradient of a learnt temperature NaN.
        other = (query @ negatives.T / temperature).masked_fill(~allowed, -torch.inf)  # (n, m)
        logits = torch.cat([same, other], dim=1)
        each = torch.logsumexp(logits, dim=1) - logits[:, 0]  # (n,)
        if counted is None:
            return each.mean()
        return (each * counted).sum() / counted.sum().clamp(min=1)


def unit(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Scale every row to length 1."""
    return F.normalize(widened(x), dim=1)


def nt_xent(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "n d"],
    others: tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]],
    allowed: Bool[Tensor, "n m"],
    temperature: float,
) -> Float[Tensor, ""]:
    """NT-Xent (SimCLR, arXiv:2002.05709 Eq. 1), mean over the 2n anchors.

    Row i of ``first`` and ``second``: the two views of image i, unit length. ``others``: both views of the m images
    that may be negatives, on one process ``first`` and ``second`` again; ``allowed``: of which anchor. What is not
    allowed, an image as its own negative above all, is left out of the denominator.
    """
    anchors, partners = torch.cat([first, second]), torch.cat([second, first])  # (2n, d)
    return info_nce(anchors, partners, torch.cat(others), allowed.repeat(2, 2), temperature)


def simsiam(
    predicted1: Float[Tensor, "n d"],
    projected1: Float[Tensor, "n d"],
    predicted2: Float[Tensor, "n d"],
    projected2: Float[Tensor, "n d"],
) -> Float[Tensor, ""]:
    """−½·[cos(p1, sg z2) + cos(p2, sg z1)], mean over rows (SimSiam, arXiv:2011.10566 Eq. 4): −1 at best.

    No gradient passes into the projections z: only so does it not collapse without negatives.
    """
    with torch.autocast(predicted1.device.type, enabled=False):
        one = (unit(predicted1) * unit(projected2.detach())).sum(1)  # (n,)
        two = (unit(predicted2) * unit(projected1.detach())).sum(1)
        return -0.5 * (one + two).mean()


def strangers(
    items: Int[Tensor, " n"],
    patients: Int[Tensor, " n"],
    other_items: Int[Tensor, " m"],
    other_patients: Int[Tensor, " m"],
) -> Bool[Tensor, "n m"]:
    """Which of m images may be negatives of which of n: other images of other patients."""
    return (items[:, None] != other_items) & (patients[:, None] != other_patients)


def far_or_other(
    cells: Int[Tensor, "b a"], grid: tuple[int, ...], items: Int[Tensor, " b"], patients: Int[Tensor, " b"], radius: int
) -> Bool[Tensor, "n n"]:
    """Which anchors may be negatives of which: those of other patients, and those of the same view beyond ``radius``.

    ``cells`` are flat numbers on ``grid``; the distance is the longest of the axes, in cells. n = b·a.
    """
    b, a = cells.shape
    axes = torch.stack(torch.unravel_index(cells.flatten(), grid), dim=1)  # (n, d)
    far = (axes[:, None] - axes).abs().amax(2) > radius
    view = torch.arange(b, device=cells.device).repeat_interleave(a)
    items, patients = items.repeat_interleave(a), patients.repeat_interleave(a)
    same_view = view[:, None] == view
    other = strangers(items, patients, items, patients)
    return torch.where(same_view, far, other)


def widened(x: Tensor) -> Tensor:
    """In float32 or better."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
