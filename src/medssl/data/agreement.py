"""Do two scans agree better once one of them has been moved? Asked at the same places with and without the move."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import map_coordinates

from medssl.rng import stream

POINTS = 60_000
BINS = 32  # of the grey values of each scan
BLOCKS = 4  # along each axis: neighbouring voxels err alike, parts of a body hardly


def gain(
    fixed: np.ndarray, fixed_affine: np.ndarray, moving: np.ndarray, moving_affines: Sequence[np.ndarray]
) -> tuple[float, float]:
    """How much the second of two places of ``moving`` raises the mutual information, in nats, and the standard error.

    Images (X, Y, Z), affines (4, 4) of both places. Read between voxels, where interpolation blurs both alike, at
    points within ``moving`` in both places, since mutual information of an overlap grows as the overlap shrinks. The
    error is over blocks of the volume. Without common points: (0, infinity).
    """
    at = stream(0, "agreement").random((POINTS, 3)) * (np.array(fixed.shape) - 1)
    world = at @ fixed_affine[:3, :3].T + fixed_affine[:3, 3]
    places = [np.linalg.solve(a[:3, :3], (world - a[:3, 3]).T) for a in moving_affines]  # (3, p) each
    limit = np.array(moving.shape)[:, None] - 1
    common = np.all([(place >= 0) & (place <= limit) for place in places], axis=(0, 1))
    if not common.any():
        return 0.0, np.inf
    seen = map_coordinates(fixed, at[common].T, order=1)
    before, after = (_information(seen, map_coordinates(moving, place[:, common], order=1)) for place in places)
    return _mean(after - before, np.ravel_multi_index(_block(at[common], fixed.shape), (BLOCKS,) * 3))


def _information(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """log p(a, b) / (p(a) p(b)) of every pair (n,) of grey values; its mean is their mutual information in nats."""
    a, b = (_binned(x) for x in (a, b))
    joint = np.bincount(a * BINS + b, minlength=BINS * BINS).reshape(BINS, BINS) / len(a)
    return np.log(joint[a, b] / (joint.sum(1)[a] * joint.sum(0)[b]))


def _binned(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    scale = BINS / (high - low) if high > low else 0.0
    return np.minimum((values - low) * scale, BINS - 1).astype(int)


def _block(at: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, ...]:
    return tuple(np.minimum(at / np.array(shape) * BLOCKS, BLOCKS - 1).astype(int).T)


def _mean(values: np.ndarray, block: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error, where the values of a block go together."""
    mean = values.mean()
    apart = np.bincount(block, values - mean)
    return float(mean), float(np.sqrt((apart**2).sum()) / len(values))
