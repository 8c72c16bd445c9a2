"""A run's row in results.jsonl: its score, what it cost and where, and what was seen of its pre-training before."""

import math
from pathlib import Path
from typing import Any

from medssl.data.content import Contents
from medssl.engine import log, record
from medssl.loading import find_weights
from medssl.report.formats import Score, damaged, table
from medssl.report.ledger import Ledger, by_content
from medssl.stages.arm import Run
from medssl.stages.recipe import Recipe
from medssl.stages.study_keys import Planned

WATCHED = ("probe.linear", "probe.knn", "probe.voxel", "effective_rank", "feature_std")


def collect(recipe: Recipe, contents: Contents, plan: list[Planned], earlier: Ledger) -> Ledger:
    """What is known of the study's runs, in a fixed order: its own first, else as recorded ``earlier``."""
    recorded, found = {row["key"]: row for row in earlier.rows}, Ledger()
    names = [arm.name for arm in recipe.arms]
    for one in plan:
        run = one.run
        named = {"key": one.key, "arm": run.arm.name, "pretraining": run.pretraining}
        named |= {"n_labels": one.labels, "seed": run.seed}
        if record.finished(run.folder):
            predictions = by_content(run.folder / "predictions.parquet", contents)
            found.add(named | _result(run, recipe), predictions)
        elif one.key in recorded:
            row = {name: value for name, value in recorded[one.key].items() if name != "run"}
            found.add(row | named, earlier.predictions[one.key])
    found.rows.sort(key=lambda row: (names.index(row["arm"]), row["n_labels"], row["seed"], row["pretraining"]))
    return found


def _result(run: Run, recipe: Recipe) -> dict[str, Any]:
    folder = run.folder
    result = table(folder / "result.json", Score)
    if not result:
        raise damaged(folder / "result.json", "the file is gone")
    kept = {name: result[name] for name in ("metric", "value", "metrics", "test_hash")}
    return kept | _cost(folder) | {"pretrain": _pretraining(run, recipe), "run": f"runs/{folder.name}"}


def _pretraining(run: Run, recipe: Recipe) -> dict[str, Any]:
    """The last probes of what the run began with, and their cost; empty for scratch, or where nothing is left of it."""
    arm = run.arm
    if arm.scratch:
        return {}
    folder = find_weights(arm.run).parent if arm.run else recipe.out / "pretrain" / run.start
    probes: dict[str, float] = {}
    kept = record.last_kept(folder)  # with --patience there are later probes, of what was thrown away
    for row in (row for row in log.read(folder) if row["step"] <= kept):
        probes |= {name: row[name] for name in WATCHED if math.isfinite(row.get(name, math.nan))}
    return probes | _cost(folder)


def _cost(folder: Path) -> dict[str, Any]:
    """``seconds`` of training, over all its parts, with probes and validation; ``hardware`` in words."""
    rows, machine = log.read(folder), record.stored(folder).get("machine", {})
    seconds = [row["elapsed_s"] for row in rows if "elapsed_s" in row][-1:]
    names = [str(machine[name]) for name in ("name", "device", "precision", "threads") if machine.get(name)]
    return ({"seconds": seconds[0]} if seconds else {}) | ({"hardware": ", ".join(names)} if names else {})
