"""The table a person brings: which patient, split, mask, text and labels belong to which file."""

import csv
import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from medssl.data.item import Fault
from medssl.errors import UserError, raise_all

COLUMNS = ("path", "patient_id", "study_id", "modality", "split", "mask_path", "text")
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
SPLITS |= {"test": "test", "testing": "test"}
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".bmp")


@dataclass
class Table:
    """Rows by the path relative to the scans, or by patient where the table has no path."""

    path: Path
    labels: list[str]
    by_path: dict[str, dict[str, str]] = field(default_factory=dict)
    by_patient: dict[str, dict[str, str]] = field(default_factory=dict)

    def row(self, files: Iterable[str]) -> dict[str, str]:
        """What the table says of an item: by one of its files, by its name without ending, by a folder above it."""
        files = list(files)
        for file in files:
            if file in self.by_path:
                return self.by_path[file]
        for name in (bare(files[0]), *_folders(files[0])):
            if name in self.by_path:
                return self.by_path[name]
        return {}

    def masks(self) -> set[str]:
        """Paths of all masks, relative to the scans."""
        return {row["mask_path"] for row in (*self.by_path.values(), *self.by_patient.values()) if "mask_path" in row}

    def unknown(self, paths: set[str], patients: set[str], identify: Callable[[str], str]) -> list[Fault]:
        """Rows about nothing that lies in the folder of scans. ``paths`` are all its files, usable or not.

        ``identify`` makes of an id what ``patients`` holds.
        """
        names = paths | {bare(path) for path in paths} | {f for path in paths for f in _folders(path)}
        missing = [key for key in self.by_path if key not in names]
        missing += [key for key in self.by_patient if identify(key) not in patients]
        place = f"{self.path.name}, row "
        rows = self.by_path | self.by_patient
        fix = "correct the path (relative to the scans or the table), or remove the row"
        return [Fault(place + rows[key]["#"], f"no scan for '{key}'", fix) for key in missing]


def read_table(path: Path, scans: Path) -> Table:
    """The table at ``path``; every fault of it is told at once."""
    rows = _rows(path)
    if not rows:
        raise UserError("the table has no rows", path, "fill it in, or move it away")
    header = [name for name in rows[0] if name != "#"]
    if not {"path", "patient_id"} & set(header):
        fix = f"name one column path, or patient_id; other known columns: {', '.join(COLUMNS[1:])}"
        raise UserError(f"no column path among {', '.join(header) or '(none)'}", path, fix)
    table = Table(path, [name for name in header if name not in COLUMNS])
    errors: list[UserError] = []
    for row in rows:
        where = f"{path}, row {row['#']}"
        told = {name: value.strip() for name, value in row.items() if value and value.strip()}
        if "split" in told and told["split"].lower() not in SPLITS:
            errors.append(UserError(f"split '{told['split']}'", where, "write train, val or test"))
        elif "split" in told:
            told["split"] = SPLITS[told["split"].lower()]
        if "mask_path" in told:
            told["mask_path"] = _relative(told["mask_path"], path.parent, scans)
        if "path" in header and "path" not in told:
            errors.append(UserError("no path", where, "fill it in, or remove the row"))
            continue
        known = table.by_path if "path" in header else table.by_patient
        key = _relative(told["path"], path.parent, scans) if "path" in header else told.get("patient_id", "")
        other = known.setdefault(key, told)
        if any(other.get(k) != told.get(k) for k in header if k != "path"):
            errors.append(UserError(f"'{key}' again, with other values", where, f"keep this row or row {other['#']}"))
    raise_all(errors)
    return table


def _rows(path: Path) -> list[dict[str, str]]:
    """Rows as text, with their line number under "#"."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if path.suffix.lower() in (".xlsx", ".xls", ".ods", ".parquet"):
            raise UserError("not a CSV table", path, "save it as CSV (UTF-8)") from None
        raise UserError(f"not UTF-8: {error.reason}", path, "save it as CSV in UTF-8") from None
    except OSError as error:
        raise UserError(f"table not readable: {error.strerror}", path, "correct --table") from None
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        reader = csv.DictReader(io.StringIO(text), delimiter=separator, strict=False)
        header = [_column(name) for name in reader.fieldnames or []]
        twice = sorted({name for name in header if name and header.count(name) > 1})
        if twice:
            raise UserError(f"two columns named {', '.join(twice)}", path, "rename one")
        reader.fieldnames = header
        return [_row(row, reader.line_num, path) for row in reader if _says_something(row)]
    except csv.Error as error:
        raise UserError(f"not a CSV table: {error}", path, "save it as CSV in UTF-8") from None


def _column(name: str) -> str:
    """Known columns are found however they are capitalised; the name of a label stays as it is."""
    name = name.strip()
    return name.lower() if name.lower() in COLUMNS else name


def _says_something(row: dict) -> bool:
    """False for a line of nothing but separators, as spreadsheets leave them below a table."""
    cells = [*(row.get(None) or []), *(value or "" for name, value in row.items() if name)]
    return any(cell.strip() for cell in cells)


def _row(row: dict, number: int, path: Path) -> dict[str, str]:
    """Values of the columns that have a name: pandas writes row numbers into one without, spreadsheets nothing."""
    if any(cell.strip() for cell in row.get(None) or []):
        fix = "quote values that hold a separator"
        raise UserError("more values than columns", f"{path}, row {number}", fix)
    return {"#": str(number)} | {name: value or "" for name, value in row.items() if name}


def _relative(name: str, folder: Path, scans: Path) -> str:
    """As paths in the index are: relative to the scans, else absolute. A table's own folder comes first."""
    name = name.replace("\\", "/")
    if folder != scans and not Path(name).is_absolute() and not (folder / name).exists() and (scans / name).exists():
        folder = scans
    full = os.path.normpath(folder / name)
    inside = os.path.relpath(full, scans)
    return full if inside.startswith("..") else Path(inside).as_posix()


def bare(path: str) -> str:
    """A path without the ending of an image format."""
    lower = path.lower()
    return next((path[: -len(end)] for end in ENDINGS if lower.endswith(end)), path)


def _folders(path: str) -> list[str]:
    """Folders above a file, the nearest first."""
    return [str(parent) for parent in Path(path).parents if str(parent) != "."]
