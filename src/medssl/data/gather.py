"""Headers and voxels of many files, by processes; what is unchanged since the last run is not read again."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssl.data.find import Found, chunks, read_headers
from medssl.data.ids import hashed
from medssl.data.item import Fault, Item
from medssl.data.jobs import each
from medssl.data.measure import measure
from medssl.data.progress import progress

READING = 2  # raised when readers learn to tell more or otherwise, so that old caches are not believed
IDS = ("patient", "study", "series", "uid")
SAVE_EVERY_S = 300.0
FEW = 500  # headers of so few files are read here, sooner than processes start


@dataclass
class Gathered:
    """What was read, and what will spare reading it again."""

    items: list[Item] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    cache: dict[str, Any] = field(default_factory=dict)
    read: int = 0


def gather_headers(
    scans: Path, found: list[Found], cache: dict[str, Any], salt: bytes | None, workers: int
) -> Gathered:
    """Items of all files, ids hashed at once (``salt``), so that none is written anywhere."""
    prefix = f"header {READING} {'kept' if salt is None else 'hashed'} "
    keys = {file.path: prefix + file.key for file in found}
    result = Gathered(cache={key: cache[key] for key in keys.values() if key in cache})
    new = [file.path for file in found if keys[file.path] not in cache]
    for header in _headers(scans, new, workers):
        for path, told in header.items():
            result.cache[keys[path]] = _without_ids(told, salt)
    result.read = len(new)
    slices: list[dict[str, Any]] = []
    for path, key in keys.items():
        told = result.cache.get(key, {"fault": ["not read", "run the command again"]})
        if "fault" in told:
            result.faults.append(Fault(path, " ".join(told["fault"][0].split()), told["fault"][1]))
        result.items += [Item(**item) for item in told.get("items", [])]
        slices += told.get("slices", [])
    if slices:
        from medssl.data.dicom.headers import Slice
        from medssl.data.dicom.stacks import stack_up

        items, faults = stack_up(Slice(**one) for one in slices)
        result.items += items
        result.faults += faults
    result.items.sort(key=lambda item: item.place)
    return result


def gather_facts(
    scans: Path,
    rows: list[dict[str, Any]],
    stamp: Callable[[str], str],
    cache: dict[str, Any],
    save: Callable[[dict[str, Any]], None],
    workers: int,
) -> tuple[list[dict[str, Any]], int]:
    """Per row what ``measure`` says, and how many rows were read. ``stamp`` tells a file's state.

    ``save`` is given what is known now and then, and at the end, also where that is Ctrl-C.
    """
    keys = [_measure_key(row, stamp) for row in rows]
    kept = {key: cache[key] for key in keys if key in cache}
    new = [k for k, key in enumerate(keys) if key not in kept]
    saved = time.monotonic()
    try:
        with progress("reading scans", len(new)) as step:
            for position, outcome in each(measure, [(rows[k], str(scans)) for k in new], workers=workers):
                row = rows[new[position]]
                if isinstance(outcome, BaseException):
                    outcome = {"faults": [vars(_crashed(file, outcome)) for file in dict.fromkeys(row["files"])]}
                kept[keys[new[position]]] = outcome
                step()
                if time.monotonic() - saved > SAVE_EVERY_S:
                    save(kept)
                    saved = time.monotonic()
    finally:
        save(kept)
    return [kept[key] for key in keys], len(new)


def _headers(scans: Path, paths: list[str], workers: int) -> Iterable[dict[str, Any]]:
    jobs = chunks(paths, scans)
    with progress("reading headers", len(jobs)) as step:
        for position, outcome in each(read_headers, jobs, workers=1 if len(paths) <= FEW else workers):
            step()
            if not isinstance(outcome, BaseException):
                yield outcome
                continue
            chunk = jobs[position][1]  # one of them took its process down: each by itself, never in this one
            for k, alone in each(read_headers, [(str(scans), [path]) for path in chunk], workers=workers, apart=True):
                bad = _crashed(chunk[k], alone) if isinstance(alone, BaseException) else None
                yield {chunk[k]: {"fault": [bad.what, bad.how_to_fix]}} if bad else alone


def _crashed(file: str, error: BaseException) -> Fault:
    what = getattr(error, "what", f"not readable: {type(error).__name__}: {error}")
    return Fault(file, " ".join(str(what).split()), getattr(error, "fix", None) or "export it again")


def _measure_key(row: dict[str, Any], stamp: Callable[[str], str]) -> str:
    files = [stamp(file) for file in dict.fromkeys(row["files"])]
    mask = stamp(row["mask_path"]) if row["mask_path"] else ""
    text = repr((files, row["frames"], row["member"], row["modality"], row["mask_path"], mask))
    return f"facts {READING} " + hashed(text, b"facts")


def _without_ids(told: dict[str, Any], salt: bytes | None) -> dict[str, Any]:
    if salt is not None:
        for one in (*told.get("items", []), *told.get("slices", [])):
            one |= {name: hashed(one[name], salt) for name in IDS if name in one}
    return told
