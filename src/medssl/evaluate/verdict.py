"""Does pre-training help? One sentence with its interval for every arm and number of labels."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medssl.errors import UserError
from medssl.evaluate.compare import BASELINE, METRIC_NAMES, Column, Run, block, compare, pairs, within
from medssl.evaluate.interval import Estimate, estimate, resample
from medssl.evaluate.labels_saved import labels_saved, unknown, unreadable
from medssl.evaluate.ranks import of_verdicts
from medssl.evaluate.scorers import score_all, scorer
from medssl.evaluate.sentences import headline, notes
from medssl.rng import stream

Columns = Mapping[Run, Column]


@dataclass(frozen=True)
class ScoredRun:
    """One fine-tuned run of a study: its arm, number of labels, seed, and the predictions on the test patients.

    These are a table, or the file with it.
    """

    arm: str
    n_labels: int
    seed: int
    predictions: Path | pl.DataFrame = field(compare=False)
    pretraining: int = 1
    """Which of the arm's pre-trainings it began from, counted from 1."""


def verdict(
    runs: Sequence[ScoredRun],
    *,
    task: str,
    margin: float = 0.01,
    seed: int = 0,
    transductive: bool = False,
    beside: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """What a study says, as verdict.json keeps it.

    Every arm is compared to the arm ``scratch`` at equal label counts: same subsets, same test patients; ``beside``
    names other pairs of arms to compare. The words rest on intervals corrected for the number of comparisons at one
    label count (`holm`), pairs and arms against scratch each for themselves; the plain 95 % intervals stand beside.
    """
    if not runs:
        raise UserError("no finished runs to compare", fix="see the messages of the runs that failed")
    metric = "auc" if task == "classify" else "dice"
    tables = {run: _predictions(run.predictions) for run in runs}
    patients = _same_patients(tables)
    arms = list(dict.fromkeys(run.arm for run in runs))
    others = [arm for arm in arms if arm != BASELINE]
    scored, needed = _scored(tables, metric, patients, seed)
    levels = [_at_count(n, arms, columns, needed, seed) for n, columns in scored.items()]
    for level, (n, columns) in zip(levels, scored.items(), strict=True):
        for name, asked in (("comparisons", [(arm, BASELINE) for arm in others]), ("pairs", beside)):
            found = [(a, b, _difference(columns, a, b, needed, n, seed)) for a, b in asked]
            level[name] = compare([(a, b, d) for a, b, d in found if d is not None], n, metric, margin)
    return {
        "task": task,
        "metric": metric,
        "margin": margin,
        "seed": seed,
        "test_patients": len(patients),
        "transductive": transductive,
        "labels": levels,
        "labels_saved": _saved(scored, others, needed, seed),
        "ranks": asdict(of_verdicts([{"labels": levels}])),
        "sentence": headline(levels, others, metric),
        "notes": notes(levels, metric, len(patients)),
    }


def _scored(
    tables: Mapping[ScoredRun, pl.DataFrame], metric: str, patients: Sequence[str], seed: int
) -> tuple[dict[int, Columns], np.ndarray]:
    """Scores of every run by label count, on all patients and on the same resamples of them, and who is needed."""
    scorers = {run: scorer(table, metric, patients) for run, table in tables.items()}
    # What any run must not lack: one that invents a structure is scored on a patient whom the others leave out.
    needed = np.unique(np.concatenate([one.needed for one in scorers.values()], axis=1), axis=1)
    weights = resample(needed, stream(seed, "bootstrap", "patients"))
    found: dict[int, Columns] = {}
    for n, group in groupby(sorted(tables, key=lambda run: run.n_labels), key=lambda run: run.n_labels):
        mine = {(run.arm, run.pretraining, run.seed): scorers[run] for run in group}
        full, again = score_all(list(mine.values()), weights)
        found[n] = {key: (full[[i]], again[:, [i]]) for i, key in enumerate(mine)}
    return found, needed


def _at_count(n: int, arms: Sequence[str], columns: Columns, needed: np.ndarray, seed: int) -> dict[str, Any]:
    """Scores and bands of the arms at one label count."""
    scores, bands = {}, {}
    for arm in arms:
        mine = {(more, s): column for (name, more, s), column in sorted(columns.items()) if name == arm}
        if found := block(mine):
            alone = _estimate(found, needed, stream(seed, "bootstrap", arm, n))
            scores[arm] = [float(full[0]) for full, _ in mine.values()]
            bands[arm] = {"mean": alone.mean, "interval": list(within(alone.interval(), 0.0, 1.0))}
            bands[arm] |= {"seeds": alone.seeds, "pretrainings": alone.pretrainings}
    return {"n_labels": n, "scores": scores, "arms": bands}


def _difference(columns: Columns, arm: str, against: str, needed: np.ndarray, n: int, seed: int) -> Estimate | None:
    """The paired difference of two arms; None where no runs pair."""
    together = {key: (columns[a], columns[b]) for key, (a, b) in pairs(columns, arm, against).items()}
    found = block({key: (a[0] - b[0], a[1] - b[1]) for key, (a, b) in together.items()})
    return _estimate(found, needed, stream(seed, "bootstrap", arm, against, n)) if found else None


def _estimate(found: Column, needed: np.ndarray, rng: np.random.Generator) -> Estimate:
    return estimate(found[0][..., 0], found[1][..., 0], needed, rng)


def _saved(scored: Mapping[int, Columns], arms: Sequence[str], needed: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """The label-saving factor of every arm at every label count."""
    counts = [n for n, columns in scored.items() if any(arm == BASELINE for arm, *_ in columns)]
    found: list[dict[str, Any]] = []
    why: dict[tuple[tuple[int, int], ...], str] = {}  # of each set of scratch's runs: one answer for all arms beside it
    for arm in arms:
        for n, columns in scored.items():
            cells = {}
            for (more, s), (mine, scratch) in pairs(columns, arm, BASELINE).items():
                curve = [scored[m][scratch] for m in counts if scratch in scored[m]]
                if len(curve) == len(counts):
                    full, again = zip(*curve, columns[mine], strict=True)
                    cells[more, s] = (np.concatenate(full), np.concatenate(again, axis=1))
            if together := block(cells):
                runs = tuple(cells)
                if runs not in why:
                    rng = stream(seed, "bootstrap", "curve")
                    why[runs] = unreadable(together[0][..., :-1], together[1][..., :-1], needed, counts, rng)
                rng = stream(seed, "bootstrap", "labels", n)
                told = unknown(why[runs]) if why[runs] else labels_saved(*together, needed, counts, n, rng)
                found.append({"arm": arm, "n_labels": n, **told})
    return found


def _predictions(source: Path | pl.DataFrame) -> pl.DataFrame:
    try:
        table = source if isinstance(source, pl.DataFrame) else pl.read_parquet(source)
        return table.cast({"item": pl.String, "patient": pl.String}).with_row_index().sort("item")
    except (OSError, pl.exceptions.PolarsError):
        what, fix = "predictions are missing or unreadable", "delete the run's folder, run again"
        raise UserError(what, None if isinstance(source, pl.DataFrame) else source, fix) from None


def _same_patients(tables: dict[ScoredRun, pl.DataFrame]) -> list[str]:
    first = next(iter(tables.values()))
    fix = "the data changed between runs: make the study anew in another --out"
    for run, table in tables.items():
        if not table["item"].equals(first["item"]):
            which = f"{run.arm}, {run.n_labels} labels, seed {run.seed}"
            raise UserError("runs were tested on different scans", which, fix)
        truth = [name for name in table.columns if name.startswith("truth.")]
        if not table.select(truth).equals(first.select(truth)):
            raise UserError("runs were tested with different labels", f"{run.arm}, {run.n_labels} labels", fix)
    # In the order of the files, not of ids: those are salted, and the bootstrap would differ by who indexed the scans.
    return first.sort("index")["patient"].unique(maintain_order=True).to_list()


__all__ = ["BASELINE", "METRIC_NAMES", "ScoredRun", "verdict"]
