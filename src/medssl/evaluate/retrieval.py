"""Does a scan find its partner in another modality? Recall at k and rank, per patient, with chance beside them.

A hit is any sample of the query's subject. Other studies of the same patient are neither hits nor misses: they are left
out of the query's gallery. Ties are broken at random in expectation, so a constant embedding scores as chance does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln

from medssl.evaluate.interval import estimate, resample
from medssl.evaluate.scorers import PatientMean
from medssl.rng import stream

KS = (1, 5, 10)
DIGITS = 9  # of similarities in float64: equal vectors are equal whichever order they were multiplied in


@dataclass(frozen=True)
class Samples:
    """Embeddings (n, d) with their subject and patient, int64 (n,)."""

    z: np.ndarray
    subject: np.ndarray
    patient: np.ndarray


@dataclass(frozen=True)
class Ranks:
    """Of each query that has a partner: what stands before and beside the best of them. All (q,)."""

    query: np.ndarray
    """Position among the queries."""
    above: np.ndarray
    """Others that are more similar."""
    tied: np.ndarray
    """Others that are just as similar."""
    best: np.ndarray
    """Partners that are just as similar as the best one, itself included."""
    partners: np.ndarray
    candidates: np.ndarray
    """Partners and others."""

    def expected(self) -> np.ndarray:
        """Rank of the first partner, 1 the best, the mean over all orders of what is tied."""
        return self.above + 1 + self.tied / (self.best + 1)

    def recall(self, k: int) -> np.ndarray:
        """Chance in [0, 1] that a partner is among the first k, over all orders of what is tied."""
        return _hit(self.best, self.tied, k - self.above)

    def chance_recall(self, k: int) -> np.ndarray:
        """The same of a random order of the candidates."""
        return _hit(self.partners, self.candidates - self.partners, np.full(len(self.query), k))

    def chance_rank(self) -> np.ndarray:
        """Expected rank in a random order."""
        return (self.candidates + 1) / (self.partners + 1)


def ranks(query: Samples, gallery: Samples) -> Ranks:
    """How each query's partners stand among the gallery, by cosine. Queries without a partner are left out."""
    similarity = np.round(unit(query.z) @ unit(gallery.z).T, DIGITS)  # (n, m)
    partner = query.subject[:, None] == gallery.subject
    other = ~partner & (query.patient[:, None] != gallery.patient)
    known = partner.any(axis=1) & other.any(axis=1)
    similarity, partner, other = similarity[known], partner[known], other[known]
    top = np.where(partner, similarity, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    return Ranks(
        query=np.flatnonzero(known),
        above=(other & (similarity > top)).sum(axis=1),
        tied=(other & (similarity == top)).sum(axis=1),
        best=(partner & (similarity == top)).sum(axis=1),
        partners=partner.sum(axis=1),
        candidates=(partner | other).sum(axis=1),
    )


def retrieval(query: Samples, gallery: Samples, seed: int = 0) -> dict[str, Any]:
    """R@1, R@5, R@10 (means over patients) and the median rank, each {value, interval (95 %), chance}.

    Patients are bootstrapped as queries; the gallery stays. Without a query that has a partner: {"queries": 0}.
    """
    found = ranks(query, gallery)
    if not len(found.query):
        return {"queries": 0}
    names, codes = np.unique(query.patient[found.query], return_inverse=True)
    about = {"queries": len(found.query), "patients": len(names), "candidates": float(np.median(found.candidates))}
    scores = {f"r@{k}": _recall(found, k, codes, len(names), seed) for k in KS}
    middle = PatientMedian(found.expected(), codes, len(names))
    by_chance = PatientMedian(found.chance_rank(), codes, len(names))(np.ones((1, len(names))))
    rank = _judged(middle, seed, float(found.candidates.max())) | {"chance": float(by_chance[0])}
    return about | scores | {"median_rank": rank}


def _recall(found: Ranks, k: int, codes: np.ndarray, patients: int, seed: int) -> dict[str, Any]:
    of_value, of_chance = (
        PatientMean(hits[:, None], codes.tolist(), patients) for hits in (found.recall(k), found.chance_recall(k))
    )
    score = _judged(of_value, seed, 1.0)
    chance = float(of_chance(np.ones((1, patients)))[0])  # over patients as the value: some ask more often than others
    if score["value"] in (0.0, 1.0) and chance < 1:
        # All patients alike: a bootstrap would be sure of it. Clopper and Pearson's bound of none in so many is not.
        reach = 1 - 0.025 ** (1 / patients)
        score["interval"] = [0.0, reach] if score["value"] == 0 else [1 - reach, 1.0]
    return score | {"chance": chance}


class PatientMedian:
    """Median over queries, each as often as its patient was drawn; the lower one of two in the middle."""

    def __init__(self, values: np.ndarray, codes: np.ndarray, patients: int) -> None:
        order = np.argsort(values, kind="stable")
        self._values, self._owner = values[order], np.asarray(codes)[order]
        self.needed = np.bincount(codes, minlength=patients)[:, None].astype(float)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        total = np.cumsum(weights[:, self._owner], axis=1)
        return self._values[(total >= total[:, -1:] / 2).argmax(axis=1)]


def unit(z: np.ndarray) -> np.ndarray:
    """Rows (n, d) of unit length, float64; a row of zeros stays one."""
    z = np.asarray(z, np.float64)
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)


def _judged(scorer: Any, seed: int, most: float) -> dict[str, Any]:
    """Value and interval over patients, within what the score can be."""
    patients = len(scorer.needed)
    weights = resample(scorer.needed, stream(seed, "retrieval"))
    value = scorer(np.ones((1, patients)))
    drawn = scorer(weights)[:, None] if len(weights) else np.empty((0, 1))
    ends = estimate(value, drawn, scorer.needed, stream(seed, "interval")).interval()
    low = 0.0 if most == 1.0 else 1.0
    interval: Sequence[float | None] = [float(np.clip(e, low, most)) if np.isfinite(e) else None for e in ends]
    return {"value": float(value[0]), "interval": list(interval)}


def _hit(wanted: np.ndarray, others: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Chance that one of ``wanted`` is among the first ``places`` of a random order of wanted and others.

    One less the hypergeometric chance of none: C(others, places) / C(wanted + others, places).
    """
    p = np.clip(places, 0, wanted + others)
    sure = p > others
    q = np.minimum(p, others)
    log_none = gammaln(others + 1) - gammaln(others - q + 1) - gammaln(wanted + others + 1)
    log_none += gammaln(wanted + others - q + 1)
    return np.where(sure, 1.0, np.where(p == 0, 0.0, -np.expm1(log_none)))
