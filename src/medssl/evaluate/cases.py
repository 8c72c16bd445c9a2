"""One network under several conditions on the same test patients: each score with its interval, and what it lost."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from medssl.evaluate.interval import estimate, resample
from medssl.evaluate.scorers import score_all, scorer
from medssl.rng import stream


def compare(tables: Mapping[Any, pl.DataFrame], metric: str, seed: int = 0) -> dict[Any, dict[str, Any]]:
    """For each of ``tables``: ``value`` and ``interval``; but for the first, ``difference`` to it and its interval.

    Tables are as predictions.parquet holds them, all of the same items in one order; ``metric`` "auc" or "dice", a mean
    over patients as in a verdict. Intervals are 95 % over test patients, who are resampled alike in all tables; of
    other seeds one network knows nothing. None where something is undefined.
    """
    names, first = list(tables), next(iter(tables.values()))
    patients = first["patient"].cast(pl.String).unique(maintain_order=True).to_list()
    runs = [scorer(table, metric, patients) for table in tables.values()]
    needed = np.concatenate([run.needed for run in runs], axis=1)  # what any of them must not lack
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing is known of any patient: NaN, then None
        full, drawn = score_all(runs, resample(needed, stream(seed, "cases")))

    def told(column: int, less: int | None, least: float) -> tuple[float | None, list[float | None]]:
        whole, again = full[[column]], drawn[:, [column]]
        if less is not None:
            whole, again = whole - full[less], again - drawn[:, [less]]
        ends = estimate(whole, again, needed, stream(seed, "interval")).interval()
        inside = [float(np.clip(end, least, 1)) if np.isfinite(end) else None for end in ends]
        return (float(whole[0]) if np.isfinite(whole[0]) else None), inside

    found = {}
    for i, name in enumerate(names):
        value, interval = told(i, None, 0.0)
        found[name] = {"value": value, "interval": interval}
        if i:
            difference, interval = told(i, 0, -1.0)
            found[name] |= {"difference": difference, "difference_interval": interval}
    return found
