"""What numbers mean: from physical values to stored integers and the range that networks see.

Stored integers keep what the file held (HU, or the file's own integers) where that fits; ``gain`` and ``bias`` turn
them into normalised values: normalised = clip(stored · gain + bias, *value_range).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from medssl.data.stats import foreground_low
from medssl.errors import UserError

FINE_STEPS = 4_000  # of int16 for the range, where the file's own integers cannot be kept: 12 bits, as scanners have
SAMPLE = 1_000_000  # voxels that percentiles are taken over


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """How one modality is normalised. ``low`` and ``high`` are HU for a window, percent for percentiles."""

    normalise: Literal["window", "percentile", "zscore"] = "percentile"
    low: float = 0.5
    high: float = 99.5
    over: Literal["all", "foreground"] = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    def problems(self, name: str) -> list[UserError]:
        """Everything wrong with these values."""
        place, found = f"[modality.{name}]", []
        if self.normalise not in ("window", "percentile", "zscore"):
            found.append(UserError(f"normalise is '{self.normalise}'", place, "choose window, percentile or zscore"))
        if self.over not in ("all", "foreground"):
            found.append(UserError(f"over is '{self.over}'", place, "choose all or foreground"))
        if not -np.inf < self.low < self.high < np.inf:
            found.append(UserError(f"low {self.low:g} is not below high {self.high:g}", place, "give low < high"))
        if self.normalise == "percentile" and not (self.low >= 0 and self.high <= 100):
            found.append(UserError(f"percentiles {self.low:g}, {self.high:g}", place, "give numbers in [0, 100]"))
        return found


@dataclass(frozen=True)
class Limits:
    """Physical values that become the two ends of the value range."""

    low: float
    high: float


def background(image: np.ndarray) -> float | None:
    """The one value that holds most of the border of (C, *spatial): air of a stripped skull, padding; None without."""
    bright = _bright(image)
    faces = np.concatenate([bright.take((0, -1), axis=axis).ravel() for axis in range(bright.ndim)])
    middle = np.partition(faces, len(faces) // 2)[len(faces) // 2]  # a value that most have is the median too
    return float(middle) if np.mean(faces == middle) > 0.5 else None


def foreground(image: np.ndarray, modality: str) -> np.ndarray:
    """Voxels (*spatial) of (C, *spatial) that show the patient.

    Where the background's value lies amid the others (they were centred on zero, then the background was set to
    zero), what differs from it; else what is above the threshold of the index. Everything where that leaves next to
    nothing.
    """
    bright, around = _bright(image), background(image)
    amid = around is not None and around > np.percentile(_sample(bright), 0.5)
    inside = bright != around if amid else bright > foreground_low(image, modality)
    return inside if inside.mean() > 0.01 else np.ones(bright.shape, bool)


def is_hu(image: np.ndarray) -> bool:
    """CT numbers that never fall below zero are grey values of a picture, not Hounsfield units."""
    return bool(image.min() < 0)


def limits(image: np.ndarray, rule: Intensity, value_range: tuple[float, float], inside: np.ndarray | None) -> Limits:
    """Physical limits of (C, *spatial) under a rule; ``inside`` is the foreground, None for all voxels."""
    if rule.normalise == "window":
        return Limits(rule.low, rule.high)
    values = _sample(image if inside is None else image[:, inside])
    if rule.normalise == "zscore":
        mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        low, high = mean + value_range[0] * std, mean + value_range[1] * std
    else:
        low, high = (float(v) for v in np.percentile(values, (rule.low, rule.high)))
    if not low < high:  # nearly everything has one value: fall back on the extremes
        low, high = float(image.min()), float(image.max())
    if not low < high:
        raise UserError(f"every voxel is {low:g}", fix="leave this image out, or repair it")
    return Limits(low, high)


def quantised(
    image: np.ndarray, span: Limits, value_range: tuple[float, float], dtype: str, whole: bool
) -> tuple[np.ndarray, float, float]:
    """Stored integers (C, *spatial), gain, bias. ``whole``: the file's values are integers, or HU."""
    bounds = np.iinfo(dtype)
    width = span.high - span.low
    fits = bounds.min <= span.low and span.high <= bounds.max
    if whole and fits and width >= 100:
        step, zero = 1.0, 0.0
    elif dtype == "uint8":
        step, zero = width / 200, span.low - 25 * width / 200
    else:
        step, zero = width / FINE_STEPS, span.low
    stored = np.clip(np.rint((image - zero) / step), bounds.min, bounds.max).astype(dtype)
    gain = (value_range[1] - value_range[0]) / width
    return stored, gain * step, gain * (zero - span.low) + value_range[0]


def _bright(image: np.ndarray) -> np.ndarray:
    return image[0] if len(image) == 1 else image.max(axis=0)


def _sample(values: np.ndarray) -> np.ndarray:
    flat = values.ravel()
    return flat[:: (flat.size // SAMPLE) | 1]  # odd, so that it does not walk down one column of an even width
