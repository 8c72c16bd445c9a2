"""run.toml: what a run is. The same command resumes it; a command that would make another run is refused."""

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from medssl import files
from medssl.engine.checkpoint import NAME as CHECKPOINT
from medssl.engine.machine import Machine
from medssl.errors import UserError, raise_all
from medssl.value_types import fits, wrong_type

NAME = "run.toml"
DONE = "done.json"

# Bookkeeping: these change nothing that is learnt, so a resumed run may have others.
FREE = frozenset(
    {
        "workers",
        "cache",
        "preflight",
        "log_every",
        "save_every_steps",
        "save_every_minutes",
        "tensorboard",
        "probe_every",
        "probe_target",
    }
)

# Options that are younger than the first records, each with the value at which all is as it was before it existed. A
# record without one means that value, so that a run or a study of an older medssl goes on; keys of recorded results
# leave it out at that value, so that a new option does not disown what is recorded. (``test_modalities`` came later
# too, but before any rows were committed: all of docs/results/data have it in their keys, so it stays there.)
LATER: dict[str, Any] = {
    "betas": [0.9, 0.999],
    "positives": "subject",
    "label": "",
    "sync_norm": False,
    "head_first": 0.0,
    "encoder_seed": None,
}


def stored(run: Path) -> dict[str, Any]:
    """The record of an earlier command on this folder; empty where there is none."""
    if not (run / NAME).exists():
        return {}
    record = files.read_toml(run / NAME)
    files.check_format(record, run / NAME)
    machine, hints = record.get("machine", {}), get_type_hints(Machine)
    if not isinstance(machine, dict):
        raise UserError("machine is not a table", run / NAME, "choose another --out")
    raise_all(
        wrong_type(k, machine[k], hints[k], run / NAME)
        for k in hints
        if k in machine and not fits(machine[k], hints[k])
    )
    return record


def finished(run: Path) -> bool:
    """True once a run has written everything."""
    return (run / DONE).exists()


def learnt(run: Path) -> bool:
    """True once something of a run would be lost with its folder."""
    return finished(run) or (run / CHECKPOINT).exists()


def begun(run: Path) -> dict[str, Any]:
    """The record of a run that has learnt something, which holds for the rest of it; empty before."""
    return stored(run) if learnt(run) else {}


def settle(run: Path, record: Mapping[str, Any], fixed: Collection[str], free: Collection[str] = FREE) -> None:
    """Write the record of a new run; for an old one refuse other values in the tables ``fixed``, all at once.

    Options named in ``free`` may differ.

    A run without a checkpoint has learnt nothing yet, so a first command that went wrong may be corrected.
    """
    before = stored(run)
    if learnt(run):
        raise_all(_differences(run, before, record, fixed, free))
    else:
        files.write_toml(run / NAME, {"format": files.FORMAT, **record})


def _differences(
    run: Path, before: Mapping, now: Mapping, fixed: Collection[str], free: Collection[str]
) -> Iterator[UserError]:
    found = []
    for table in fixed:
        old, new = _plain(before.get(table)), _plain(now.get(table))
        # What is told of the data has grown: of an older run, what was told then is compared.
        names = sorted(({*old} if table == "data" else {*old, *new}).difference(free))
        both = [(n, value_in(old, n), value_in(new, n)) for n in names]
        found += [f"{_label(table, n)}: {was} → {is_now}" for n, was, is_now in both if was != is_now]
    if found:
        once = dict.fromkeys(found)  # an option may stand in two tables
        what = f"the run was started with other options: {'; '.join(once)}"
        yield UserError(what, run, "repeat the old values to resume it, or choose another --out")


def value_in(table: Mapping[str, Any], name: str) -> Any:
    """Of an option in a table of a record; one that it lacks had its value in ``LATER``, else there is none."""
    return table.get(name, LATER.get(name))


def _plain(value: Any) -> dict[str, Any]:
    """A table as TOML would give it back: no None, lists for tuples; a bare value as a table of one."""
    if not isinstance(value, Mapping):
        return {"": value}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in value.items() if v is not None}


def _label(table: str, name: str) -> str:
    return f"{table} {name}".strip() if table == "data" or not name else f"--{name.replace('_', '-')}"


def last_kept(run: Path) -> float:
    """The step whose encoder a finished run kept; infinite where that is its last one."""
    return files.read_json(run / DONE).get("kept", math.inf) if finished(run) else math.inf
