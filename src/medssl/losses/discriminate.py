"""Discrimination of modalities: features that know what their scan was taken with (DAE, arXiv:2307.16896 Eq. 3).

All pairs of a batch are compared by cosine similarity over the temperature. A pair of one modality is to be alike, a
pair of two is not; no feature is compared with itself. Similarities are float32 (or float64) whatever the precision
around them. Codes tell modalities apart and mean nothing else, and the order of the batch does not matter.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.losses.contrastive import unit

# Paper and published code: similarities times exp(t), t = .07; features of any length; the code of the modality is the
# class number of a softmax, so that the loss changes with the order of the batch.
# Ours: unit length, divided by the temperature, equal or different (ADR 0013).


def discriminate_bce(
    z: Float[Tensor, "b d"], modality: Int[Tensor, " b"], temperature: float | Tensor
) -> Float[Tensor, ""]:
    """Binary cross-entropy over pairs: mean_{i≠j} −y_ij·log σ(s_ij) − (1 − y_ij)·log(1 − σ(s_ij)).

    s_ij = cos(z_i, z_j) / τ; y_ij = 1 where i and j are of one modality. ``z`` may have any length. A batch of one
    modality gives zero and still has a graph.
    """
    with torch.autocast(z.device.type, enabled=False):
        logits, same, other = _pairs(z, modality, temperature)
        each = F.binary_cross_entropy_with_logits(logits, same.to(logits.dtype), reduction="none")  # (b, b)
        counted = same | other
        return (each * counted).sum() / counted.sum().clamp(min=1) * other.any()


def discriminate_supcon(
    z: Float[Tensor, "b d"], modality: Int[Tensor, " b"], temperature: float | Tensor
) -> Float[Tensor, ""]:
    """Supervised contrast with modalities as classes (arXiv:2004.11362 Eq. 2), mean over anchors with a positive:

    −1/|P(i)| Σ_{p∈P(i)} log( e^{s_ip} / Σ_{a≠i} e^{s_ia} ), P(i) the others of i's modality, s as above. A batch of one
    modality, or without two scans of any, gives zero and still has a graph.
    """
    with torch.autocast(z.device.type, enabled=False):
        logits, same, other = _pairs(z, modality, temperature)
        # The lowest number and not -inf: a batch of one has nothing else in its row.
        below = logits.masked_fill(~(same | other), torch.finfo(logits.dtype).min).logsumexp(1, keepdim=True)
        positives = same.sum(1)
        each = ((below - logits) * same).sum(1) / positives.clamp(min=1)  # (b,)
        return each.sum() / (positives > 0).sum().clamp(min=1) * other.any()


def _pairs(
    z: Tensor, modality: Tensor, temperature: float | Tensor
) -> tuple[Float[Tensor, "b b"], Bool[Tensor, "b b"], Bool[Tensor, "b b"]]:
    """Similarities over τ; which pairs are of one modality, which of two, self-pairs in neither."""
    z = unit(z)
    equal = modality[:, None] == modality
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    return z @ z.T / temperature, equal & ~itself, ~equal
