"""What is to be predicted: label columns as a matrix of numbers, with NaN wherever nobody said.

One column whose cells hold one word each is a choice between classes. Cells such as ``effusion|nodule``, or several
columns joined by ``+``, are independent findings.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from medssl.data.catalog import LABEL, label_names
from medssl.errors import UserError

MISSING = {"", "na", "n/a", "nan", "null", "unknown", "?"}
POSITIVE = {"1", "1.0", "true", "yes", "y", "positive", "pos", "present", "abnormal"}
NEGATIVE = {"0", "0.0", "false", "no", "n", "negative", "neg", "absent", "normal"}
MOST_CLASSES = 100  # more distinct words than this are measurements or ids, not classes


@dataclass(frozen=True)
class Target:
    """Truth of every item. ``matrix`` (n, k) holds 0, 1 or NaN; a column a class.

    ``one`` (exactly one class is true of an item: binary and multi-class) or ``many`` (each is true or not).
    """

    name: str
    kind: Literal["one", "many"]
    classes: tuple[str, ...]
    matrix: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """(n,) bool: items of which at least one label is known."""
        return ~np.isnan(self.matrix).all(axis=1)


def read_target(items: pl.DataFrame, target: str | None) -> Target:
    """The truth that ``--target`` names, from columns ``label.NAME`` of ``items``. UserError where it is unusable."""
    columns = label_names(items)
    if not columns:
        raise UserError("the data has no label columns", fix="give `medssl index` a --table with one")
    if target is None:
        target = _only_usable(items, columns)
    # A column whose own name holds a plus is taken whole.
    names = [target] if target in columns else [name.strip() for name in target.split("+")]
    for name in names:
        if name not in columns:
            raise UserError(f"no label column '{name}'", "--target", _suggestion(name, columns))
    if len(set(names)) < len(names):
        raise UserError(f"'{target}' names a column twice", "--target", "name it once")
    cells = [_cells(items, name) for name in names]
    found = _choice(names[0], cells[0]) if len(names) == 1 else _columns(names, cells)
    _check_two_sides(found)
    return found


def _cells(items: pl.DataFrame, name: str) -> list[str | None]:
    words = [None if value is None else str(value).strip() for value in items[LABEL + name].to_list()]
    return [None if word is None or word.lower() in MISSING else word for word in words]


def _choice(name: str, cells: list[str | None]) -> Target:
    if any("|" in cell for cell in cells if cell):
        return _bars(name, cells)
    classes = _ordered({cell for cell in cells if cell})
    if len(classes) > MOST_CLASSES:
        fix = "choose a column of classes, or group its values first"
        raise UserError(f"column '{name}' holds {len(classes)} different values", "--target", fix)
    matrix = np.full((len(cells), len(classes)), np.nan)
    for row, cell in enumerate(cells):
        if cell is not None:
            matrix[row] = [cell == c for c in classes]
    return Target(name, "one", tuple(classes), matrix)


def _bars(name: str, cells: list[str | None]) -> Target:
    sets = [None if cell is None else {word.strip() for word in cell.split("|")} - {""} for cell in cells]
    classes = sorted(set().union(*(s for s in sets if s)))
    matrix = np.array([[np.nan if s is None else float(c in s) for c in classes] for s in sets])
    return Target(name, "many", tuple(classes), matrix.reshape(len(cells), len(classes)))


def _columns(names: list[str], cells: list[list[str | None]]) -> Target:
    """Every column's findings side by side: one of a column of two values, else one a value."""
    classes: list[str] = []
    columns = []
    for name, column in zip(names, cells, strict=True):
        found = _choice(name, column)
        if len(found.classes) == 2 and found.kind == "one":
            # A word that says yes needs no mention; of others the name tells which one counts as yes.
            yes = found.classes[1]
            classes.append(name if yes.lower() in POSITIVE else f"{name}={yes}")
            columns.append(found.matrix[:, 1:])
        else:
            classes += [f"{name}={word}" for word in found.classes]
            columns.append(found.matrix)
    return Target("+".join(names), "many", tuple(classes), np.concatenate(columns, axis=1))


def _ordered(words: set[str]) -> list[str]:
    """Classes in a fixed order: what says no first, what says yes last, numbers by value, the rest by the alphabet."""

    def rank(word: str) -> tuple[int, float, str]:
        low = word.lower()
        if len(words) == 2 and (low in POSITIVE or low in NEGATIVE):
            return (2 if low in POSITIVE else 0, 0.0, word)
        number = float(word) if word.replace(".", "", 1).isdecimal() else np.inf
        return (1, number, word)

    return sorted(words, key=rank)


def _check_two_sides(target: Target) -> None:
    if not target.known.any():
        raise UserError(f"no item has a label in '{target.name}'", "--target", "fill the column, or choose another")
    if target.kind == "one" and len(target.classes) < 2:
        fix = "a classifier needs two classes or more; choose another column"
        raise UserError(f"all labels of '{target.name}' are '{target.classes[0]}'", "--target", fix)
    if target.kind == "many" and not any(len(np.unique(c[~np.isnan(c)])) > 1 for c in target.matrix.T):
        raise UserError(f"no label of '{target.name}' is both true and false somewhere", "--target", "choose another")


def _only_usable(items: pl.DataFrame, columns: list[str]) -> str:
    usable = [c for c in columns if 2 <= len({cell for cell in _cells(items, c) if cell}) <= MOST_CLASSES]
    if len(usable) == 1:
        return usable[0]
    if not usable:
        raise UserError("no label column holds two classes or more", "--target", f"columns are {', '.join(columns)}")
    raise UserError("several label columns could be predicted", "--target", f"choose one of {', '.join(usable)}")


def _suggestion(name: str, columns: list[str]) -> str:
    near = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(columns)}"
