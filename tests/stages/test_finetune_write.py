"""Predictions as files: another reader finds them where the scan lies."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medssl.data.pictures import read_picture
from medssl.fine_tuned import as_mask
from medssl.stages.finetune_write import write_nifti
from medssl.volume import Volume


def turn(degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
@pytest.mark.parametrize("degrees", [0, 17])
@pytest.mark.parametrize("shear", [0, 0.6])
def test_nifti_keeps_voxels_and_an_oblique_affine(
    flip: tuple[int, ...], degrees: float, shear: float, tmp_path: Path
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = turn(degrees) @ np.diag(np.multiply(flip, (0.7, 1.3, 2.5)))
    affine[0, 2] += shear
    affine[:3, 3] = (-20, 5, 33)
    labels = np.random.default_rng(0).integers(0, 5, (6, 4, 3)).astype(np.uint8)
    write_nifti(tmp_path / "p.nii.gz", Volume(labels[None], affine))
    read = nib.load(tmp_path / "p.nii.gz")
    np.testing.assert_array_equal(np.asarray(read.dataobj), labels)
    np.testing.assert_allclose(read.affine, affine, atol=1e-4)


@pytest.mark.parametrize("largest", [1, 255, 256, 40000])
def test_a_picture_holds_any_mask_value(largest: int, tmp_path: Path) -> None:
    values = np.array([[0, 1, largest]], np.int64)
    Image.fromarray(as_mask(values)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "m.png", labels=True).array[0], values)
