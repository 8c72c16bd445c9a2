"""How good a prediction is. NaN always means that the truth does not say; nothing is guessed from what is absent."""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata


def auc(score: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a positive (1) scores above a negative (0), ties counting half; (n,) each. NaN without both."""
    known = ~np.isnan(truth)
    score, positive = score[known], truth[known] == 1
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if not n_pos or not n_neg:
        return float("nan")
    # Mann-Whitney's U from ranks: what counting all pairs gives, in n log n.
    u = rankdata(score)[positive].sum() - n_pos * (n_pos + 1) / 2
    return float(u / (n_pos * n_neg))


def classification(prob: np.ndarray, truth: np.ndarray, kind: str) -> dict[str, float]:
    """AUC, accuracy, balanced accuracy and F1 of probabilities (n, k) against truth (n, k) of 0, 1 or NaN.

    ``kind`` "one": the classes exclude each other and the most probable one is chosen; with two classes AUC and F1 are
    those of the second one, with more they are means over classes, each against the rest. ``kind`` "many": each class
    is decided at one half on the items whose label is known, and all four are means over classes.
    """
    if kind == "one":
        return _one_of(prob, truth)
    columns = [_binary(p[~np.isnan(t)], t[~np.isnan(t)]) for p, t in zip(prob.T, truth.T, strict=True)]
    return {name: _mean([c[name] for c in columns]) for name in columns[0]}


def per_class_auc(prob: np.ndarray, truth: np.ndarray) -> list[float]:
    """AUC of each class against the rest, (n, k) each."""
    return [auc(p, t) for p, t in zip(prob.T, truth.T, strict=True)]


def _one_of(prob: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    known = ~np.isnan(truth).any(axis=1)
    prob, truth = prob[known], truth[known]
    chosen, right = prob.argmax(axis=1), truth.argmax(axis=1)
    k = truth.shape[1]
    scored = range(1, 2) if k == 2 else range(k)
    recalls = [float((chosen[right == c] == c).mean()) for c in range(k) if (right == c).any()]
    return {
        "auc": _mean([auc(prob[:, c], truth[:, c]) for c in scored]),
        "accuracy": _mean(list(chosen == right)),
        "balanced_accuracy": _mean(recalls),
        "f1": _mean([_f1(chosen == c, right == c) for c in scored]),
    }


def _binary(prob: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    chosen, right = prob >= 0.5, truth == 1
    recalls = [float((chosen[right == side] == side).mean()) for side in (False, True) if (right == side).any()]
    return {
        "auc": auc(prob, truth),
        "accuracy": _mean(list(chosen == right)),
        "balanced_accuracy": _mean(recalls) if len(recalls) == 2 else float("nan"),
        "f1": _f1(chosen, right),
    }


def _f1(chosen: np.ndarray, right: np.ndarray) -> float:
    """2TP / (2TP + FP + FN); NaN for a class that is neither there nor named."""
    marked = int(chosen.sum() + right.sum())
    return 2 * int((chosen & right).sum()) / marked if marked else float("nan")


def _mean(values: Sequence[float]) -> float:
    """Mean of what is known; NaN if nothing is."""
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def dice(pred: np.ndarray, truth: np.ndarray) -> float:
    """2|A∩B| / (|A|+|B|) of two boolean masks. NaN if both are empty; 0 if only one is, so inventions count."""
    total = int(pred.sum()) + int(truth.sum())
    return 2 * int((pred & truth).sum()) / total if total else float("nan")


def hd95(pred: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """95th percentile of surface distances in mm, the greater of both directions. NaN if a mask is empty."""
    if not pred.any() or not truth.any():
        return float("nan")
    import torch
    from monai.metrics import compute_hausdorff_distance

    both = pred | truth
    box = tuple(slice(int(a.min()), int(a.max()) + 1) for a in both.nonzero())
    # A margin of background all round: else a mask that fills its box would have no surface there.
    a, b = (torch.from_numpy(np.pad(m[box], 1)[None, None]) for m in (pred, truth))
    with warnings.catch_warnings():  # MONAI's word to itself about an argument that it gives itself
        warnings.simplefilter("ignore", FutureWarning)
        distance = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=list(spacing_mm))
    return float(distance.item())


def segmentation(
    pred: np.ndarray, truth: np.ndarray, labels: Sequence[int], spacing_mm: Sequence[float], surfaces: bool = True
) -> dict[str, list[float]]:
    """``dice``, and with ``surfaces`` ``hd95`` (mm), of each label of two label maps of one shape."""
    pairs = [(pred == label, truth == label) for label in labels]
    scores = {"dice": [dice(p, t) for p, t in pairs]}
    return scores | {"hd95": [hd95(p, t, spacing_mm) for p, t in pairs]} if surfaces else scores


def mean_over_items(rows: np.ndarray) -> float:
    """Mean over structures, then over items, of (n, k) scores; NaN where nothing is known."""
    return _mean([_mean(list(row)) for row in rows])
