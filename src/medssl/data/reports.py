"""Reports of scans: from the table, or from a text file beside the scan (a.txt for a.nii)."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medssl.data.item import Fault
from medssl.data.table import bare

Row = dict[str, Any]
LONGEST_BYTES = 2**18  # a radiology report is a page; what is longer is something else


def with_reports(rows: list[Row], files: Iterable[str], scans: Path) -> tuple[list[Row], list[Fault], set[str]]:
    """Rows with their text, faults of the text files, and which text files were looked at.

    ``files`` are all paths in the folder ``scans``. The table's word goes before a file's.
    """
    texts = {path[: -len(".txt")]: path for path in files if path.lower().endswith(".txt")}
    read = {path: _read(scans / path) for path in {texts[n] for row in rows for n in _names(row) if n in texts}}
    faults = [Fault(path, *found) for path, found in read.items() if isinstance(found, tuple)]
    made = []
    for row in rows:
        path = next((texts[name] for name in _names(row) if name in texts), "")
        beside = read.get(path)
        told, warnings = row["text"], list(row["warnings"])
        if told and not _says_something(told):
            told = None
            warnings.append("its report holds no word: taken as none")
        if isinstance(beside, str) and told and beside.split() != told.split():
            what = f"not used: the table has another report for {row['path']}"
            faults.append(Fault(path, what, "empty the cell text of the table, or remove the file"))
        made.append(row | {"text": told or (beside if isinstance(beside, str) else None), "warnings": warnings})
    _tell_twice(made)
    return made, faults, set(read)


def summary(rows: list[Row]) -> str:
    """How many scans have a report, in a sentence; empty where there is none at all."""
    have = sum(bool(row["text"]) for row in rows)
    if not have:
        return ""
    alone = "" if have == len(rows) else "; the others take part as images alone"
    return f"reports: {have} of {len(rows)} scans have one{alone}"


def _names(row: Row) -> list[str]:
    """Names that a text file of this scan may bear; a row of an .npz has none of its own."""
    if row["member"] is not None:
        return []
    first = row["files"][0]
    series = len(set(row["files"])) > 1
    return [bare(first), *([str(Path(first).parent)] if series else [])]


def _read(path: Path) -> str | tuple[str, str]:
    """The text of a file, or what is wrong and how to fix it."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        return f"the report is not readable: {error.strerror}", "allow reading it (chmod +r)"
    if len(raw) > LONGEST_BYTES:
        return f"{len(raw):,} bytes: too long for a report", "cut it to the report, or rename the file"
    try:
        text = raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return "the report is not UTF-8", "save it as text in UTF-8"
    if not _says_something(text):
        return "an empty report", "write the report into it, or remove the file"
    return text


def _says_something(text: str) -> bool:
    return any(letter.isalpha() for letter in text) and text.strip().lower() not in ("n/a", "na", "nan", "none", "null")


def _tell_twice(rows: list[Row]) -> None:
    """A study has one report; where its scans have several, each keeps its own, and that is told."""
    studies: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["text"] and row["study"]:
            studies[row["patient"], row["study"]].append(row)
    for mine in studies.values():
        several = len({" ".join(row["text"].split()) for row in mine})
        for row in mine if several > 1 else []:
            row["warnings"].append(f"its study has {several} different reports: each scan keeps its own")
