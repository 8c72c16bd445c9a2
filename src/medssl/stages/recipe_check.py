"""What is wrong with the top of a recipe or with the options of `medssl study`."""

import difflib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from medssl.errors import UserError, raise_all
from medssl.files import read_toml
from medssl.report.ledger import PREDICTIONS, ROWS
from medssl.stages.options.study import Study
from medssl.value_types import fits, wrong_type


def read(where: Path) -> dict[str, Any]:
    """The recipe as it is written."""
    try:
        return read_toml(where)
    except UserError:
        raise_all(_arms_like_options(where))
        raise


def _arms_like_options(where: Path) -> Iterator[UserError]:
    """Arms whose table clashes with a key of [pretrain]; TOML's own sentence says neither which nor what to do."""
    text = where.read_text(encoding="utf-8", errors="replace") if where.is_file() else ""
    for arm in re.findall(r"^\s*\[pretrain\.([\w-]+)\]", text, re.MULTILINE):
        if re.search(rf"^\s*{arm}\s*=", text, re.MULTILINE):
            fix = "an arm cannot bear the name of an option: give it another, and say method = … in its table"
            yield UserError(f"[pretrain.{arm}] and the key '{arm}' of [pretrain] are one name", where, fix)


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
