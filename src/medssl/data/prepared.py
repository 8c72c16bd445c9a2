"""One scan into the store, the table of all, and which of them are up to date."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medssl.data import arrays
from medssl.data.adapt import Adapted
from medssl.data.plan import Plan
from medssl.errors import UserError
from medssl.files import atomic

VERSION = 1  # of what prepare makes of a scan; raised when the same plan gives other voxels

SCHEMA: dict[str, Any] = {
    "item": pl.String, "stamp": pl.String, "shape": pl.List(pl.Int64), "spacing_mm": pl.List(pl.Float64),
    "affine": pl.List(pl.Float64), "gain": pl.Float64, "bias": pl.Float64, "fill": pl.Int64,
    "has_mask": pl.Boolean, "mask_labels": pl.List(pl.Int64), "box": pl.List(pl.Int64), "grid": pl.String,
    "bytes": pl.Int64, "notes": pl.List(pl.List(pl.String)), "plan": pl.String,
}  # fmt: skip


def stamp(row: dict[str, Any], plan: Plan, root: Path) -> str:
    """What the stored scan depends on: its content, its mask, and the part of the plan that concerns it."""
    contract = plan.contract()
    rules = [vars(plan.rule(row["modality"], hu)) for hu in (True, False)]
    mask = None
    if row["mask_path"]:
        try:
            status = (root / row["mask_path"]).stat()
            mask = [row["mask_path"], status.st_size, status.st_mtime_ns]
        except OSError:
            mask = [row["mask_path"], "missing"]
    text = json.dumps([VERSION, row["hash"], row["modality"], mask, contract | {"modality": rules}], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def finished(store: Path, row: dict[str, Any], wanted: str) -> dict[str, Any] | None:
    """The record of a row of the index whose stored scan is whole, has this stamp and was made from this affine."""
    item = row["item"]
    about = arrays.describe(store / item)
    if about is None or about["record"]["stamp"] != wanted:
        return None
    # The stamp does not know where voxels lie: the same ones, after a header was corrected, are another scan.
    made_from = json.loads(about["record"]["grid"])["file_affine"]
    if not all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5) for a, b in zip(made_from, row["affine"], strict=True)):
        return None
    mask = arrays.describe(store / f"{item}.mask") if about["record"]["has_mask"] else about["record"]
    return about["record"] if mask is not None and mask["stamp"] == wanted else None


def prepare_item(row: dict[str, Any], root: Path, store: Path, plan: Plan, wanted: str) -> dict[str, Any]:
    """Read, adapt and store one scan of the index; returns its record."""
    from medssl.data.readers import read_mask, read_volume

    try:
        volume = read_volume(row, root)
        mask = read_mask(row, root)
        result = plan.prepare(volume, mask)
    except OSError as error:
        raise UserError(error.strerror or str(error), row["path"], "make the file readable, or index again") from None
    return save(store, row["item"], result, wanted)


def save(store: Path, item: str, scan: Adapted, wanted: str) -> dict[str, Any]:
    """Store one scan; returns its record. The mask is written first: the image makes the item whole."""
    labels = [] if scan.mask is None else [int(v) for v in np.unique(scan.mask) if v]
    dims = len(scan.grid.shape)
    spacing = np.linalg.norm(np.reshape(scan.grid.affine, (4, 4))[:3, :dims], axis=0)
    record = {
        "item": item, "stamp": wanted, "shape": list(scan.grid.shape), "spacing_mm": spacing.tolist(),
        "affine": list(scan.grid.affine), "gain": scan.gain, "bias": scan.bias, "fill": scan.fill,
        "has_mask": scan.mask is not None, "mask_labels": labels,
        "box": [int(v) for side in scan.grid.box for v in side], "grid": json.dumps(scan.grid.table()),
        "notes": [list(note) for note in scan.notes],
    }  # fmt: skip
    if scan.mask is not None:
        arrays.save(store / f"{item}.mask", scan.mask, {"stamp": wanted})
    arrays.save(store / item, scan.image, {"record": record, "points": arrays.pack(scan.points)})
    return record


def stored_bytes(store: Path, item: str) -> int:
    """Disk that an item takes, its mask included."""
    names = [f"{item}{part}{end}" for part in ("", ".mask") for end in (".b2nd", ".npy", ".json")]
    return sum((store / name).stat().st_size for name in names if (store / name).exists())


def write_prepared(data: Path, records: list[dict[str, Any]], plan: Plan) -> None:
    """Write prepared.parquet whole; it names the plan, so that a plan edited since is noticed."""
    rows = [r | {"bytes": stored_bytes(data / "store", r["item"]), "plan": plan.hash} for r in records]
    with atomic(data / "prepared.parquet") as temporary:
        pl.DataFrame(rows, schema=SCHEMA).write_parquet(temporary)


def load_prepared(data: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """The table of prepared scans; only ``columns`` of it where they are named."""
    path = data / "prepared.parquet"
    try:
        if set(SCHEMA) - set(pl.read_parquet_schema(path)):
            raise UserError("written by another version of medssl", path, "delete it and run `medssl prepare` again")
        return pl.read_parquet(path, columns=columns)
    except (OSError, pl.exceptions.PolarsError):
        raise UserError("not a readable table", path, "delete it and run `medssl prepare` again") from None


def sweep(store: Path, kept: set[str]) -> None:
    """Remove what no item owns: half-written files of a killed run, scans that left the index."""
    for path in store.iterdir():
        item = path.name.split(".")[0]
        if path.name.startswith(".") or item not in kept:
            path.unlink(missing_ok=True)
