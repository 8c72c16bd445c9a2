"""Does the encoder still tell images apart? Effective rank and spread of its features, and a plain warning."""

import numpy as np

LOST = 0.25  # of what the untrained encoder has: below this share something went wrong


def effective_rank(features: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values of the centred features (n, d); 0 where all are equal.

    Roy and Vetterli 2007, eq. 2–4. Between 1 (all images on one line) and min(n − 1, d).
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    values = np.linalg.svd(centred, compute_uv=False)
    if values.size == 0 or values[0] <= 1e-6 * max(np.abs(features).max(), 1e-30) * np.sqrt(features.size):
        return 0.0
    share = values / values.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def feature_std(features: np.ndarray) -> float:
    """Spread of the unit-length features (n, d), as a share of what random directions have: 1 isotropic, 0 collapsed.

    The mean over the d axes of the standard deviation over images, times √d (SimSiam, arXiv:2011.10566, sec. 4.1).
    """
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(length, 1e-12)
    return float(unit.std(axis=0).mean() * np.sqrt(features.shape[1]))


def collapse_metrics(features: np.ndarray) -> dict[str, float]:
    """Metrics of features (n, d) as metrics.jsonl keeps them."""
    return {"effective_rank": effective_rank(features), "feature_std": feature_std(features)}


def warning(now: dict[str, float], untrained: dict[str, float]) -> str | None:
    """What is wrong, what causes it and what to do, in plain words; None while all is well.

    An untrained encoder maps all images close together too, and how close depends on encoder and images. So the
    yardstick is what it gave before training: a sound method spreads the images further.
    """
    if not now or not untrained:
        return None
    remedy = "lower --lr, take a larger --batch, or stronger views; the weights before this are worth more"
    before, std = untrained["feature_std"], now["feature_std"]
    if std < LOST * before:
        return (
            f"the encoder gives ever more similar features to all images (spread {before:.3g} → {std:.3g}): it is "
            f"collapsing, often from too high a learning rate or too few negatives; {remedy}"
        )
    before, rank = untrained["effective_rank"], now["effective_rank"]
    if rank < LOST * before:
        return (
            f"the features vary along ever fewer directions (effective rank {before:.1f} → {rank:.1f}): "
            f"the encoder answers to a few easy traits only, brightness or size say; {remedy}"
        )
    return None
