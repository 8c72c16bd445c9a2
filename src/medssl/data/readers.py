"""One way in for every format: a row of the index and the folder of scans give a Volume."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.masks import fitted, labels_of
from medssl.errors import UserError
from medssl.volume import Volume

SUFFIXES = {".nii": "nifti", ".hdr": "nifti", ".nrrd": "itk", ".nhdr": "itk", ".mha": "itk", ".mhd": "itk"}
SUFFIXES |= {".png": "picture", ".jpg": "picture", ".jpeg": "picture", ".tif": "picture", ".tiff": "picture"}
SUFFIXES |= {".bmp": "picture", ".npz": "npz", ".dcm": "dicom", ".dicom": "dicom", ".ima": "dicom"}
GEOMETRY_FREE = frozenset({"picture", "npz"})


def reader_of(name: str) -> str:
    """The reader that a file's ending calls for, or "" where only its content can tell."""
    lower = name.lower()
    if lower.endswith(".gz"):
        return "nifti" if lower.endswith(".nii.gz") else ""
    return SUFFIXES.get("." + lower.rpartition(".")[2] if "." in lower else "", "")


def read_volume(row: Mapping[str, Any], root: Path) -> Volume:
    """The scan of an index row: (C, X, Y, Z), or (C, H, W) for one slice, in physical units (HU for CT).

    Voxels are uint8, int16 or float32. NaN and infinities become the smallest finite value. ``root`` is the folder
    of scans. A UserError says what is wrong with the file.
    """
    volume = read_raw(row, root)
    if volume.array.dtype.kind != "f":
        return volume
    finite = np.isfinite(volume.array)
    if finite.all():
        return volume
    low = volume.array[finite].min() if finite.any() else 0.0
    return Volume(np.where(finite, volume.array, low), volume.affine, volume.modality)


def read_mask(row: Mapping[str, Any], root: Path) -> Volume | None:
    """The mask of an index row on the grid of its image, (1, *spatial) int16 with 0 for background; None without one.

    A mask whose axes run otherwise than the image's is turned; one that lies elsewhere is a UserError.
    """
    if not row.get("mask_path"):
        return None
    path = Path(root) / row["mask_path"]
    kind = reader_of(path.name)
    if kind not in ("nifti", "itk", "picture"):
        raise UserError("no reader for this mask", path, "save it as NIfTI, NRRD, MHA or PNG")
    try:
        mask = _load({"reader": kind, "files": [path.name]}, path.parent, labels=True)
        labels = labels_of(mask, lossy=path.suffix.lower() in (".jpg", ".jpeg"))
        if row.get("shape") is not None and row.get("affine") is not None:
            return fitted(labels, tuple(row["shape"]), np.reshape(row["affine"], (4, 4)), _planar)
        image = read_volume(row, root)
        return fitted(labels, image.array.shape[1:], image.affine, _planar)
    except FileNotFoundError:
        raise UserError("mask not found", path, "correct mask_path: relative to the scans or the table") from None
    except UserError as error:
        raise UserError(error.what, path, error.fix) from None


def read_raw(row: Mapping[str, Any], root: Path) -> Volume:
    """As the file has it, non-finite values too."""
    path = Path(root) / row["files"][0]
    try:
        volume = _load(row, Path(root))
        if row["reader"] in ("nifti", "itk"):
            volume = _planar(volume)
    except FileNotFoundError:
        raise UserError("file not found", path, "index the folder again") from None
    except PermissionError:
        raise UserError("no permission to read", path, "allow reading it (chmod +r)") from None
    except MemoryError:
        raise UserError("larger than the memory", path, "crop it or make it coarser") from None
    except UserError as error:
        raise UserError(error.what, error.where or path, error.fix) from None
    array = compact(volume.array)
    if len(array) == 3 and np.array_equal(array[0], array[1]) and np.array_equal(array[0], array[2]):
        array = array[:1]  # gray, stored as colour
    return Volume(array, volume.affine, row.get("modality") or volume.modality)


def compact(array: np.ndarray) -> np.ndarray:
    """uint8 stays, integers that fit become int16, all else float32."""
    if array.dtype == np.uint8 or array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.size and array.dtype.kind in "iu" and array.min() >= -32768 and array.max() <= 32767:
        return array.astype(np.int16)
    if array.dtype.kind == "f" and array.size and _whole(array):
        return array.astype(np.int16)
    return array.astype(np.float32)


def _whole(array: np.ndarray) -> bool:
    """True for floats that are 16-bit integers, as rescaled CT is."""
    low, high = array.min(), array.max()
    if not (low >= -32768 and high <= 32767):  # false for NaN too
        return False
    sample = array.ravel()[:: max(1, array.size // 4096)]
    return bool((sample == np.rint(sample)).all() and (array == np.rint(array)).all())


def _load(row: Mapping[str, Any], root: Path, labels: bool = False) -> Volume:
    # Imported when used: a folder of PNG needs neither pydicom nor ITK, and each costs a worker's start.
    path = root / row["files"][0]
    if row["reader"] == "nifti":
        from medssl.data.nifti import read_nifti

        return read_nifti(path)
    if row["reader"] == "itk":
        from medssl.data.itk import read_grid

        return read_grid(path)
    if row["reader"] == "picture":
        from medssl.data.pictures import read_picture

        return read_picture(path, labels)
    if row["reader"] == "npz":
        from medssl.data.npz import read_npz

        return read_npz(path, int(row["member"]))
    if row["reader"] == "dicom":
        from medssl.data.dicom.assemble import read_stack

        return read_stack(root, list(row["files"]), row.get("frames"))
    raise UserError(f"no reader '{row['reader']}'", path, "index the folder again with this version of medssl")


def _planar(volume: Volume) -> Volume:
    """A volume of one slice as an image (C, H, W), turned as radiology shows it; others as they are.

    Rows run to the back or the feet, columns to the patient's left or the back.
    """
    thin = [axis for axis in range(3) if volume.array.shape[axis + 1] == 1] if volume.dims == 3 else []
    if not thin:
        return volume
    flat = thin[-1]
    array = volume.array.squeeze(flat + 1)
    ways = np.abs(volume.affine[:3, :3])
    # Of the two axes in the plane, the one nearer to x (or, without x, to y) becomes the columns.
    first, second = sorted((axis for axis in range(3) if axis != flat), key=lambda a: int(ways[:, a].argmax()))
    affine = volume.affine[:, [second, first, flat, 3]].copy()
    array = array if first > second else array.swapaxes(1, 2)
    for axis in (0, 1):
        if affine[np.abs(affine[:3, axis]).argmax(), axis] > 0:  # towards right, front or head
            affine[:, 3] += (array.shape[axis + 1] - 1) * affine[:, axis]
            affine[:, axis] *= -1
            array = np.flip(array, axis + 1)
    return Volume(np.ascontiguousarray(array), affine, volume.modality)
