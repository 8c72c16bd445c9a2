"""The label-saving factor: with n labels an arm reaches what scratch reaches with k·n.

k is read off scratch's learning curve, straight between the counts that were run on a logarithmic axis of labels, and
made monotone first (isotonic regression): more labels do not harm, what looks so is chance. Its interval comes of the
same draws of seeds, patients and pre-trainings as all others, here of the whole curve at once. Beyond the curve nothing
is known: a factor at an end of its ``range`` means "at least" or "at most" so much.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from medssl.evaluate.interval import joint, quantiles


def labels_saved(
    full: Float[np.ndarray, "pretrainings seeds scores"],
    resampled: Float[np.ndarray, "n pretrainings seeds scores"],
    needed: np.ndarray,
    counts: Sequence[int],
    n_labels: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The factor of one arm at ``n_labels``, of a curve that can be read. Scores: scratch at each of the rising
    ``counts``, then the arm.
    """
    draws, _ = joint(full, resampled, needed, rng)
    mean = full.mean((0, 1))[None]
    factor, spread = (labels_of(counts, x[:, :-1], x[:, -1]) / n_labels for x in (mean, draws))
    interval, ends = quantiles(spread), (counts[0] / n_labels, counts[-1] / n_labels)
    value, low, high = (_within(x, ends) for x in (float(factor[0]), *interval))
    return {
        "factor": float(factor[0]),
        "interval": list(interval),
        "range": list(ends),
        "why": "",
        "text": value if value == low == high else f"{value} ({low} to {high})",
    }


def unreadable(
    full: Float[np.ndarray, "pretrainings seeds counts"],
    resampled: Float[np.ndarray, "n pretrainings seeds counts"],
    needed: np.ndarray,
    counts: Sequence[int],
    rng: np.random.Generator,
) -> str:
    """Why scratch's curve says nothing about labels; empty if it can be read. Not a question of any arm beside it."""
    if len(counts) < 2:
        return "one label count shows no curve"
    draws, _ = joint(full, resampled, needed, rng)
    if full.shape[1] < 2 or not len(draws):
        return "one seed, or too few test patients, show no error"
    if quantiles(draws[:, -1] - draws[:, 0])[0] <= 0:
        return f"scratch's gain from {counts[0]} to {counts[-1]} labels lies within its noise"
    return ""


def unknown(why: str) -> dict[str, Any]:
    """What stands for a factor that cannot be read, and why."""
    return {"factor": None, "interval": None, "range": None, "why": why, "text": "unknown"}


def labels_of(
    counts: Sequence[int], curves: Float[np.ndarray, "n counts"], scores: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """With how many labels each curve first reaches its score; the ends of the curve stand for all beyond them."""
    rising, place = isotonic(curves), np.log(np.asarray(counts, float))
    below = (rising < scores[:, None]).sum(1)
    after = below.clip(1, len(place) - 1)
    y0, y1 = (np.take_along_axis(rising, i[:, None], 1)[:, 0] for i in (after - 1, after))
    share = np.where(y1 > y0, (scores - y0) / np.where(y1 > y0, y1 - y0, 1), 0).clip(0, 1)
    between = place[after - 1] + share * (place[after] - place[after - 1])
    return np.where(below == 0, counts[0], np.where(below == len(place), counts[-1], np.exp(between)))


def isotonic(curves: Float[np.ndarray, "n counts"]) -> Float[np.ndarray, "n counts"]:
    """The nearest curves (least squares) that never fall, by the max–min formula: fast for a few counts at once."""
    k = curves.shape[1]
    sums = np.concatenate([np.zeros((len(curves), 1)), np.cumsum(curves, 1)], 1)
    rising = np.empty_like(curves)
    for i in range(k):
        least = [
            np.min([(sums[:, b + 1] - sums[:, a]) / (b + 1 - a) for b in range(i, k)], axis=0) for a in range(i + 1)
        ]
        rising[:, i] = np.max(least, axis=0)
    return rising


def _within(x: float, ends: tuple[float, float]) -> str:
    """Two digits, and ≤ or ≥ at the ends of what the curve can show."""
    sign = next((s for s, end in zip("≤≥", ends, strict=True) if math.isclose(x, end, rel_tol=1e-9)), "")
    return f"{sign} {x:#.2g}".rstrip(".").lstrip()
