"""What is wrong with the top of a recipe or with the options of `medssl study`."""

import difflib
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from medssl.errors import UserError
from medssl.report.ledger import PREDICTIONS, ROWS
from medssl.stages.options.study import Study
from medssl.value_types import fits, wrong_type


def wrong_keys(table: Mapping[str, Any], where: Path | None, tables: Collection[str]) -> Iterator[UserError]:
    """Unknown keys of the recipe, and values of the wrong type."""
    hints = get_type_hints(Study)
    known = set(hints) - {"out", "config"}
    for key, value in table.items():
        if key in tables:
            if not isinstance(value, Mapping):
                yield UserError(f"key '{key}' is not a table", where, f"write [{key}] and its keys below it")
        elif key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            fix = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}"
            yield UserError(f"unknown key '{key}'", where, fix)
        elif not fits(value, hints[key]):
            yield wrong_type(key, value, hints[key], where)


def wrong_values(top: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[UserError]:
    """Values out of range; ``given`` are those of the command line."""
    least = {"seeds": 1, "pretrain_steps": 1, "finetune_steps": 1, "batch": 2, "jobs": 1, "pretrain_seeds": 1}
    for name, smallest in least.items():
        if isinstance(top[name], int) and top[name] < smallest:
            yield UserError(f"{name} is {top[name]}", _said(name, given), f"give {smallest} or more")
    counts = top["n_labels"]
    usable = counts and all(n == "all" or (fits(n, int) and n >= 1) for n in counts)
    if not usable or len(set(counts)) < len(counts):
        yield UserError(f"n_labels is {counts}", _said("n_labels", given), "give different numbers above 0, or all")
    if isinstance(top["known"], tuple):
        for path in (folder / name for folder in top["known"] for name in (ROWS, PREDICTIONS)):
            if not path.is_file():
                fix = "name folders with the results.jsonl and predictions.parquet of a study"
                yield UserError("no such file", path, fix)
    if isinstance(top["margin"], (int, float)) and not 0 <= top["margin"] < math.inf:
        yield UserError(f"margin is {top['margin']}", _said("margin", given), "give 0 or more")


def _said(name: str, given: Mapping[str, Any]) -> str:
    return f"--{name.replace('_', '-')}" if name in given else "recipe"
