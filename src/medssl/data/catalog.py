"""The index of a DATA folder: its columns, how it is written and read."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.data.item import Fault
from medssl.errors import UserError
from medssl.files import FORMAT, atomic, check_format, read_toml, write_text, write_toml

if TYPE_CHECKING:
    import polars as pl

LABEL = "label."  # of the columns that hold labels
TEXTS: tuple[str, ...] = (
    "item",
    "patient",
    "study",
    "series",
    "path",
    "reader",
    "modality",
    "orientation",
    "dtype",
    "hash",
)
TEXTS += ("mask_path", "text", "split", "problems")
NUMBERS: tuple[str, ...] = (
    "min",
    "max",
    "mean",
    "std",
    "p01",
    "p99",
    "foreground_low",
    "foreground_p005",
    "foreground_p995",
)
NUMBERS += ("foreground_mean", "foreground_std")


def label_names(items: "pl.DataFrame") -> list[str]:
    """NAME of each column ``label.NAME``, in their order."""
    return [column.removeprefix(LABEL) for column in items.columns if column.startswith(LABEL)]


def load_index(data: Path, columns: list[str] | None = None) -> "pl.DataFrame":
    """One row a usable scan, in the order of paths; a UserError where this version did not index the folder.

    Only ``columns`` are read where they are named, which is faster: lists of numbers cost most.
    """
    import polars as pl

    path = data / "index.parquet"
    if not data.is_dir() or not (data / "index.toml").exists() or not path.exists():
        raise UserError("not indexed yet", data, "run `medssl index SCANS --out DATA` first")
    check_format(read_toml(data / "index.toml"), data / "index.toml")
    try:
        if set(_schema(())) - set(pl.read_parquet_schema(path)):
            raise UserError("an index of another version of medssl", path, "delete it and index again")
        return pl.read_parquet(path, columns=columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"broken index: {error}", path, "delete it and index again") from None


def scans_folder(data: Path) -> Path:
    """The folder of scans that was indexed into ``data``."""
    scans = read_toml(data / "index.toml").get("scans")
    if not isinstance(scans, str):
        raise UserError("no key scans", data / "index.toml", 'write scans = "FOLDER", or index into a new folder')
    return Path(scans)


def label_columns(frame: "pl.DataFrame") -> list[str]:
    """Names of the labels, without their prefix."""
    return [column.removeprefix(LABEL) for column in frame.columns if column.startswith(LABEL)]


def write_index(data: Path, rows: list[dict[str, Any]], labels: Iterable[str], about: dict[str, Any]) -> None:
    """Write index.parquet, then index.toml, each whole or not at all."""
    import polars as pl

    frame = pl.DataFrame(rows, schema=_schema(labels), orient="row")
    with atomic(data / "index.parquet") as temporary:
        frame.write_parquet(temporary)
    write_toml(data / "index.toml", {"format": FORMAT} | about)


def write_problems(path: Path, faults: Iterable[Fault]) -> int:
    """Write faults as a CSV, sorted by file, each once; the header alone where all is well. Returns their number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "what", "how_to_fix"))
    rows = {(f.file, f.what, f.how_to_fix) for f in faults}
    writer.writerows(sorted(rows))
    write_text(path, text.getvalue())
    return len(rows)


def load_cache(data: Path) -> dict[str, Any]:
    """What earlier runs learnt of files that may be unchanged; empty where there were none or it is damaged."""
    import polars as pl

    try:
        frame = pl.read_parquet(data / "cache.parquet")
        return dict(zip(frame["key"].to_list(), map(json.loads, frame["value"].to_list()), strict=True))
    except (pl.exceptions.PolarsError, OSError, ValueError):
        return {}


def write_cache(data: Path, cache: dict[str, Any]) -> None:
    """Keep what was learnt for the next run."""
    import polars as pl

    values = [json.dumps(value) for value in cache.values()]
    frame = pl.DataFrame({"key": list(cache), "value": values}, schema={"key": pl.String, "value": pl.String})
    with atomic(data / "cache.parquet") as temporary:
        frame.write_parquet(temporary)


def _schema(labels: Iterable[str]) -> dict[str, Any]:
    import polars as pl

    kinds: dict[str, Any] = dict.fromkeys(TEXTS[:5], pl.String)
    kinds |= {"files": pl.List(pl.String), "frames": pl.List(pl.Int64), "member": pl.Int64}
    kinds |= {"reader": pl.String, "dims": pl.Int64, "channels": pl.Int64, "modality": pl.String}
    kinds |= {"shape": pl.List(pl.Int64), "spacing_mm": pl.List(pl.Float64), "affine": pl.List(pl.Float64)}
    kinds |= dict.fromkeys(("orientation", "dtype"), pl.String)
    kinds |= dict.fromkeys(NUMBERS, pl.Float64)
    kinds |= dict.fromkeys(("hash", "mask_path", "text", "split", "problems"), pl.String)
    return kinds | {LABEL + name: pl.String for name in labels}
