"""NRRD and MetaImage by SimpleITK, whose directions are LPS."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from medssl.errors import UserError
from medssl.volume import Volume

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # LPS to RAS and back


def check_grid(path: Path) -> None:
    """Refuse by the header what could not be used."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise UserError(f"unreadable header: {_last_line(error)}", fix="write the file again") from None
    if reader.GetDimension() > 3:
        text = "×".join(map(str, reader.GetSize()))
        fix = "save each time point or channel as a 3-D file of its own"
        raise UserError(f"a {reader.GetDimension()}-D image ({text}); medssl takes 2-D and 3-D", fix=fix)
    if reader.GetNumberOfComponents() > 4:
        raise UserError(f"{reader.GetNumberOfComponents()} numbers a voxel", fix="save a file for each of them")


def read_grid(path: Path) -> Volume:
    """The scan, (C, X, Y, Z) and its affine in RAS mm."""
    check_grid(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        fix = "copy the file again, with the data file beside it where there is one"
        raise UserError(f"unreadable voxels: {_last_line(error)}", fix=fix) from None
    if "complex" in image.GetPixelIDTypeAsString():
        raise UserError("complex voxels", fix="save the magnitude")
    return Volume(_channels_first(image), affine_of(image))


def affine_of(image: sitk.Image) -> np.ndarray:
    """(4, 4) voxel indices to RAS mm."""
    n = image.GetDimension()
    affine = np.eye(4)
    affine[:n, :n] = np.reshape(image.GetDirection(), (n, n)) * image.GetSpacing()
    affine[:n, 3] = image.GetOrigin()
    return FLIP @ affine


def _channels_first(image: sitk.Image) -> np.ndarray:
    array = sitk.GetArrayFromImage(image)  # (z, y, x[, c])
    if image.GetNumberOfComponentsPerPixel() == 1:
        array = array[..., None]
    while array.ndim < 4:
        array = array[None]
    return array.transpose(3, 2, 1, 0)[: 3 if array.shape[-1] == 4 else None]


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split("): ")[-1] if lines else "unknown fault"
