"""Classes named in words: which class's texts lies an image nearest to? No label is learnt from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from medssl.evaluate.interval import estimate, resample
from medssl.evaluate.probe import balanced_accuracy
from medssl.evaluate.retrieval import unit
from medssl.evaluate.scorers import MacroAuc
from medssl.rng import stream

TEMPLATES = ("{}.", "There is {}.", "The study shows {}.", "Findings: {}.")


def prompts_of(classes: Sequence[str], templates: Sequence[str] = TEMPLATES) -> dict[str, list[str]]:
    """Each class's name in every template; underscores become spaces."""
    return {name: [t.format(name.replace("_", " ")) for t in templates] for name in classes}


def class_vectors(prompts: Sequence[np.ndarray]) -> np.ndarray:
    """(k, d) unit vectors: the mean of each class's prompts (p, d), each of unit length first (CLIP, Sec. 3.1.4)."""
    return unit(np.stack([unit(p).mean(axis=0) for p in prompts]))


def probabilities(images: np.ndarray, classes: np.ndarray, temperature: float = 0.07) -> np.ndarray:
    """(n, k): softmax of the cosines of images (n, d) and classes (k, d), divided by the temperature."""
    return softmax(unit(images) @ unit(classes).T / temperature, axis=1)


def scores(prob: np.ndarray, truth: np.ndarray, patient: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """AUC (mean over classes) with its interval over patients, and balanced accuracy; chance beside both.

    prob (n, k); truth (n,) class numbers; patient (n,).
    """
    names, codes = np.unique(patient, return_inverse=True)
    scorer = MacroAuc(prob, np.eye(prob.shape[1])[truth], codes.tolist(), len(names))
    value = scorer(np.ones((1, len(names))))
    weights = resample(scorer.needed, stream(seed, "zeroshot"))
    drawn = scorer(weights)[:, None] if len(weights) else np.empty((0, 1))
    ends = estimate(value, drawn, scorer.needed, stream(seed, "interval")).interval()
    return {
        "scans": len(truth),
        "patients": len(names),
        "auc": {
            "value": float(value[0]) if np.isfinite(value[0]) else None,
            "interval": [float(np.clip(e, 0, 1)) if np.isfinite(e) else None for e in ends],
            "chance": 0.5,
        },
        "balanced_accuracy": {
            "value": balanced_accuracy(truth, prob.argmax(axis=1)),
            "chance": 1 / prob.shape[1],
        },
    }
