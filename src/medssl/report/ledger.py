"""What a study keeps of its runs, whole without their folders: results.jsonl, a row a run, and predictions.parquet.

The table has ``key`` (the run's, which its row bears too), ``item`` and ``patient`` (names by content) and the columns
of the run's own predictions in float32. Both files hold no ids and no paths, so they may be published.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from medssl import files
from medssl.data.content import Contents
from medssl.errors import UserError
from medssl.report.formats import AGAIN, Row, damaged, frame, lines

ROWS = "results.jsonl"
PREDICTIONS = "predictions.parquet"
NAMES = {"key": pl.String, "item": pl.String, "patient": pl.String}


@dataclass
class Ledger:
    """``rows`` as in results.jsonl, in its order; ``predictions`` of each by its key."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    predictions: dict[str, pl.DataFrame] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any], predictions: pl.DataFrame) -> None:
        """Take in a run."""
        self.rows.append(dict(row))
        self.predictions[row["key"]] = predictions

    def write(self, folder: Path) -> None:
        """Both files; the rows last, so that none stands there without its predictions."""
        parts = [table.with_columns(pl.lit(key).alias("key")) for key, table in self.predictions.items()]
        table = pl.concat(parts) if parts else pl.DataFrame(schema=NAMES)
        with files.atomic(folder / PREDICTIONS) as path:
            table.select(*NAMES, pl.exclude(*NAMES)).write_parquet(path, compression="zstd", compression_level=19)
        files.write_text(folder / ROWS, "".join(json.dumps(row) + "\n" for row in self.rows))


def read(folder: Path) -> Ledger:
    """The ledger of a folder; what is missing there is missing in it."""
    path = folder / PREDICTIONS
    rows, table = lines(folder / ROWS, Row), frame(path, AGAIN)
    if table.is_empty():
        return Ledger(rows)
    if any(table.schema.get(name) != kind for name, kind in NAMES.items()):
        raise damaged(path, f"not a table with {', '.join(NAMES)}", AGAIN)
    parts = table.partition_by("key", as_dict=True, include_key=False)
    return Ledger(rows, {str(key): part for (key,), part in parts.items()})


def recorded(folder: Path) -> Ledger:
    """The ledger of an earlier study to take results from: a UserError where a row lacks its key or predictions."""
    try:
        found = read(folder)
    except UserError as error:
        fix = "copy results.jsonl and predictions.parquet of that study again, or leave it out of --known"
        raise UserError(error.what, error.where, fix) from None
    lacking = [number for number, row in enumerate(found.rows, 1) if row.get("key") not in found.predictions]
    if lacking:
        what = f"line {lacking[0]} of {ROWS} has no key, or no rows in {PREDICTIONS}"
        raise UserError(what, folder, "copy both files of one study there, made by this medssl")
    return found


def by_content(predictions: Path, contents: Contents) -> pl.DataFrame:
    """RUN/predictions.parquet with items and patients named by content instead of by salted ids."""
    table = frame(predictions)
    if not {"item", "patient"} <= {*table.columns}:
        raise damaged(predictions, "the file is gone, or is no table of items and patients")
    rows = {item: row for row, item in enumerate(contents.store.items["item"].to_list())}
    items = table["item"].cast(pl.String).to_list()
    if not set(items) <= rows.keys():
        fix = "the data changed since: make the study anew in another --out"
        raise UserError("a run was tested on scans that the data no longer hold", predictions.parent, fix)
    own = [rows[item] for item in items]
    names = {"item": [contents.items[row] for row in own], "patient": [contents.patients[row] for row in own]}
    return pl.DataFrame(names).hstack(table.drop("item", "patient").cast(pl.Float32))
