"""What intensities say of a scan: statistics, foreground, a hash that only equal voxels share."""

import hashlib

import numpy as np

from medssl.volume import family

SAMPLE = 1 << 20  # percentiles come from at most about this many voxels, evenly taken
AIR_HU = -500.0  # between air and tissue


def foreground_low(array: np.ndarray, modality: str) -> float:
    """The value above which a voxel is foreground.

    CT: -500 HU, where the values are Hounsfield units. Volumes: a tenth of the way from the 2nd to the 98th
    percentile, the rule of FSL's brain extraction, which survives bright outliers. Images: the smallest value,
    since what is black in an X-ray or ultrasound image is mostly border.
    """
    sample = array.ravel()[:: max(1, array.size // SAMPLE)]
    low = float(sample.min())
    if family(modality) == "CT" and low < AIR_HU:
        return AIR_HU
    if array.ndim - 1 == 2:
        return low
    p2, p98 = np.percentile(sample, [2, 98])
    return float(p2 + 0.1 * (p98 - p2))


def statistics(array: np.ndarray, modality: str) -> dict[str, float]:
    """Columns of the index, from finite values of all channels (C, *spatial)."""
    flat = array.ravel()
    sample = flat[:: max(1, flat.size // SAMPLE)]
    p01, p99 = np.percentile(sample, [1, 99])
    threshold = foreground_low(array, modality)
    inside = sample[sample > threshold]
    inside = inside if inside.size else sample
    low, high = np.percentile(inside, [0.5, 99.5])
    values = {
        "min": flat.min(),
        "max": flat.max(),
        "mean": flat.mean(dtype=np.float64),
        "std": flat.std(dtype=np.float64),
        "p01": p01,
        "p99": p99,
        "foreground_low": threshold,
        "foreground_p005": low,
        "foreground_p995": high,
        "foreground_mean": inside.mean(dtype=np.float64),
        "foreground_std": inside.std(dtype=np.float64),
    }
    return {name: float(value) for name, value in values.items()}


def content_hash(array: np.ndarray) -> str:
    """A hash of shape and values, whatever the type or the file they came in."""
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array, dtype="<f4").data)
    return digest.hexdigest()
