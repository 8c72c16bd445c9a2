"""`medssl index`: find every usable scan, say what is wrong with the rest, split by patient, show a sheet."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from medssl.data.catalog import LABEL, load_cache, load_index, scans_folder, write_cache, write_index, write_problems
from medssl.data.find import Found, walk
from medssl.data.gather import gather_facts, gather_headers
from medssl.data.ids import load_salt
from medssl.data.item import Fault, place_of
from medssl.data.reports import summary, with_reports
from medssl.data.rows import Naming, stratum_column
from medssl.data.sheet import write_sheet
from medssl.data.split import SPLITS, Member, assign
from medssl.data.table import Table, read_table
from medssl.errors import UserError, raise_all
from medssl.files import check_format, locked, read_toml
from medssl.stages.limits import out_of_range
from medssl.stages.options.data import Index
from medssl.wording import counted

Row = dict[str, Any]
HEADERS = (".hdr", ".mhd", ".nhdr")  # of voxels in a file beside them
VOXELS = (".img", ".raw", ".zraw", ".raw.gz")
MOST_CLASSES = 8  # of a label, that are told one by one


def run(options: Index) -> Path:
    """Write index.parquet, problems.csv and sheet.png into the folder ``out``; returns it."""
    raise_all(_mistakes(options))
    scans, out = options.scans.resolve(), options.out.resolve()
    table = _table(options, scans)
    found, faults = walk(scans, without=[out, *([table.path] if table else [])])
    if not found:
        raise UserError("no files", scans, "give the folder that holds the scans")
    with locked(out, "DATA"):
        earlier = _earlier(out, scans)
        rows, unusable, strangers, read = _read(options, scans, out, table, found)
        rows, refused, anew = _split(options, rows, earlier, settled=(out / "prepared.parquet").exists())
        faults += unusable + strangers + list(refused.values())
        faults += _lone_masks(table.masks() if table else set(), found, rows, faults)
        told = write_problems(out / "problems.csv", faults)
        if not rows:
            raise UserError(f"no usable scan among {len(found)} files", scans, f"{out / 'problems.csv'} says why")
        if read or not (out / "sheet.png").exists():
            write_sheet(out / "sheet.png", rows, scans, _title(rows), options.workers)
        labels = sorted({name for row in rows for name in row["labels"]}, key=_order_of(table))
        past = {item: earlier[item] for item in refused if item in earlier}  # or the next run would take them in
        write_index(out, [_columns(row, labels) for row in rows], labels, _about(options, scans, past))
    _tell(out, rows, told, labels, read)
    if anew:
        print("the split was drawn anew: some patients lay on two sides of it, and nothing is prepared from it yet")
    if table and strangers:
        count = f"{len(strangers)} of {len(table.by_path | table.by_patient)} rows of {table.path.name}"
        print(f"warning: {count} fit no scan, so their labels are not used: {out / 'problems.csv'} says how to fix it")
    return out


def _read(
    options: Index, scans: Path, out: Path, table: Table | None, found: list[Found]
) -> tuple[list[Row], list[Fault], list[Fault], int]:
    """Rows of usable scans, faults of the rest, rows of the table without a scan, how many scans were read anew."""
    cache, salt = load_cache(out), load_salt(out)
    masks = table.masks() if table else set()
    candidates = [file for file in found if file.path not in masks]
    headers = gather_headers(scans, candidates, cache, None if options.keep_ids else salt, options.workers)
    naming = Naming(salt, options.keep_ids, options.patient_regex, options.modality)
    rows = naming.rows(headers.items, table)

    def save(learnt: dict[str, Any]) -> None:
        write_cache(out, headers.cache | learnt)

    outcomes, read = gather_facts(scans, rows, _stamp(scans, found), cache, save, options.workers)
    usable, faults = _with_facts(rows, outcomes)
    usable, silent, texts = with_reports(usable, [file.path for file in found], scans)
    faults += silent + [fault for fault in headers.faults if fault.file not in texts]
    patients = {row["patient"] for row in rows}
    strangers = table.unknown({file.path for file in found}, patients, naming.identify) if table else []
    return usable, faults, strangers, read


def _mistakes(options: Index) -> list[UserError]:
    found = out_of_range(options)
    if not options.scans.is_dir():
        found.append(UserError("no such folder", options.scans, "give the folder that holds the scans"))
    if options.scans.resolve() == options.out.resolve():
        found.append(UserError("--out is the folder of scans", options.out, "choose another folder"))
    if options.table is not None and not options.table.is_file():
        found.append(UserError("no such table", options.table, "correct --table"))
    if not (min(options.fractions) >= 0 and abs(sum(options.fractions) - 1) < 1e-6 and options.fractions[0] > 0):
        fix = "give three shares that sum to 1, such as 0.7 0.1 0.2"
        found.append(UserError(f"--fractions {' '.join(map(str, options.fractions))}", fix=fix))
    try:
        re.compile(options.patient_regex or "")
    except re.error as error:
        found.append(UserError(f"--patient-regex is no regular expression: {error}", fix="correct it"))
    return found


def _table(options: Index, scans: Path) -> Table | None:
    path = options.table or scans / "labels.csv"
    if options.table is None and not path.is_file():
        return None
    table = read_table(path.resolve(), scans)
    return table


def _earlier(out: Path, scans: Path) -> dict[str, str]:
    """Splits of an earlier run by item, also of those that it refused; a UserError where it was of other scans."""
    if not (out / "index.toml").exists():
        return {}
    about = read_toml(out / "index.toml")
    check_format(about, out / "index.toml")
    if (before := scans_folder(out)) != scans:
        raise UserError(f"made from {before}", out, "choose another --out, or delete this one")
    if not (out / "index.parquet").exists():
        return {}
    frame = load_index(out, ["item", "split"])
    return about.get("refused", {}) | dict(zip(frame["item"].to_list(), frame["split"].to_list(), strict=True))


def _stamp(scans: Path, found: list[Found]) -> Callable[[str], str]:
    known = {file.path: file.key for file in found}

    def stamp(path: str) -> str:
        if path in known:
            stem = path.rpartition(".")[0] if path.lower().endswith(HEADERS) else None
            beside = [] if stem is None else [known[stem + end] for end in VOXELS if stem + end in known]
            return "|".join([known[path], *beside])
        try:  # a mask outside the folder of scans
            about = (scans / path).stat()
        except OSError:
            return f"{path}|missing"
        return f"{path}|{about.st_size}|{about.st_mtime_ns}"

    return stamp


def _with_facts(rows: list[Row], outcomes: list[Any]) -> tuple[list[Row], list[Fault]]:
    usable, faults = [], []
    for row, outcome in zip(rows, outcomes, strict=True):
        faults += [Fault(**fault) for fault in outcome["faults"]]
        if "facts" in outcome:
            warnings = [*row["warnings"], *outcome["warnings"]]
            usable.append(row | outcome["facts"] | {"warnings": warnings, "path": outcome["facts"]["files"][0]})
    return usable, faults


def _split(
    options: Index, rows: list[Row], earlier: dict[str, str], settled: bool
) -> tuple[list[Row], dict[str, Fault], bool]:
    """Rows with their split; a fault by item for each that would tie two sides together; whether it was drawn anew.

    Sides of an earlier run stay, except where they tear a patient apart (the table came later) and are not
    ``settled``, as nothing has learnt from them. Copies are warned about.
    """
    known = sorted({name for row in rows for name in row["labels"]})
    if rows and options.stratify is not None and options.stratify not in known:
        fix = f"--stratify takes one of {', '.join(known)}" if known else "leave --stratify out: no scan has a label"
        raise UserError(f"no label column '{options.stratify}'", options.scans, fix)
    column = stratum_column(rows, options.stratify)
    chosen = {row["patient"] for row in rows if row["given"]}
    members = []
    for row in rows:
        kept = None if row["patient"] in chosen else earlier.get(row["item"], row["kept"])
        stratum = row["labels"].get(column, "") if column else ""
        members.append(Member(row["item"], row["patient"], row["hash"], kept, row["given"], stratum))
    sides = assign(members, options.fractions, options.seed)
    if anew := bool(earlier) and not settled and None in sides.values():
        fresh = [replace(m, kept=row["kept"]) for m, row in zip(members, rows, strict=True)]
        sides = assign(fresh, options.fractions, options.seed)
    first: dict[str, str] = {}
    faults: dict[str, Fault] = {}
    used = []
    for row in rows:
        copied = first.setdefault(row["hash"], row["path"])
        if sides[row["item"]] is None:
            what = "the same image or patient is on two sides of the split"
            fix = "remove the copy; or, where the table names patients anew, index into a new --out"
            faults[row["item"]] = Fault(place_of(row), what, fix)
            continue
        if copied != row["path"]:
            row["warnings"].append("the same voxels as another scan")
        used.append(row | {"split": sides[row["item"]]})
    return used, faults, anew


def _lone_masks(masks: set[str], found: list[Found], rows: list[Row], faults: list[Fault]) -> list[Fault]:
    """Masks among the scans whose image is not used, so that they do not vanish."""
    known = {row["mask_path"] for row in rows} | {fault.file for fault in faults}
    lone = masks - known
    what, fix = "a mask whose image is not used", "see the row of its image"
    return [Fault(file.path, what, fix) for file in found if file.path in lone]


def _columns(row: Row, labels: list[str]) -> Row:
    used = {k: v for k, v in row.items() if k not in ("labels", "warnings", "given", "kept")}
    told = {LABEL + name: row["labels"].get(name) for name in labels}
    return used | told | {"problems": "; ".join(row["warnings"])}


def _order_of(table: Table | None) -> Callable[[str], tuple[int, str]]:
    order = {name: k for k, name in enumerate(table.labels if table else [])}
    return lambda name: (order.get(name, len(order)), name)


def _about(options: Index, scans: Path, refused: dict[str, str]) -> Row:
    given = {"seed": options.seed, "fractions": list(options.fractions), "keep_ids": options.keep_ids}
    given |= {"table": options.table, "patient_regex": options.patient_regex, "modality": options.modality}
    return {"scans": str(scans), "options": given | {"stratify": options.stratify}, "refused": refused}


def _title(rows: list[Row]) -> str:
    kinds = Counter((row["modality"] or "unknown modality", row["dims"]) for row in rows)
    parts = [f"{n} {name} {dims}D" for (name, dims), n in kinds.most_common(6)]
    patients = len({row["patient"] for row in rows})
    return f"{len(rows)} scans of {patients} patients   ·   " + "   ".join(parts)


def _tell(out: Path, rows: list[Row], faults: int, labels: list[str], read: int) -> None:
    """What was found, on standard output."""
    print(_title(rows).replace("   ·   ", ": ").replace("   ", ", ") + f" ({read} read now)")
    sides = {side: {row["patient"] for row in rows if row["split"] == side} for side in SPLITS}
    print("patients: " + ", ".join(f"{side} {len(patients)}" for side, patients in sides.items()))
    if len({row["patient"] for row in rows}) == 1 and len({row["study"] for row in rows}) > 3:
        print("warning: all scans carry one patient id; if an anonymiser put it there, give --patient-regex or a table")
    empty = [side for side, patients in sides.items() if not patients]
    if empty:
        print(f"warning: no patient is in {' or '.join(empty)}: too few patients")
    if reports := summary(rows):
        print(reports)
    for name in labels:
        classes = Counter(row["labels"][name] for row in rows if row["labels"].get(name) is not None)
        print(_classes(name, classes, len(rows)))
        if len(classes) == 1:
            print(f"warning: label '{name}' has one class only, so nothing can learn it")
    kinds: dict[str, list[str]] = defaultdict(list)  # warnings that differ in their numbers are one kind
    for warning in (w for row in rows for w in row["warnings"]):
        kinds[re.sub(r"\d[\d.]*", "", warning)].append(warning)
    for alike in sorted(kinds.values(), key=len, reverse=True)[:8]:
        print(f"warning, {len(alike)} ×: {alike[0]}")
    print(f"{out / 'problems.csv'}: {_entries(faults)} about what is not used" if faults else "no problems")


def _classes(name: str, classes: Counter[str], scans: int) -> str:
    """How many scans have each value of a label; a table that was joined wrongly shows here."""
    few = ", ".join(f"{value} ({count})" for value, count in classes.most_common())
    told = few if len(classes) <= MOST_CLASSES else f"{len(classes)} values"
    without = scans - classes.total()
    return f"label '{name}': {told}" + (f"; none for {counted(without, 'scan')}" if without else "")


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"
