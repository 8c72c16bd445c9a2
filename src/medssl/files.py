"""Files that are whole or absent: written under a temporary name, then renamed."""

import fcntl
import json
import os
import re
import socket
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w

from medssl.errors import UserError

FORMAT = 1  # of the folders DATA, RUN and STUDY; raised when their layout changes


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what was written there becomes ``path`` if no error came."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # within /proc, say
        raise UserError("no folder can be made here", path.parent, "choose another place to write to") from None
    # The process in the name: two writers of one file never share a half-written one.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except Exception as error:
        fault = _disk_fault(error, path)
        if fault is None:
            raise
        raise fault from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _disk_fault(error: Exception, path: Path) -> OSError | None:
    """The fault of the disk behind an error, with the file it struck: a write that finds the disk full names none."""
    if isinstance(error, OSError):
        if error.filename is None or Path(error.filename).parent == path.parent:
            error.filename = str(path)
        return error
    told = re.search(r"\(os error (\d+)\)", str(error))  # how libraries written in Rust say it
    return OSError(int(told[1]), os.strerror(int(told[1])), str(path)) if told else None


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a binary file, atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON a person can read; NaN and infinities become null, which every reader understands."""
    write_text(path, json.dumps(_finite(value), indent=2) + "\n")


def write_toml(path: Path, table: dict[str, Any]) -> None:
    """Write TOML; keys whose value is None are left out, since TOML has no null."""
    write_text(path, tomli_w.dumps(_without_none(table), multiline_strings=True))


def read_json(path: Path) -> Any:
    """Read JSON; a broken file is a UserError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("file not found", path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"not valid JSON: {error}", path, "delete it and run the same command again") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read TOML; a broken file is a UserError that names it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("file not found", path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"not valid TOML: {error}", path, "correct that line") from None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl; what follows a line that a killed process left half-written is dropped."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows


def check_format(table: Any, path: Path) -> None:
    """Refuse a folder that another version of medssl laid out."""
    if not isinstance(table, dict):
        raise UserError("not a table of keys and values", path, "make the folder anew")
    if table.get("format") != FORMAT:
        found = table.get("format", "none")
        raise UserError(f"format {found} where this medssl reads format {FORMAT}", path, "make the folder anew")


# Folders that medssl writes: the file by which each is known, and what may lie there while that file is missing.
KINDS = {
    "DATA": ("index.toml", {"cache.parquet", "salt", "problems.csv", "sheet.png", "index.parquet"}),
    "RUN": ("run.toml", set()),
    "STUDY": (
        "study.toml",
        {
            "pretrain",
            "runs",
            "logs",
            "data.json",
            "begun.json",
            "results.jsonl",
            "predictions.parquet",
            "verdict.json",
            "report.html",
        },
    ),
    "FEATURES": ("features.parquet", {"features.npz"}),
    "PREDICTIONS": ("predict.json", set()),
}


@contextmanager
def locked(folder: Path, kind: str) -> Iterator[None]:
    """Hold ``folder`` for this process and tell a second one who does; the lock ends with the process, however.

    ``kind``, one of ``KINDS``, is what the folder is to be: one that holds anything else is refused and left as it is.
    """
    _refuse_others(folder, kind)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            raise UserError(f"in use by {holder}", folder, "wait for it, or choose another --out") from None
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield


def _refuse_others(folder: Path, kind: str) -> None:
    mark, early = KINDS[kind]
    inside = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()
    other = next((name for name, (known_by, _) in KINDS.items() if known_by in inside), kind)
    if mark in inside:
        return
    if other != kind:
        raise UserError(f"the folder is a {other}, not a {kind}", folder, "choose another --out")
    if strangers := sorted(inside - early):
        raise UserError(f"the folder holds '{strangers[0]}' but no {mark}", folder, "choose another --out")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
