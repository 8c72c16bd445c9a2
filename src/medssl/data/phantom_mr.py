"""The same torso as magnetic resonance shows it: tissues have signals instead of CT numbers.

Signals are relative (fat on T1 is near 1) and follow textbooks: on T1-like images fat is bright and water dark, on
T2-like ones water is brightest; cortical bone, air and moving gas give next to none. Drawing blends in signals, so
that a voxel half lung, half muscle looks like half of each and not like the fat whose CT number lies between theirs.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from medssl.data.phantom_anatomy import HEART, KIDNEY, LESION, LIVER, SPLEEN
from medssl.data.phantom_shapes import Field, smooth_field

T1, T2 = "MR-T1", "MR-T2"
CONTRASTS = (T1, T2)

# CT number: signal on T1, on T2. Of what has no name below: gas, lung, fat, water, blood, muscle, marrow, bone.
_TISSUES = {
    -1000: (0.00, 0.00), -940: (0.00, 0.00), -880: (0.05, 0.06), -790: (0.05, 0.06), -720: (0.00, 0.00),
    -250: (0.00, 0.00), -120: (0.95, 0.70), -60: (0.90, 0.68), -20: (0.40, 0.75), 5: (0.18, 1.00), 25: (0.20, 0.95),
    36: (0.30, 0.50), 45: (0.34, 0.30), 60: (0.38, 0.25), 80: (0.35, 0.30), 165: (0.55, 0.35), 330: (0.15, 0.10),
    430: (0.08, 0.06), 1000: (0.05, 0.04),
}  # fmt: skip
# Organs whose CT numbers hardly differ: their usual number, signal on T1, on T2.
_ORGANS = {
    LIVER: (56, 0.60, 0.28),
    HEART: (48, 0.42, 0.36),
    SPLEEN: (48, 0.40, 0.52),
    KIDNEY: (36, 0.50, 0.62),
    LESION: (30, 0.26, 0.88),
}
_TEXTURE = 0.006  # relative change of an organ's signal where its CT number differs by 1


def painter(contrast: str) -> Callable[[float | Field, int | None], float | Field]:
    """What ``Canvas.paint`` is for a contrast: (CT number, label or None) to signal."""
    column = CONTRASTS.index(contrast)
    numbers = np.array(list(_TISSUES), float)
    signals = np.array([pair[column] for pair in _TISSUES.values()])

    def paint(hu: float | Field, label: int | None) -> float | Field:
        if label in _ORGANS:
            usual, *signal = _ORGANS[label]
            return signal[column] * (1 + _TEXTURE * (hu - usual))
        signal_ = np.interp(hu, numbers, signals)
        return signal_.astype(np.float32) if np.ndim(hu) else float(signal_)

    return paint


def voxel_mm(rng: np.random.Generator, edge_mm: float) -> tuple[float, float, float]:
    """Voxels of an MR of a set whose CT has ``edge_mm`` in the plane: its own, and longer along the body."""
    plane = edge_mm * rng.uniform(0.95, 1.25)
    return plane, plane, edge_mm * rng.uniform(1.0, 1.8)


def mr_scanner(rng: np.random.Generator, signal: np.ndarray) -> np.ndarray:
    """What the machine adds: a coil that sees one side better, Rician noise, and units of its own. int16."""
    bias = np.exp(rng.uniform(0.1, 0.25) * smooth_field(rng, signal.shape, 3))
    blurred = ndimage.gaussian_filter(signal, rng.uniform(0.2, 0.5)).clip(0)
    noise = rng.uniform(0.015, 0.04) * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    magnitude = np.hypot(blurred * bias + noise[0], noise[1])
    return np.rint(rng.uniform(300, 1200) * magnitude).astype(np.int16)
