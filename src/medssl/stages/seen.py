"""Which images an encoder has learnt from, and whether those of test patients are among them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medssl import files
from medssl.data.store import Store
from medssl.report.facts import seen_in_pretraining

NAME = "seen.txt"


def write_seen(run: Path, store: Store, rows: Sequence[int]) -> None:
    """seen.txt: the content hash of each image that was learnt from, sorted, a line each. No ids, no paths."""
    files.write_text(run / NAME, "".join(f"{image}\n" for image in sorted(set(store.items["hash"][list(rows)]))))


def read_seen(run: Path) -> set[str] | None:
    """The hashes in seen.txt; None where there is none, or it is not what ``write_seen`` wrote."""
    try:
        lines = (run / NAME).read_text(encoding="ascii").split("\n")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    images, end = lines[:-1], lines[-1]
    whole = not end and images and all(re.fullmatch("[0-9a-f]{32}", image) for image in images)
    return set(images) if whole else None


def unseen_test(seen: set[str] | None, card: Mapping[str, Any], store: Store) -> tuple[bool | None, str]:
    """Whether no test image of ``store`` was learnt from, and how that is known; None where nobody can tell.

    ``seen``: the images that were; without them the encoder's card says what it can.
    """
    if seen is not None:
        count = seen_in_pretraining(store.items, seen)
        return not count, f"{count} test images" if count else f"none among the {len(seen)} it learnt from"
    if card.get("data_hash") != store.hash:
        how = " (with --transductive: test patients of that data, too)" if card.get("transductive") else ""
        return None, f"other data{how}, which are not at hand: make sure that these patients are not among them"
    if card.get("transductive"):
        return False, "pre-trained with --transductive"
    return None, "the same data; which split it learnt from was not recorded"
