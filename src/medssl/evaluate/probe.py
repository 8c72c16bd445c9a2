"""What a frozen encoder already knows: nearest neighbours and a linear classifier on its features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medssl.evaluate.nearest import nearest
from medssl.rng import stream

NEIGHBOURS = 10
HELD_OUT = 0.3


@dataclass(frozen=True)
class Split:
    """Positions (among the features) that a probe fits on, and those it is scored on; no patient is in both."""

    fit: np.ndarray
    score: np.ndarray


def split_patients(patients: Sequence[object], seed: int) -> Split:
    """Hold out about 30 % of the patients, at least one."""
    names, first, codes = np.unique(np.asarray(patients, dtype=str), return_index=True, return_inverse=True)
    codes = np.argsort(np.argsort(first))[codes]  # numbered as they come: their names are salted hashes
    order = stream(seed, "probe").permutation(len(names))
    held = np.isin(codes, order[: max(1, round(HELD_OUT * len(names)))])
    return Split(np.flatnonzero(~held), np.flatnonzero(held))


def probe(
    features: np.ndarray, truth: np.ndarray, split: Split, kinds: Sequence[str] = ("knn", "linear")
) -> dict[str, float]:
    """Balanced accuracy of both probes, as metrics.jsonl keeps them, averaged over the columns of ``truth``.

    features (n, d); truth (n, k) holds class numbers, NaN where nobody said; each column is a question of its own.
    Columns that one side knows one class of only are left out; none left gives no metrics.
    """
    classifiers = {"knn": knn, "linear": linear}
    scores: dict[str, list[float]] = {f"probe.{kind}": [] for kind in kinds}
    for column in truth.T:
        fit, score = (part[~np.isnan(column[part])] for part in (split.fit, split.score))
        if len(np.unique(column[fit])) < 2 or len(np.unique(column[score])) < 2:
            continue
        known, asked = column[fit].astype(int), column[score].astype(int)
        for kind in kinds:
            said = classifiers[kind](features[fit], known, features[score])
            scores[f"probe.{kind}"].append(balanced_accuracy(asked, said))
    return {name: float(np.mean(values)) for name, values in scores.items() if values}


def balanced_accuracy(truth: np.ndarray, said: np.ndarray) -> float:
    """Mean over the classes of ``truth`` of the share that was recognised."""
    return float(np.mean([(said[truth == name] == name).mean() for name in np.unique(truth)]))


def knn(known: np.ndarray, classes: np.ndarray, asked: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Class (m,) of each asked feature: the vote of its k nearest by cosine, each class weighed by its rarity."""
    middle = known.mean(axis=0)
    similar, rows = nearest(_unit(known - middle), _unit(asked - middle), min(k, len(known)))  # (m, k) each
    names, codes, counts = np.unique(classes, return_inverse=True, return_counts=True)
    votes = np.zeros((len(asked), len(names)))
    for similarity, row in zip(similar.T, rows.T, strict=True):
        np.add.at(votes, (np.arange(len(asked)), codes[row]), (1 + similarity) / counts[codes[row]])
    return names[votes.argmax(axis=1)]


def linear(known: np.ndarray, classes: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Class (m,) of each asked feature, by logistic regression on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300, class_weight="balanced"))
    return model.fit(known, classes).predict(asked)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
