"""A scan in memory: numbers and where they lie in the patient."""

from dataclasses import dataclass

import numpy as np


def family(modality: str) -> str:
    """CT, MR, PT, … of a modality that says more after a hyphen: "MR-T1" is an MR."""
    return modality.partition("-")[0]


@dataclass(frozen=True)
class Volume:
    """One image or volume as a reader gives it.

    ``array`` is (C, X, Y, Z) for volumes and (C, H, W) for images, in the file's own index order; values are
    physical (HU for CT). ``affine`` (4, 4) maps voxel indices to RAS millimetres; for images without geometry it
    is the identity. For images row and column are its first and second axis.
    """

    array: np.ndarray
    affine: np.ndarray
    modality: str = ""

    @property
    def dims(self) -> int:
        """2 or 3 spatial axes."""
        return self.array.ndim - 1

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Edge lengths of a voxel in mm, one per spatial axis."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, : self.dims], axis=0))
