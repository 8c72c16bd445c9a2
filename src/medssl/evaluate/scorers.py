"""Metrics of one run's predictions as functions of how often each test patient counts, for the bootstrap."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import polars as pl
from jaxtyping import Float

_CHUNK = 100_000  # weights handled at once: what fits the cache is twice as fast


class Scorer(Protocol):
    """A metric of one run's predictions as a function of how often each patient counts."""

    needed: Float[np.ndarray, "patients groups"]
    """Above zero where a patient belongs to a group that a resample must not lack (a class's positives)."""

    def __call__(self, weights: Float[np.ndarray, "n patients"]) -> Float[np.ndarray, "n"]: ...


class PatientMean:
    """Mean over patients of each patient's mean, as of Dice; NaN values (structure absent) do not count."""

    def __init__(self, values: Float[np.ndarray, "items columns"], codes: Sequence[int], patients: int) -> None:
        per_patient = np.full(patients, np.nan)
        owner = np.asarray(codes)
        for p in range(patients):
            mine = values[owner == p]
            if np.isfinite(mine).any():
                per_patient[p] = np.nanmean(mine)
        self._known = np.isfinite(per_patient)
        self._values = np.where(self._known, per_patient, 0.0)
        self.needed = self._known[:, None].astype(float)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return (weights @ self._values) / (weights @ self._known)


class MacroAuc:
    """Area under the ROC curve, the mean over classes; an item counts as often as its patient was drawn."""

    def __init__(self, prob: np.ndarray, truth: np.ndarray, codes: Sequence[int], patients: int) -> None:
        """``prob``, ``truth`` (items, classes); truth 0, 1 or NaN. A class with one side only is left out."""
        self._classes: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        owners, needed = np.asarray(codes), []
        for column in range(truth.shape[1]):
            known = np.isfinite(truth[:, column])
            label, owner = truth[known, column] > 0.5, owners[known]
            if label.all() or not label.any():
                continue
            order = np.argsort(prob[known, column], kind="stable")
            score = prob[known, column][order]
            ties = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])  # where each group of equal scores starts
            self._classes.append((owner[order], label[order], ties))
            needed += [np.bincount(owner[side], minlength=patients) for side in (label, ~label)]
        self.needed = np.array(needed, float).T if needed else np.zeros((patients, 1))

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        if not self._classes:
            return np.full(len(weights), np.nan)
        step = max(1, _CHUNK // max(len(owner) for owner, *_ in self._classes))
        parts = [self._score(weights[i : i + step]) for i in range(0, len(weights), step)]
        return np.concatenate([np.empty(0), *parts])  # no weights, no scores: one patient cannot be resampled

    def _score(self, weights: np.ndarray) -> np.ndarray:
        total = np.zeros(len(weights))
        for owner, label, ties in self._classes:
            w = weights[:, owner]
            positive = np.add.reduceat(w * label, ties, axis=1)
            negative = np.add.reduceat(w * ~label, ties, axis=1)
            below = np.cumsum(negative, axis=1) - negative / 2  # a tie counts half
            total += (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))
        return total / len(self._classes)


def scorer(predictions: pl.DataFrame, metric: str, patients: Sequence[str]) -> Scorer:
    """The metric ("auc" or "dice") of one run's predictions, over ``patients`` in this order."""
    place = {name: i for i, name in enumerate(patients)}
    codes = [place[name] for name in predictions["patient"].cast(pl.String)]
    if metric == "auc":
        probs = [name for name in predictions.columns if name.startswith("prob.")]
        truths = ["truth." + name.removeprefix("prob.") for name in probs]
        prob, truth = (predictions.select(pl.col(c).cast(pl.Float64)).to_numpy() for c in (probs, truths))
        return MacroAuc(prob, truth, codes, len(place))
    names = [name for name in predictions.columns if name.startswith("dice.")]
    return PatientMean(predictions.select(pl.col(names).cast(pl.Float64)).to_numpy(), codes, len(place))


def score_all(runs: Sequence[Scorer], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(runs,) scores on all patients and (n, runs) on the resampled ones."""
    everyone = np.ones((1, weights.shape[1]))
    full = np.array([run(everyone)[0] for run in runs])
    return full, np.stack([run(weights) for run in runs], axis=1) if len(runs) else np.empty((len(weights), 0))
