"""Runs that earlier studies have recorded: what of it this study can take."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from medssl import files
from medssl.engine.record import learnt
from medssl.errors import UserError
from medssl.report.ledger import Ledger, read, recorded
from medssl.stages.study_keys import PARTS, Planned

BEGUN = "begun.json"


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


def begin(out: Path, plan: Sequence[Planned]) -> None:
    """Record under which keys runs begin: results.jsonl has them only once all have ended."""
    files.write_json(out / BEGUN, _begun(out) | {_name(one): one.key for one in plan})


def refuse_stale(out: Path, plan: Sequence[Planned]) -> None:
    """Refuse runs that the study has begun or recorded under another key: labels or code have changed since."""
    before: dict[str, str] = {}
    with suppress(UserError):  # a damaged record is written anew
        before = {row["run"]: row["key"] for row in read(out).rows if "run" in row and "key" in row}
    before |= _begun(out)
    now = {_name(one): one.key for one in plan if learnt(one.run.folder)}
    stale = {name for name, key in now.items() if before.get(name, key) != key}
    if stale:
        pairs = [zip(before[name].split("-"), now[name].split("-"), strict=True) for name in stale]
        differ = [any(old != new for old, new in part) for part in zip(*pairs, strict=True)]
        other = " and ".join(name for name, differs in zip(PARTS, differ, strict=True) if differs)
        what = f"the data or the code have changed since {len(stale)} runs began: other {other}"
        raise UserError(what, out, "choose another --out, or delete the folders of its runs to run them again")


def _begun(out: Path) -> dict[str, str]:
    try:
        found = files.read_json(out / BEGUN)
    except UserError:  # none yet, or damaged: results.jsonl is left
        return {}
    return {name: key for name, key in found.items() if isinstance(key, str)} if isinstance(found, dict) else {}


def _name(one: Planned) -> str:
    return f"runs/{one.run.folder.name}"


def _why_none(wanted: set[str], there: set[str]) -> str:
    """Which part of the keys nothing recorded shares, if no run is known."""
    if wanted & there:
        return ""
    parts = [[set(part) for part in zip(*(key.split("-") for key in keys), strict=True)] for keys in (wanted, there)]
    if not all(parts):
        return ""
    other = [name for name, mine, theirs in zip(PARTS, *parts, strict=True) if not mine & theirs]
    return f": it has other {' and other '.join(other)}" if other else ""
