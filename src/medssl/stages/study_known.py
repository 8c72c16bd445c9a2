"""Runs that earlier studies have recorded: what of it this study can take."""

import sys
from collections.abc import Sequence
from pathlib import Path

from medssl.report.ledger import Ledger, recorded
from medssl.stages.study_keys import PARTS, Planned


def known(folders: Sequence[Path], plan: Sequence[Planned]) -> Ledger:
    """The recorded results of runs in ``plan``; says how many there are, and where none is, why."""
    found = Ledger()
    for folder in folders:
        there = recorded(folder)
        wanted = {one.key for one in plan}
        said = f"{sum(one.key in there.predictions for one in plan)} of {len(plan)} runs are known from {folder}"
        print(said + _why_none(wanted, {*there.predictions}), file=sys.stderr)
        for row in there.rows:
            if row["key"] in wanted and row["key"] not in found.predictions:
                found.add(row, there.predictions[row["key"]])
    return found


def _why_none(wanted: set[str], there: set[str]) -> str:
    """Which part of the keys nothing recorded shares, if no run is known."""
    if wanted & there:
        return ""
    parts = [[set(part) for part in zip(*(key.split("-") for key in keys), strict=True)] for keys in (wanted, there)]
    if not all(parts):
        return ""
    other = [name for name, mine, theirs in zip(PARTS, *parts, strict=True) if not mine & theirs]
    return f": it has other {' and other '.join(other)}" if other else ""
