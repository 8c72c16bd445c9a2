"""Alignment across modalities: samples of one subject are each other's positives, whatever their images show it in.

All vectors have unit length; temperatures divide. Similarities are float32 (or float64) whatever the precision around
them. ``positive`` and ``negative`` say who is what to whom; what is neither (the same patient at another time, a masked
sample) does not count, exactly as if it were not there.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.losses.contrastive import info_nce, widened
from medssl.losses.relate import relations

Number = float | Tensor


def align(
    z: Float[Tensor, "n d"],
    modality: Int[Tensor, " n"],
    subject: Int[Tensor, " n"],
    temperature: Number,
    *,
    same: Sequence[Int[Tensor, " n"]] = (),
    alike: Bool[Tensor, "n n"] | None = None,
    apart: Bool[Tensor, "n n"] | None = None,
    present: Bool[Tensor, " n"] | None = None,
    form: Literal["infonce", "sigmoid"] = "infonce",
    bias: Number = 0.0,
    beta: float = 0.0,
    hardest: int = 0,
) -> Float[Tensor, ""]:
    """Sum over the pairs of modalities in a flat batch, each by ``infonce`` or ``sigmoid``; zero without a pair.

    Positives: equal ``subject``, or ``alike`` (symmetric). Never negatives, nor positives for that: samples that share
    one of the ids in ``same``, their patient say, and where ``apart`` is given (symmetric) all that are not.
    ``present`` false: as if the sample were not in the batch.
    """
    positive, negative = relations(subject, same, alike, present, apart)
    z = widened(z)
    total = z.sum() * 0  # a graph, whoever is there
    groups = [(modality == code).nonzero()[:, 0] for code in modality.unique()]
    for rows, columns in combinations(groups, 2):
        pair = z[rows], z[columns], positive[rows][:, columns], negative[rows][:, columns]
        if form == "sigmoid":
            total = total + sigmoid(*pair, temperature, bias)
        else:
            total = total + infonce(*pair, temperature, beta, hardest)
    return total


def infonce(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    positive: Bool[Tensor, "n m"],
    negative: Bool[Tensor, "n m"],
    temperature: Number,
    beta: float = 0.0,
    hardest: int = 0,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of two modalities (ConVIRT Eq. 1–4, arXiv:2010.00747; CLIP, arXiv:2103.00020), many positives.

    ½ [a→b + b→a], where a→b is the mean over rows i with a positive, and over their positives p, of
    −log( e^{s_ip} / (e^{s_ip} + Σ_{j negative} w_ij e^{s_ij}) ), s = a·b/τ: one positive never competes with another.
    ``beta``: w_ij = e^{β s_ij} / mean_j e^{β s_ij} over the negatives (arXiv:2010.04592 Eq. 4 with τ⁺ = 0), gradients
    included, as published. ``hardest``: only that many most similar negatives of each anchor; 0 takes all.
    """
    with torch.autocast(a.device.type, enabled=False):
        logits = widened(a) @ widened(b).T / temperature  # (n, m)
        return _both_ways(logits, positive, negative, beta, hardest)


def sigmoid(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    positive: Bool[Tensor, "n m"],
    negative: Bool[Tensor, "n m"],
    temperature: Number,
    bias: Number,
) -> Float[Tensor, ""]:
    """SigLIP (arXiv:2303.15343 Eq. 1): Σ_ij −log σ(±(a·b/τ + bias)) over the number of anchors with a positive.

    The number is the mean of both sides'; with a positive each it is the batch, as published. Without one it is zero.
    """
    with torch.autocast(a.device.type, enabled=False):
        logits = widened(a) @ widened(b).T / temperature + bias  # (n, m)
        each = -F.logsigmoid(torch.where(positive, logits, -logits))
        anchors = (positive.any(1).sum() + positive.any(0).sum()) / 2
        return (each * (positive | negative)).sum() * positive.any() / anchors.clamp(min=1)


def voxel_infonce(
    query: Float[Tensor, "n d"],
    key: Float[Tensor, "n d"],
    world_mm: Float[Tensor, "n k"],
    subject: Int[Tensor, " n"],
    counted: Bool[Tensor, " n"],
    temperature: Number,
    ignore_mm: float,
    same: Sequence[Int[Tensor, " n"]] = (),
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE between features of two modalities at equal world positions, a row an anchor.

    Negatives: anchors of the same subject farther than ``ignore_mm`` away, and those of other subjects that share none
    of the ids in ``same``. Rows not ``counted`` (positions that one image does not show) take no part.
    """
    positive, other = relations(subject, same)
    # Differences, not products: these would be wrong by tenths of a millimetre in float32.
    far = torch.cdist(world_mm, world_mm, compute_mode="donot_use_mm_for_euclid_dist") > ignore_mm
    allowed = torch.where(positive, far, other) & counted
    there = info_nce(query, key, key, allowed, temperature, counted)
    return (there + info_nce(key, query, query, allowed, temperature, counted)) / 2


def word_infonce(
    regions: Float[Tensor, "n r d"],
    words: Float[Tensor, "m l d"],
    real: Bool[Tensor, "m l"],
    positive: Bool[Tensor, "n m"],
    negative: Bool[Tensor, "n m"],
    temperature: Number = 0.1,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of images and texts by what each word finds in the image (GLoRIA, local loss)."""
    with torch.autocast(regions.device.type, enabled=False):
        logits = word_similarity(regions, words, real) / temperature
        return _both_ways(logits, positive, negative)


def word_similarity(
    regions: Float[Tensor, "n r d"],
    words: Float[Tensor, "m l d"],
    real: Bool[Tensor, "m l"],
    attend: float = 0.25,
    gather: float = 0.2,
) -> Float[Tensor, "n m"]:
    """How well each text's words are found in each image (GLoRIA Eq. 1–4, Huang et al., ICCV 2021).

    Word l attends to regions r by softmax_r(t_l·v_r / attend) and finds c_l; Z = gather · log mean_l e^{cos(c_l, t_l) /
    gather} over the ``real`` words; 0 where a text has none.
    """
    # Paper: Σ over words, raw products in the attention. Published code: also a softmax over words before it.
    # Ours: the mean, so that long texts are not nearer to every image; unit vectors throughout (ADR 0015).
    regions, words = (F.normalize(widened(x), dim=-1) for x in (regions, words))
    share = torch.einsum("nrd,mld->nmlr", regions, words).div(attend).softmax(-1)
    found = F.normalize(torch.einsum("nmlr,nrd->nmld", share, regions), dim=-1)
    cosine = torch.einsum("nmld,mld->nml", found, words)
    kept = (cosine / gather).masked_fill(~real, _floor(cosine)).logsumexp(2)  # (n, m)
    count = real.sum(1)
    return torch.where(count > 0, gather * (kept - count.clamp(min=1).to(kept).log()), 0)


def _both_ways(
    logits: Tensor, positive: Tensor, negative: Tensor, beta: float = 0.0, hardest: int = 0
) -> Float[Tensor, ""]:
    there = _one_way(logits, positive, negative, beta, hardest)
    return (there + _one_way(logits.T, positive.T, negative.T, beta, hardest)) / 2


def _one_way(logits: Tensor, positive: Tensor, negative: Tensor, beta: float, hardest: int) -> Float[Tensor, ""]:
    if not logits.numel():
        return logits.sum()
    # Papers: one positive a row, every other sample a negative; with several, soft targets in one softmax.
    # Ours: each positive against the negatives alone, and what may be one is neither (ADR 0014).
    below = _log_negatives(logits, negative, beta, hardest)
    each = -F.logsigmoid(logits - below[:, None]) * positive  # (n, m)
    rows = each.sum(1) / positive.sum(1).clamp(min=1)
    return rows.sum() / positive.any(1).sum().clamp(min=1)


def _log_negatives(logits: Tensor, negative: Tensor, beta: float, hardest: int) -> Float[Tensor, " n"]:
    """log Σ w e^s over each row's negatives; a number below all others where it has none."""
    floor = _floor(logits)
    if 0 < hardest < logits.shape[1]:
        hard = logits.masked_fill(~negative, floor).topk(hardest, dim=1).indices
        logits, negative = logits.gather(1, hard), negative.gather(1, hard)

    def summed(x: Tensor) -> Tensor:
        return x.masked_fill(~negative, floor).logsumexp(1)

    if beta == 0:
        return summed(logits)
    weighted = summed((1 + beta) * logits) - summed(beta * logits) + negative.sum(1).clamp(min=1).to(logits).log()
    return torch.where(negative.any(1), weighted, floor)


def _floor(x: Tensor) -> float:
    # Not −∞: a row that has nothing else would have a gradient of NaN.
    return torch.finfo(x.dtype).min / 4
