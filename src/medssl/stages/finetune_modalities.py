"""A fine-tuning of chosen modalities: its items and its initial encoders."""

import sys
from collections.abc import Sequence
from pathlib import Path

from medssl.data.pairing import about_pairs, subjects
from medssl.data.plan import Plan
from medssl.data.several import FusedStore, check_modalities, shown_by
from medssl.data.store import Store
from medssl.data.subset import Subset
from medssl.errors import UserError
from medssl.loading import find_weights, towers_of, weights_for


def store_of(data: Path, modalities: Sequence[str], others: Sequence[str] = ()) -> Store:
    """The prepared scans, or with ``modalities`` the subjects that have scans of them; ``others`` are for the test."""
    base = Store(data)
    check_modalities(base, modalities, others)
    if not modalities:
        return base
    if len(modalities) + len(others) > 1:
        members = FusedStore(base, (*modalities, *others)).members
        for line in about_pairs(base, members[members >= 0].tolist(), subjects(base)):
            print(line, file=sys.stderr)
    return FusedStore(base, modalities)


def scan_plan(store: Store) -> Plan:
    """The plan of a single scan: an item of several modalities has the channels of all of them."""
    return store.base.plan if isinstance(store, FusedStore) else store.plan


def check_subset(store: Store, subset: Subset, others: Sequence[str] = ()) -> None:
    """Refuse a modality that nobody to learn from has, since its encoder would stay as it began; and one that nobody
    to test on has beside that which is learnt from."""
    if not isinstance(store, FusedStore):
        return
    there = store.present[subset.train]
    missing = [name for m, name in enumerate(store.names_of) if not there[:, m].any()]
    if missing:
        what = f"no labelled training patient has a scan of modality '{missing[0]}'"
        raise UserError(what, "--modalities", "leave it out, or choose more patients")
    for name in others:
        if not shown_by(store, name).present[subset.test].any():
            what = f"no labelled test patient has scans of both '{store.names_of[0]}' and '{name}'"
            raise UserError(what, "--test-modalities", "leave it out, or index again with more test patients")


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
