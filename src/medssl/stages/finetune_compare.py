"""How a fine-tuned network does with fewer modalities than it knows, or with another one: on the same test items."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from medssl.data.several import FusedStore, shown_by
from medssl.evaluate.cases import compare
from medssl.stages.finetune_setup import Setup

Predict = Callable[[Setup, list[int], list[int]], pl.DataFrame]  # rows, modalities kept → as predictions.parquet
Summary = Callable[[Setup, pl.DataFrame], dict[str, float]]  # all metrics of such a table
Case = tuple[str, str]  # part of result.json, modality


def by_modality(
    setup: Setup, others: Sequence[str], metric: str, tested: pl.DataFrame, predict: Predict, summary: Summary
) -> dict[str, Any]:
    """The key ``modalities`` of result.json; empty for a fine-tuning of whatever scans there are.

    ``names``; ``all``; each ``alone`` and each ``left_out``, of two or more; ``tested_on`` each of ``others``, which
    stand in for the one that was learnt from. All on the test items that have every one of these modalities, so that
    only the modalities differ; ``same`` says so. Where there is no such item each is on those that it can be shown, and
    differences are not told. ``tested``: predictions.parquet, of all test items.
    """
    if not isinstance(setup.store, FusedStore):
        return {}
    rows, cases = setup.subset.test, _cases(setup, others)
    there = {case: _present(shown, rows, keep) for case, (shown, keep) in cases.items()}
    common = np.all([present.all(1) for present in there.values()], axis=0)
    same = bool(common.any())
    usable = {case: common if same else present.any(1) for case, present in there.items()}
    tables: dict[Case, pl.DataFrame] = {}
    known: dict[Any, pl.DataFrame] = {}  # of two, one alone is the other left out
    for case, (shown, keep) in cases.items():
        places, key = np.flatnonzero(usable[case]), (id(shown), *keep)
        if key not in known:
            chosen = [rows[i] for i in places]
            known[key] = predict(shown, chosen, keep) if tables and chosen else tested[places]
        tables[case] = known[key]
    told: dict[str, Any] = {"names": list(setup.store.names_of), "same": same}
    told |= {part: {} for part, name in cases if name}
    scores = compare(tables, metric) if same else {case: _alone(table, metric) for case, table in tables.items()}
    for (part, name), table in tables.items():
        score: dict[str, Any] = {"n": len(table), "patients": table["patient"].n_unique()}
        score |= scores[part, name] | {"metrics": summary(setup, table) if len(table) else {}}
        if name:
            told[part][name] = score
        else:
            told[part] = score
    return {"modalities": told}


def _cases(setup: Setup, others: Sequence[str]) -> dict[Case, tuple[Setup, list[int]]]:
    """What the network is shown and which modalities of it; the first is all that it knows."""
    store = setup.store
    assert isinstance(store, FusedStore)
    every = list(range(len(store.names_of)))
    cases = {("all", ""): (setup, every)}
    if len(every) > 1:
        cases |= {("alone", name): (setup, [m]) for m, name in enumerate(store.names_of)}
        cases |= {("left_out", name): (setup, [k for k in every if k != m]) for m, name in enumerate(store.names_of)}
    shown = {name: replace(setup, store=shown_by(store, name), _items={}) for name in others}
    return cases | {("tested_on", name): (other, every) for name, other in shown.items()}


def _present(setup: Setup, rows: list[int], keep: list[int]) -> np.ndarray:
    assert isinstance(setup.store, FusedStore)
    return setup.store.present[rows][:, keep]


def _alone(table: pl.DataFrame, metric: str) -> dict[str, Any]:
    return compare({"": table}, metric)[""] if len(table) else {"value": None, "interval": [None, None]}
