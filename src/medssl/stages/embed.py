"""medssl embed: one feature vector a scan, for whoever wants to plot, search or classify."""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl

from medssl import files
from medssl.data.catalog import LABEL, label_names
from medssl.data.store import Store
from medssl.engine.machine import choose
from medssl.errors import raise_all
from medssl.evaluate.features import embed
from medssl.loading import Encoder, check_preprocessing, load, towers_of
from medssl.stages.limits import out_of_range
from medssl.stages.options.train import Embed


def run(options: Embed) -> Path:
    """Write features.parquet (item, patient, split, labels, features) and features.npz (item, features)."""
    raise_all(out_of_range(options))
    store = Store(options.data)
    parts = _parts(options.run, store)
    device = choose(options.device).device
    with files.locked(options.out, "FEATURES"):
        found = [
            embed(
                encoder.to(device).network, store, rows,
                patch=encoder.config.size, batch=options.batch, device=device,
            )
            for encoder, rows in parts
        ]  # fmt: skip
        features = np.empty((len(store), found[0].shape[1]), np.float32)
        for (_, rows), part in zip(parts, found, strict=True):
            features[rows] = part
        _write(options.out, store.items, features)
    print(
        f"{len(features)} scans, {features.shape[1]} features each: {options.out / 'features.parquet'}", file=sys.stderr
    )
    return options.out


def _parts(run: Path, store: Store) -> list[tuple[Encoder, list[int]]]:
    """Encoders and the rows that go through them: each modality's through its own, where a run has several."""
    rows: dict[str, list[int]] = defaultdict(list)
    own = bool(towers_of(run))
    for row, code in enumerate(store.modalities):
        rows[store.modality_names[code] if own else ""].append(row)
    parts = [(load(run, name if own else None), chosen) for name, chosen in rows.items()]
    check_preprocessing(store.plan, parts[0][0].plan.contract(), run)
    return parts


def _write(folder: Path, items: pl.DataFrame, features: np.ndarray) -> None:
    told = ["item", "patient", "split", *(LABEL + name for name in label_names(items))]
    column = pl.Series("features", features, dtype=pl.Array(pl.Float32, features.shape[1]))
    with files.atomic(folder / "features.parquet") as temporary:
        items.select(told).with_columns(column).write_parquet(temporary)
    with files.atomic(folder / "features.npz") as temporary, temporary.open("wb") as handle:
        np.savez(handle, item=np.array(items["item"].to_list(), dtype=str), features=features)
