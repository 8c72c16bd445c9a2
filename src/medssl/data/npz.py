"""MedMNIST's layout of .npz: train_images, train_labels, val_…, test_…; a row an image."""

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from medssl.data.item import Item
from medssl.errors import UserError
from medssl.volume import Volume

SPLITS = ("train", "val", "test")
LAYOUT = "medssl reads MedMNIST's layout: train_images (N, H, W[, 3]) or (N, D, H, W), train_labels, val_…, test_…"


def npz_items(path: Path, name: str) -> list[Item]:
    """An item a row, in the order train, val, test, with its split and labels."""
    items: list[Item] = []
    for split in SPLITS:
        shape = _shapes(path).get(f"{split}_images")
        rows = shape[0] if shape else 0
        labels = _labels(path, split, rows) if rows else {}  # MedMNIST-like files may keep labels of images they hide
        for row in range(rows):
            named = {column: str(values[row]) for column, values in labels.items()}
            items.append(Item("npz", [name], member=len(items), split=split, labels=named))
            if shape is not None and _is_volume(shape):
                items[-1].warnings.append("no voxel size in the file: taken as 1 mm")
    if not items:
        raise UserError(f"arrays {', '.join(_shapes(path)) or '(none)'}", fix=LAYOUT)
    return items


def read_npz(path: Path, member: int) -> Volume:
    """Row ``member``, counted over train, val, test: (C, H, W), or (C, X, Y, Z) from (D, H, W)."""
    for split in SPLITS:
        shape = _shapes(path).get(f"{split}_images", (0,))
        if member < shape[0]:
            image = _array(str(path), f"{split}_images", path.stat().st_mtime_ns)[member]
            if _is_volume(shape):
                return Volume(image.transpose(2, 1, 0)[None], np.eye(4))
            return Volume(image[None] if image.ndim == 2 else image.transpose(2, 0, 1), np.eye(4))
        member -= shape[0]
    raise UserError(f"no row {member} more in the file", fix="index the folder again")


def _is_volume(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[-1] != 3


def _labels(path: Path, split: str, rows: int) -> dict[str, np.ndarray]:
    """A column per label; one that is alone is called label."""
    if f"{split}_labels" not in _shapes(path):
        return {}
    values = _array(str(path), f"{split}_labels", path.stat().st_mtime_ns)
    if values.shape[:1] != (rows,):
        told = f"{split}_labels has shape {values.shape} for {rows} images"
        raise UserError(told, fix="save a row of labels for each image")
    values = values.reshape(rows, -1)
    names = ["label"] if values.shape[1] == 1 else [f"label_{i}" for i in range(values.shape[1])]
    return {name: values[:, i] for i, name in enumerate(names)}


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by the headers inside, without unpacking an array."""
    return _shapes_of(str(path), path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _shapes_of(path: str, modified: int) -> dict[str, tuple[int, ...]]:
    del modified
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _shape(archive, name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise UserError(f"not an .npz file that can be read: {error}", fix="download it again") from None


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(name) as handle:
        version = np.lib.format.read_magic(handle)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(handle)
    if dtype.hasobject:
        raise UserError(f"array {name} holds Python objects", fix=LAYOUT)
    return shape


@lru_cache(maxsize=2)
def _array(path: str, name: str, modified: int) -> np.ndarray:
    """Kept, since rows are read one after another and each reading unpacks the whole array."""
    del modified
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive[name]
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise UserError(f"array {name} is broken: {error}", fix="download it again") from None
