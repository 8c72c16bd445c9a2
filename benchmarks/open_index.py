"""Milliseconds to open an index of 100 000 scans, a store of as many, and to read all the columns of each.

The least of 5; one JSON line a metric.

python benchmarks/open_index.py [--rows 100000]

Beside the time that passes stands the processors' own (``cpu_ms``), which other work on the machine does not lengthen.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from medssl.data.catalog import load_index, write_index
from medssl.data.plan import Intensity, Plan
from medssl.data.prepared import SCHEMA, write_prepared
from medssl.data.store import FROM_INDEX, Store

GOAL_MS = 50


def main() -> None:
    """Write the tables that index and prepare leave, without scans; then open them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write(data, count)
        best, cpu_ms = least(lambda: load_index(data))
        tell("open_index_ms", best, cpu_ms=cpu_ms, goal=GOAL_MS, met=best < GOAL_MS, rows=count)
        best, cpu_ms = least(lambda: load_index(data, FROM_INDEX))
        tell("open_index_for_a_store_ms", best, cpu_ms=cpu_ms, rows=count)
        best, cpu_ms = least(lambda: Store(data))
        tell("open_store_ms", best, cpu_ms=cpu_ms, rows=count)
        best, cpu_ms = least(lambda: Store(data).items)
        tell("open_store_and_all_columns_ms", best, cpu_ms=cpu_ms, rows=count)


def write(data: Path, count: int) -> None:
    """index.parquet and prepared.parquet of ``count`` volumes."""
    plan = Plan(dims=3, channels=1, spacing_mm=(1, 1, 1), modality={"CT": Intensity(), "other": Intensity()})
    affine = np.eye(4).ravel().tolist()
    rows, records = [], []
    for i in range(count):
        item = f"{i:032x}"
        common = {"item": item, "shape": [512, 512, 200 + i % 100], "spacing_mm": [0.7, 0.7, 1.5], "affine": affine}
        facts = {"patient": f"p{i // 2:030x}", "study": f"s{i:030x}", "path": f"images/{i // 1000}/{i}.nii.gz"}
        numbers = dict.fromkeys(("min", "max", "mean", "std", "p01", "p99"), float(i))
        rows.append(
            common | facts | numbers | {"modality": "CT", "hash": item, "split": "train", "files": [f"{i}.nii"]}
        )
        stored = {"stamp": item, "gain": 1.0, "bias": 0.0, "fill": 0, "has_mask": False, "grid": "{}", "bytes": 1}
        records.append(dict.fromkeys(SCHEMA) | common | stored | {"plan": plan.hash, "mask_labels": [], "box": []})
    plan.write(data / "plan.toml")
    write_prepared(data, records, plan)
    write_index(data, rows, [], {"scans": str(data)})


def least(action: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that the quickest of five calls took, and the least of the processors' time."""
    times = []
    for _ in range(5):
        began, began_cpu = time.perf_counter(), time.process_time()
        action()
        times.append((1000 * (time.perf_counter() - began), round(1000 * (time.process_time() - began_cpu), 2)))
    return min(t for t, _ in times), min(t for _, t in times)


def tell(metric: str, value: float, **more: object) -> None:
    """A line of JSON."""
    print(json.dumps({"metric": metric, "value": round(value, 2), **more}))


if __name__ == "__main__":
    main()
