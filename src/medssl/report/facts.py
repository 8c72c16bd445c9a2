"""What is known of a data set without opening a scan, and whether anything leaks from its test patients."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from medssl.data.catalog import LABEL, label_names
from medssl.report.blocks import Block, Facts, Note, Section, Table

SPLITS = ("train", "val", "test")


def fingerprint(items: pl.DataFrame, preprocessing: Mapping[str, Any], data_hash: str) -> dict[str, Any]:
    """Counts, sizes, splits with their hashes, and leak checks of the rows of a store. No ids, dates or paths."""
    spacings = [s for s in items["spacing_mm"].to_list() if s]
    return {
        "data_hash": data_hash,
        "scans": len(items),
        "patients": items["patient"].n_unique(),
        "modalities": dict(items["modality"].fill_null("").value_counts(sort=True).rows()),
        "shape": [float(x) for x in np.median(np.array(items["shape"].to_list(), float), axis=0)],
        "spacing_mm": [float(x) for x in np.median(np.array(spacings, float), axis=0)] if spacings else [],
        "masks": int(items["has_mask"].sum()) if "has_mask" in items.columns else 0,
        "labels": {name: _classes(items[LABEL + name]) for name in label_names(items)},
        "splits": {split: _split(items.filter(pl.col("split") == split)) for split in SPLITS},
        "checks": split_checks(items),
        "preprocessing": dict(preprocessing),
    }


def split_checks(items: pl.DataFrame) -> list[dict[str, Any]]:
    """No patient and no image may lie on two sides of the split."""
    checks = []
    for column, plural in (("patient", "patients"), ("hash", "images")):
        sides = items.group_by(column).agg(pl.col("split").n_unique().alias("sides"))
        doubled = int((sides["sides"] > 1).sum())
        detail = "none" if not doubled else f"{doubled} {plural}"
        checks.append({"check": f"The same {plural} on two sides of the split", "ok": not doubled, "detail": detail})
    return checks


def seen_in_pretraining(items: pl.DataFrame, seen: Iterable[str]) -> int:
    """How many test images are among ``seen``, content hashes of images that an encoder was pre-trained on."""
    test = set(items.filter(pl.col("split") == "test")["hash"])
    return len(test & set(seen))


def digest(words: Iterable[str]) -> str:
    """A short hash of a set of words, whatever their order."""
    return hashlib.blake2b("\n".join(sorted(words)).encode(), digest_size=6).hexdigest()


def _split(rows: pl.DataFrame) -> dict[str, Any]:
    return {"patients": rows["patient"].n_unique(), "scans": len(rows), "hash": digest(rows["hash"])}


def _classes(column: pl.Series) -> dict[str, int]:
    """How often each class occurs; a column of many different values is summed up by their number."""
    counts = column.cast(pl.String).drop_nulls().value_counts(sort=True).rows()
    return dict(counts) if len(counts) <= 12 else {"different values": len(counts)}


def section(facts: Mapping[str, Any]) -> Section:
    """The data fingerprint as a part of a page."""
    if not facts:
        return Section("Data", [], "", "No fingerprint of the data was kept.")
    size = " × ".join(f"{x:g}" for x in facts["shape"])
    items: list[tuple[str, str]] = [
        ("Patients", str(facts["patients"])),
        ("Scans", str(facts["scans"])),
        ("Modality", ", ".join(f"{name or 'unknown'} {n}" for name, n in facts["modalities"].items())),
        ("Median size", f"{size} {'voxels' if len(facts['shape']) == 3 else 'pixels'}"),
        ("Voxel size" if len(facts["shape"]) == 3 else "Pixel size", _spacing(facts["spacing_mm"])),
        ("Scans with a mask", str(facts["masks"])),
    ]
    for name, classes in facts["labels"].items():
        items.append((f"Label {name}", ", ".join(f"{value} {n}" for value, n in classes.items()) or "empty"))
    items.append(("Data hash", str(facts["data_hash"])[:16]))
    rows = [(s, part["patients"], part["scans"], part["hash"]) for s, part in facts["splits"].items()]
    blocks: list[Block] = [
        Facts(items),
        Table(("Split", "Patients", "Scans", "Content hash"), rows),
        Facts([(k, _plain(v)) for k, v in _flat(facts["preprocessing"])], "Preprocessing contract"),
    ]
    return Section("Data", blocks, "After preparation. Hashes are of the images' contents and name nobody.")


def leakage(checks: Sequence[Mapping[str, Any]]) -> Section:
    """The leak checks as a part of a page."""
    rows = [(c["check"], {True: "passed", False: "FAILED", None: "unknown"}[c["ok"]], c["detail"]) for c in checks]
    blocks: list[Block] = [Table(("Looked for", "Result", "Found"), rows, words=3)] if rows else []
    if any(c["ok"] is False for c in checks):
        blocks.append(Note("A check failed: scores on the test patients may be too good.", "warning"))
    return Section("Leak checks", blocks, "Test patients must be new to everything that was learnt.", "Not checked.")


def _spacing(spacing_mm: Sequence[float]) -> str:
    return " × ".join(f"{x:.3g}" for x in spacing_mm) + " mm" if spacing_mm else "unknown"


def _flat(table: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in table.items():
        inner = _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else [(before + key, value)]
        found += inner
    return found


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)
