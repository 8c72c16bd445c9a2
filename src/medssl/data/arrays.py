"""Array files of the store: blosc2 with small blocks, read through mmap; plain .npy where blosc2 cannot make one.

A file is whole or absent, and carries its description with it, so there is no second file to fall out of step.
"""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from medssl.files import atomic, write_bytes

BLOCK = {2: (128, 128), 3: (32, 32, 32)}  # what a random crop decompresses at least
CHUNK = {2: (512, 512), 3: (128, 128, 128)}
KEY = "medssl"


def save(path: Path, array: np.ndarray, description: dict[str, Any]) -> Path:
    """Write (…, *spatial) with its description; returns the file written, ``path`` with .b2nd or .npy."""
    for stale in (path.with_name(path.name + ".npy"), path.with_name(path.name + ".b2nd")):
        stale.unlink(missing_ok=True)
    frame = _frame(np.ascontiguousarray(array), description)
    if frame is not None:
        target = path.with_name(path.name + ".b2nd")
        write_bytes(target, frame)
        return target
    target = path.with_name(path.name + ".npy")
    # The description first: an array without one counts as absent.
    write_bytes(path.with_name(path.name + ".json"), json.dumps(description).encode())
    with atomic(target) as temporary, temporary.open("wb") as handle:
        np.save(handle, array)
    return target


def load(path: Path) -> Any:
    """Open an array file for slicing, or None where there is none; nothing is read yet."""
    packed = path.with_name(path.name + ".b2nd")
    if packed.exists():
        return blosc2.open(str(packed), mode="r", mmap_mode="r", dparams={"nthreads": 1})
    plain = path.with_name(path.name + ".npy")
    return np.load(plain, mmap_mode="r") if plain.exists() else None


def describe(path: Path) -> dict[str, Any] | None:
    """The description saved with an array, or None where there is no whole file."""
    try:
        array = load(path)
        return None if array is None else about(array, path)
    except (OSError, ValueError, KeyError, RuntimeError):  # a file that is not whole: made again
        return None


def about(array: Any, path: Path) -> dict[str, Any]:
    """The description of an open array file."""
    if isinstance(array, np.ndarray):
        return json.loads(path.with_name(path.name + ".json").read_text())
    return json.loads(array.schunk.vlmeta[KEY])


def pack(points: np.ndarray) -> str:
    """Rows (n, k) of sorted integers as text; by differences, a tenth of their size as numbers."""
    steps = np.diff(points, axis=0, prepend=0).astype("<i4").T
    return base64.b64encode(zlib.compress(steps.tobytes())).decode()


def unpack(text: str, columns: int) -> np.ndarray:
    """The inverse of ``pack``: (n, columns) int32."""
    steps = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i4").reshape(columns, -1)
    return steps.T.cumsum(axis=0, dtype=np.int32)


def _frame(array: np.ndarray, description: dict[str, Any]) -> bytes | None:
    spatial = array.ndim - 1 if array.ndim > 2 else array.ndim
    dims = 3 if spatial >= 3 else 2
    lead = array.shape[: array.ndim - dims]
    blocks = lead + tuple(min(b, n) for b, n in zip(BLOCK[dims], array.shape[-dims:], strict=True))
    chunks = lead + tuple(min(c, n) for c, n in zip(CHUNK[dims], array.shape[-dims:], strict=True))
    settings = {
        "codec": blosc2.Codec.LZ4HC,
        "clevel": 8,
        "filters": [blosc2.Filter.SHUFFLE],
        "typesize": array.itemsize,
        "nthreads": 1,
    }
    try:
        packed = blosc2.asarray(array, chunks=chunks, blocks=blocks, cparams=settings, dparams={"nthreads": 1})
        packed.schunk.vlmeta[KEY] = json.dumps(description)
        return packed.to_cframe()
    except (RuntimeError, ValueError, MemoryError):
        return None
