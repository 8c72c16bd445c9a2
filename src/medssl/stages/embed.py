"""medssl embed: one feature vector a scan, for whoever wants to plot, search or classify."""

import sys
from pathlib import Path

import numpy as np
import polars as pl

from medssl import files
from medssl.data.store import Store
from medssl.engine.machine import choose
from medssl.errors import UserError, raise_all
from medssl.evaluate.features import embed
from medssl.loading import load
from medssl.stages.limits import out_of_range
from medssl.stages.options.train import Embed


def run(options: Embed) -> Path:
    """Write features.parquet (item, patient, split, labels, features) and features.npz (item, features)."""
    raise_all(out_of_range(options))
    encoder = load(options.run)
    store = Store(options.data)
    different = store.plan.differences(encoder.plan.contract())
    if different:
        fix = "write its values into plan.toml of the data and run `medssl prepare` again"
        raise UserError(f"the encoder expects other preprocessing: {'; '.join(different)}", options.run, fix)
    device = choose(options.device).device
    encoder.to(device)
    with files.locked(options.out, "FEATURES"):
        features = embed(
            encoder.network, store, range(len(store)),
            patch=encoder.config.size, batch=options.batch, device=device,
        )  # fmt: skip
        _write(options.out, store.items, features)
    print(
        f"{len(features)} scans, {features.shape[1]} features each: {options.out / 'features.parquet'}", file=sys.stderr
    )
    return options.out


def _write(folder: Path, items: pl.DataFrame, features: np.ndarray) -> None:
    told = ["item", "patient", "split", *(c for c in items.columns if c.startswith("label."))]
    column = pl.Series("features", features, dtype=pl.Array(pl.Float32, features.shape[1]))
    with files.atomic(folder / "features.parquet") as temporary:
        items.select(told).with_columns(column).write_parquet(temporary)
    with files.atomic(folder / "features.npz") as temporary, temporary.open("wb") as handle:
        np.savez(handle, item=np.array(items["item"].to_list(), dtype=str), features=features)
