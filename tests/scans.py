"""A small folder of pictures with a label, as a person would have it, and what index and prepare make of it."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from medssl.rng import stream
from medssl.stages import index, prepare
from medssl.stages.options.data import Index, Prepare


def write_pictures(folder: Path, count: int = 24, side: int = 48) -> Path:
    """Discs, small or large, on noise; two pictures a patient."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[:side, :side]
    rows = [["path", "patient_id", "size"]]
    for i in range(count):
        rng = stream(0, "picture", i)
        cx, cy = rng.uniform(0.35 * side, 0.65 * side, 2)
        disc = np.hypot(x - cx, y - cy) < side * (0.12 + 0.16 * (i % 2))
        grey = np.clip(120 * disc + rng.normal(60, 10, (side, side)), 0, 255)
        Image.fromarray(grey.astype(np.uint8)).save(folder / f"{i:02}.png")
        rows.append([f"{i:02}.png", f"p{i // 2:02}", "large" if i % 2 else "small"])
    with (folder / "labels.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return folder


def prepared_pictures(folder: Path, count: int = 24) -> Path:
    """A DATA folder, ready for training."""
    scans = write_pictures(folder / "scans", count)
    data = index.run(Index(scans=scans, out=folder / "data", modality="OT", workers=1))
    return prepare.run(Prepare(data=data, workers=1))


def reindexed(data: Path, folder: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Path:
    """The same DATA with another index; all else is linked, none of it copied."""
    folder.mkdir()
    for path in data.iterdir():
        if path.name != "index.parquet":
            (folder / path.name).symlink_to(path)
    change(pl.read_parquet(data / "index.parquet")).write_parquet(folder / "index.parquet")
    return folder


def two_modalities(folder: Path, kinds: list[str], patients: int = 0, **columns: Sequence[str]) -> Path:
    """DATA of pictures; picture i is of modality ``kinds[i]``, though its path names others.

    Each is its own patient, or there are ``patients``, each with pictures in a row; ``columns`` are further ones of the
    table.
    """
    scans = write_pictures(folder / "scans", len(kinds))
    (scans / "dataset1").mkdir()
    rows = [["path", "patient_id", "modality", *columns]]
    for i, kind in enumerate(kinds):
        name = f"dataset1/{i:02}_{'t1ce' if kind == 'CR' else 'flair_mr'}.png"
        (scans / f"{i:02}.png").rename(scans / name)
        told = [values[i] for values in columns.values()]
        rows.append([name, f"p{i * (patients or len(kinds)) // len(kinds):02}", kind, *told])
    with (scans / "labels.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    data = index.run(Index(scans=scans, out=folder / "data", workers=1))
    return prepare.run(Prepare(data=data, workers=1))
