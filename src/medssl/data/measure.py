"""Read one scan and say what it is: the work of a worker process, plain values in and out."""

from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.item import Fault
from medssl.data.readers import GEOMETRY_FREE, read_mask, read_raw
from medssl.data.stats import content_hash, statistics
from medssl.errors import UserError
from medssl.volume import Volume, family

SMALLEST = 8  # voxels along an axis of the image plane
SPACING_MM = (0.01, 50.0)  # beyond this a header is wrong
MASK_WORDS = ("mask", "seg", "label", "annot", "contour")


def measure(job: tuple[dict[str, Any], str]) -> dict[str, Any]:
    """Facts of one item: columns of the index, warnings and faults. Without "facts" it is not usable."""
    row, root = job[0], Path(job[1])
    faults: list[Fault] = []
    try:
        try:
            volume = read_raw(row, root)
        except UserError:
            row, faults = _without_broken_slices(row, root)
            volume = read_raw(row, root)
        facts, warnings = _facts(row, volume)
    except UserError as error:
        return {"faults": [vars(fault) for fault in _unusable(row, root, error, faults)]}
    facts |= {"files": row["files"], "frames": row.get("frames")}
    if faults:
        warnings.append("slices that could not be read were left out")
    if row.get("mask_path"):
        try:
            mask = read_mask(row | facts, root)
            if mask is not None and not mask.array.any():
                warnings.append("its mask is empty")
        except UserError as error:
            what = f"{error.what} (image {row['path']} is used without it)"
            faults.append(Fault(row["mask_path"], what, error.fix or ""))
            facts["mask_path"] = None
    return {"facts": facts, "warnings": warnings, "faults": [vars(fault) for fault in faults]}


def _unusable(row: dict[str, Any], root: Path, error: UserError, known: list[Fault]) -> list[Fault]:
    """Every file of an item that cannot be used, the one at fault first."""
    if row["reader"] == "npz":
        return [Fault.of(error, f"{row['path']}[{row['member']}]")]
    where = Path(error.where or "")
    guilty = where.relative_to(root).as_posix() if where.is_relative_to(root) else row["path"]
    told = {guilty, *(fault.file for fault in known)}
    what = f"its series is not usable: {error.what}"
    rest = [Fault(file, what, error.fix or "") for file in dict.fromkeys(row["files"]) if file not in told]
    return [*known, Fault.of(error, guilty), *rest]


def _facts(row: dict[str, Any], volume: Volume) -> tuple[dict[str, Any], list[str]]:
    array, warnings = _finite(volume.array)
    _check_shape(array.shape[1:])
    if array.min() == array.max():
        raise UserError(f"a constant image: every value is {array.flat[0]:g}", fix="export it again, or leave it out")
    if _looks_like_a_mask(row["path"], array):
        raise UserError("looks like a mask, not an image", fix="name it in the column mask_path of the table")
    unplaced = volume.dims == 2 and (row["reader"] in GEOMETRY_FREE or np.allclose(volume.affine, np.eye(4)))
    if not unplaced:
        _check_spacing(volume)
    modality = row.get("modality") or volume.modality
    if not modality and volume.dims == 3 and _looks_like_hu(array):
        modality = "CT"
        warnings.append("no modality named; taken as CT, since its values look like Hounsfield units")
    elif family(modality) == "CT" and volume.dims == 3 and array.min() >= -200:
        warnings.append(f"CT with values from {array.min():g}: not Hounsfield units?")
    facts: dict[str, Any] = {
        "dims": volume.dims,
        "channels": len(array),
        "modality": modality,
        "shape": list(array.shape[1:]),
        "spacing_mm": None if unplaced else [round(s, 6) for s in volume.spacing_mm],
        "orientation": "" if unplaced else orientation(volume),
        "affine": volume.affine.ravel().tolist(),
        "dtype": str(array.dtype),
        "hash": content_hash(array),
        "mask_path": row.get("mask_path"),
    }
    return facts | statistics(array, modality), warnings


def orientation(volume: Volume) -> str:
    """Where each axis leads, nearest of Right/Left, Anterior/Posterior, Superior/Inferior: "RAS", "LPS", …"""
    names, free = "", [0, 1, 2]
    for axis in range(volume.dims):
        column = volume.affine[:3, axis]
        way = max(free, key=lambda k: abs(column[k]))
        free.remove(way)
        names += ("RAS" if column[way] > 0 else "LPI")[way]
    return names


def _finite(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
    if array.dtype.kind != "f":
        return array, []
    finite = np.isfinite(array)
    missing = finite.size - int(finite.sum())
    if not missing:
        return array, []
    share = missing / finite.size
    if share > 0.5:
        raise UserError(f"{share:.0%} of the voxels are NaN or infinite", fix="export it again from its source")
    return np.where(finite, array, array[finite].min()), [f"{missing} voxels NaN or infinite: taken as the minimum"]


def _check_shape(shape: tuple[int, ...]) -> None:
    if sorted(shape)[-2] < SMALLEST or (len(shape) == 2 and min(shape) < SMALLEST):
        text = "×".join(map(str, shape))
        raise UserError(f"too small to learn from ({text})", fix=f"give images of at least {SMALLEST} pixels a side")


def _check_spacing(volume: Volume) -> None:
    low, high = SPACING_MM
    spacing = volume.spacing_mm
    flat = not np.isfinite(volume.affine).all() or abs(np.linalg.det(volume.affine[:3, :3])) < 1e-12
    if flat or not all(low <= s <= high for s in spacing):
        text = "×".join(f"{s:g}" for s in spacing)
        raise UserError(f"implausible voxel size {text} mm", fix="correct the header from the scanner's data")


def _looks_like_hu(array: np.ndarray) -> bool:
    sample = array.ravel()[:: max(1, array.size // 65536)]
    return bool(-3100 <= sample.min() <= -900 and 100 < sample.max() < 32000 and np.std(sample) > 50)


def _looks_like_a_mask(path: str, array: np.ndarray) -> bool:
    if not any(word in path.lower() for word in MASK_WORDS):
        return False
    sample = np.unique(array.ravel()[:: max(1, array.size // 65536)])
    return len(sample) <= 16 and bool((sample == np.rint(sample)).all() and sample.min() == 0)


def _without_broken_slices(row: dict[str, Any], root: Path) -> tuple[dict[str, Any], list[Fault]]:
    """A series without the files whose pixels cannot be read; the first error again where that does not help."""
    if row["reader"] != "dicom" or len(set(row["files"])) < 3:
        return row, []
    faults = []
    for file in dict.fromkeys(row["files"]):
        try:
            read_raw({**row, "files": [file], "frames": None if row.get("frames") is None else [0]}, root)
        except UserError as error:
            faults.append(Fault.of(error, file))
    bad = {fault.file for fault in faults}
    keep = [k for k, file in enumerate(row["files"]) if file not in bad]
    if not keep or len(bad) > len(set(row["files"])) // 2:
        return row, []
    files, frames = [row["files"][k] for k in keep], row.get("frames")
    return row | {"path": files[0], "files": files, "frames": [frames[k] for k in keep] if frames else None}, faults
