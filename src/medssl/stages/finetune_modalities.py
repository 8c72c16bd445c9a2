"""A fine-tuning of several modalities: its items, its initial encoders, and how it does with fewer of them."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.pairing import about_pairs, subjects
from medssl.data.plan import Plan
from medssl.data.several import FusedStore, check_modalities, present_of
from medssl.data.store import Store
from medssl.data.subset import Subset
from medssl.errors import UserError
from medssl.loading import find_weights, towers_of, weights_for

# Items with a modality among those kept are predicted from these alone; the rest cannot be.
Scorer = Callable[[list[int], list[int]], float]  # rows, modalities kept → the metric


def store_of(data: Path, modalities: Sequence[str]) -> Store:
    """The prepared scans, or with ``modalities`` the subjects that have scans of them."""
    base = Store(data)
    if not modalities:
        return base
    check_modalities(base, modalities)
    store = FusedStore(base, modalities)
    for line in about_pairs(base, store.members[store.members >= 0].tolist(), subjects(base)):
        print(line, file=sys.stderr)
    return store


def scan_plan(store: Store) -> Plan:
    """The plan of a single scan: an item of several modalities has the channels of all of them."""
    return store.base.plan if isinstance(store, FusedStore) else store.plan


def check_subset(store: Store, subset: Subset) -> None:
    """Refuse a modality that nobody to learn from has: its encoder would stay as it began."""
    if not isinstance(store, FusedStore):
        return
    there = store.present[subset.train]
    missing = [name for m, name in enumerate(store.names_of) if not there[:, m].any()]
    if missing:
        what = f"no labelled training patient has a scan of modality '{missing[0]}'"
        raise UserError(what, "--modalities", "leave it out, or choose more patients")


def initial_weights(init: str, modalities: Sequence[str], there: Sequence[str]) -> list[Path]:
    """The files that encoders begin with, one for each of ``modalities``, without any one; none for scratch.

    A run of several modalities has an encoder for each, and each begins with its own. One encoder for scans of several
    modalities (those that are ``there``) begins with the first of the run, and that is told.
    """
    if init == "scratch":
        return []
    towers = towers_of(init)
    if towers and not modalities and len(there) > 1:
        seen = ", ".join(name or "unknown" for name in there)
        told = f"one encoder learns from {seen} and begins with that of {next(iter(towers))}"
        print(f"warning: {told}; --modalities gives each modality its own", file=sys.stderr)
        return [find_weights(init)]
    return [weights_for(init, name) for name in modalities or there[:1]]


def with_fewer(store: Store, rows: Sequence[int], score: Scorer) -> dict[str, Any]:
    """The key ``modalities`` of result.json: the metric with each modality alone and with each left out.

    Each on the test items that then have a scan, counted in ``n``; ``all`` counts those that have every modality.
    NaN where there is none. Empty for a plain fine-tuning.
    """
    if not isinstance(store, FusedStore):
        return {}
    every = range(len(store.names_of))
    parts: dict[str, dict[str, list[int]]] = {"alone": {}, "left_out": {}}
    for m, name in enumerate(store.names_of):
        parts["alone"][name] = [m]
        parts["left_out"][name] = [k for k in every if k != m]
    told: dict[str, Any] = {"names": list(store.names_of), "all": _scored(store, rows, list(every), score, whole=True)}
    for part, cases in parts.items():
        told[part] = {name: _scored(store, rows, keep, score) for name, keep in cases.items()}
    return {"modalities": told}


def _scored(
    store: FusedStore, rows: Sequence[int], keep: list[int], score: Scorer, whole: bool = False
) -> dict[str, Any]:
    present = present_of(store, rows, keep)
    assert present is not None
    usable = np.flatnonzero(present.numpy()[:, keep].all(1) if whole else present.numpy().any(1))
    chosen = [rows[p] for p in usable.tolist()]
    return {"value": score(chosen, keep) if chosen else float("nan"), "n": len(chosen)}
