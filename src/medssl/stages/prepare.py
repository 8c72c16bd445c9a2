"""`medssl prepare`: plan, then bring every scan into the store. Run again, it does what is missing or changed."""

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medssl.data.catalog import load_index, scans_folder, write_problems
from medssl.data.item import Fault, place_of
from medssl.data.jobs import each
from medssl.data.pairing import subjects
from medssl.data.plan import Plan
from medssl.data.planning import changed, disk_bytes, make_plan
from medssl.data.prepared import finished, prepare_item, stamp, stored_bytes, sweep, write_prepared
from medssl.data.progress import progress
from medssl.data.register import register_pairs
from medssl.data.store import Store
from medssl.errors import UserError, raise_all
from medssl.files import locked, read_json
from medssl.stages.limits import out_of_range
from medssl.stages.options.data import Prepare

Row = dict[str, Any]
MACHINE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def run(options: Prepare) -> Path:
    """Write plan.toml, the store, prepared.parquet and prepare_problems.csv into the folder; returns it."""
    raise_all(out_of_range(options))
    if options.pair_by is not None and not options.register:
        raise UserError("--pair-by says what --register aligns", fix="add --register, or leave --pair-by to pretrain")
    data = options.data
    frame = load_index(data)
    root = scans_folder(data)
    with locked(data, "DATA"):
        plan = _plan(options, frame)
        rows = frame.filter(pl.col("dims") == plan.dims).to_dicts()
        wanted = {row["item"]: stamp(row, plan, root) for row in rows}
        records = {row["item"]: finished(data / "store", row, wanted[row["item"]]) for row in rows}
        todo = [row for row in rows if records[row["item"]] is None]
        _tell_plan(plan, data, len(rows), len(todo))
        if len(rows) < len(frame):
            kind = f"{len(frame) - len(rows)} {'images' if plan.dims == 3 else 'volumes'}"
            print(f"left out: {kind}; `--dims {5 - plan.dims}` prepares them instead, best in a DATA of their own")
        _check_disk(data, plan, todo)
        if options.plan_only:
            return data
        problems = _work(options, plan, root, todo, wanted, records)
        made = [record for row in rows if (record := records[row["item"]]) is not None]
        problems += _notes(rows, records)
        told = write_problems(data / "prepare_problems.csv", problems)
        write_prepared(data, made, plan)
        if not made:
            raise UserError("no scan could be prepared", data / "prepare_problems.csv", "it says why, scan by scan")
        sweep(data / "store", {record["item"] for record in made})
        if options.register:
            _register(options)
    _tell_end(data, made, len(rows), told)
    return data


def _plan(options: Prepare, frame: pl.DataFrame) -> Plan:
    """The plan in the folder, with what the options change; a new one where there is none."""
    path = options.data / "plan.toml"
    given: dict[str, Any] = {
        "spacing_mm": options.spacing_mm, "size": options.size, "window_hu": options.window_hu, "mr": options.mr
    }  # fmt: skip
    old = Plan.read(path) if path.exists() else None
    if old is None or options.dims not in (None, old.dims):
        plan = make_plan(frame, dims=options.dims, **given)
    else:
        plan = changed(old, frame, **given)
    if plan != old:  # a file as it is keeps its author's comments
        plan.write(path)
    return plan


def _work(
    options: Prepare, plan: Plan, root: Path, todo: list[Row], wanted: dict[str, str], records: dict[str, Row | None]
) -> list[Fault]:
    """Prepare what is missing into ``records``; returns the faults."""
    root, store = root.absolute(), (options.data / "store").absolute()  # a cluster's workers run elsewhere
    jobs = [(row, root, store, plan, wanted[row["item"]]) for row in todo]
    faults = []
    with progress("prepare", len(jobs)) as step:
        for position, outcome in each(_prepare, jobs, workers=options.workers, cluster=options.cluster):
            row = todo[position]
            if isinstance(outcome, OSError) and outcome.errno in MACHINE_FAULTS:
                raise outcome  # the disk, not the scan
            if isinstance(outcome, UserError):
                faults.append(Fault.of(outcome, place_of(row)))
            elif isinstance(outcome, Exception):
                what = f"{type(outcome).__name__}: {outcome}"
                faults.append(Fault(place_of(row), what, "convert the file anew, or leave it out"))
            else:
                records[row["item"]] = outcome
            step()
    return faults


def _register(options: Prepare) -> None:
    store = Store(options.data)
    path = register_pairs(store, subjects(store, options.pair_by), options.workers)
    corrections = [one["correction"] for one in read_json(path)["items"].values()]
    kept = sum(np.array_equal(one, np.eye(4).ravel()) for one in corrections)
    stay = f", {kept} left where their headers have them" if kept else ""
    count = len(corrections) - kept
    print(f"registered: {count} scan{'s' * (count != 1)}{stay}, {path}")


def _prepare(job: tuple[Row, Path, Path, Plan, str]) -> Row:
    """Prepare a scan; one that a lost worker finished before it could tell is taken as it is."""
    row, _, store, _, mark = job
    return finished(store, row, mark) or prepare_item(*job)


def _notes(rows: list[Row], records: dict[str, Row | None]) -> list[Fault]:
    known = [(row, records[row["item"]]) for row in rows]
    return [
        Fault(place_of(row), f"used, but {what}", fix)
        for row, record in known
        if record
        for what, fix in record["notes"]
    ]


def _check_disk(data: Path, plan: Plan, todo: list[Row]) -> None:
    need, free = disk_bytes(plan, todo), shutil.disk_usage(data).free
    if todo:
        print(f"disk: about {_bytes(need)} needed, {_bytes(free)} free")
    if need > free:
        text = f"the prepared scans take about {_bytes(need)} and the disk has {_bytes(free)} free"
        raise UserError(text, data, "free some space, or choose a larger --spacing-mm or a smaller --size")


def _tell_plan(plan: Plan, data: Path, total: int, todo: int) -> None:
    grid = (
        " × ".join(f"{s:g}" for s in plan.spacing_mm) + " mm" if plan.spacing_mm else f"short side {plan.size} pixels"
    )
    low, high = plan.value_range
    print(f"plan: {plan.dims}D, channels {plan.channels}, {grid}, values in [{low:g}, {high:g}], {data / 'plan.toml'}")
    print(f"scans: {total}, of which {todo} to prepare")


def _tell_end(data: Path, made: list[Row], total: int, problems: int) -> None:
    used = sum(stored_bytes(data / "store", record["item"]) for record in made)
    print(f"prepared: {len(made)} of {total} scans, {_bytes(used)} on disk")
    if problems:
        print(f"remarks: {problems}, in {data / 'prepare_problems.csv'}")


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
