"""What a space shared by modalities looks like: is it shared, or does each modality keep to a corner of its own?

All embeddings are taken at unit length, in float64.
"""

from typing import Any

import numpy as np

from medssl.evaluate.probe import balanced_accuracy, linear, split_patients
from medssl.evaluate.retrieval import Samples, unit

T = 2.0  # of the uniformity, as in the paper


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of the centroids of two modalities, 0 to 2 (Liang et al. 2022, arXiv:2203.02053, Sec. 2)."""
    return float(np.linalg.norm(unit(a).mean(axis=0) - unit(b).mean(axis=0)))


def pair_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine of true pairs: row i of a (n, d) and row i of b (n, d)."""
    return float((unit(a) * unit(b)).sum(axis=1).mean())


def alignment(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared distance of true pairs, 0 the best (Wang and Isola 2020, arXiv:2005.10242, with α = 2)."""
    return float(((unit(a) - unit(b)) ** 2).sum(axis=1).mean())


def uniformity(z: np.ndarray) -> float:
    """log mean exp(−2 ‖zᵢ − zⱼ‖²) over pairs i < j, lower is better spread; NaN for fewer than two (same paper)."""
    if len(z) < 2:
        return float("nan")
    u = unit(z)
    i, j = np.triu_indices(len(u), 1)
    exponents = -T * (2 - 2 * (u @ u.T)[i, j])
    most = exponents.max()
    return float(most + np.log(np.exp(exponents - most).mean()))


def separability(parts: list[Samples], seed: int = 0) -> float:
    """Balanced accuracy of a linear classifier that tells the modalities apart, on patients it has not seen.

    1 / number of modalities: it cannot. NaN where a side lacks a modality.
    """
    z = np.concatenate([unit(part.z) for part in parts])
    kind = np.concatenate([np.full(len(part.z), i) for i, part in enumerate(parts)])
    split = split_patients(np.concatenate([part.patient for part in parts]).tolist(), seed)
    if any(len(np.unique(kind[side])) < len(parts) for side in (split.fit, split.score)):
        return float("nan")
    return balanced_accuracy(kind[split.score], linear(z[split.fit], kind[split.fit], z[split.score]))


def true_pairs(a: Samples, b: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Positions (p,), (p,) of all pairs of one subject."""
    i, j = np.nonzero(a.subject[:, None] == b.subject)
    return i, j


def joint(parts: dict[str, Samples], seed: int = 0) -> dict[str, Any]:
    """All of these, for every two modalities, every modality, and all together; None where one is undefined."""
    pairs = []
    names = list(parts)
    for n, first in enumerate(names):
        for second in names[n + 1 :]:
            a, b = parts[first], parts[second]
            i, j = true_pairs(a, b)
            found = {"modalities": [first, second], "pairs": len(i), "gap": gap(a.z, b.z)}
            if len(i):
                found |= {"pair_cosine": pair_cosine(a.z[i], b.z[j]), "alignment": alignment(a.z[i], b.z[j])}
            pairs.append(found)
    each = {name: {"samples": len(part.z), "uniformity": known(uniformity(part.z))} for name, part in parts.items()}
    told = known(separability(list(parts.values()), seed)) if len(parts) > 1 else None
    return {"pairs": pairs, "modalities": each, "separability": told, "separability_chance": 1 / max(1, len(parts))}


def known(value: float) -> float | None:
    """A number, or None for NaN, as JSON wants it."""
    return float(value) if np.isfinite(value) else None
