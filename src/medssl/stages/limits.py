"""The numbers a person can give, and what they may be: a wrong one is told before anything is read or written."""

import math
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from medssl.errors import UserError

INF = math.inf
MOST_TIMES = 8  # sides of a patch to sides of the median scan: images of 28 pixels may be trained on at 224
LIMITS = {
    "accumulate": (1, 65536),
    "batch": (1, 65536),  # more is a slip of the finger, and would be drawn sample by sample
    "betas": (0, 0.99999),  # at 1 nothing new would ever be learnt from
    "clip": (0, INF),
    "encoder_lr": (0, INF),
    "foreground": (0, 1),
    "head_first": (0, 1),
    "hours": (0.01, 10000),
    "log_every": (1, INF),
    "lr": (0, INF),
    "misregister_mm": (0, 100),
    "modality_dropout": (0, 0.99),
    "missing": (0, 1),
    "n_labels": (1, INF),
    "patience": (1, INF),
    "probe_every": (0, INF),
    "rows": (1, 64),
    "save_every_minutes": (0, INF),
    "save_every_steps": (0, INF),
    "steps": (1, INF),
    "threads": (0, INF),
    "validate_every": (1, INF),
    "warmup": (0, 1),
    "weight_decay": (0, INF),
    "workers": (0, INF),
}


def out_of_range(*options: Any, open_to: Collection[str] = ()) -> list[UserError]:
    """What is wrong with the numbers in these groups of options; NaN and infinities are never right.

    0 is right for the names in ``open_to``: whoever gives it leaves the choice to us.
    """
    given = {f.name: getattr(group, f.name) for group in options for f in fields(group)}
    found = []
    for name, value in given.items():
        low, high = LIMITS.get(name, (-INF, INF))
        low = 0 if name in open_to else low
        numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, (int, float))]
        if not all(low <= v <= high and math.isfinite(v) for v in numbers):
            fix = f"give {low} to {high}" if high < INF else f"give {low} or more"
            found.append(UserError(f"--{name.replace('_', '-')} is {value}", fix=fix))
    return found


def check_size(patch: Sequence[int], shapes: np.ndarray) -> None:
    """Refuse a patch far beyond the scans, whose prepared ``shapes`` are (n, dims): it would be memory for nothing."""
    median = np.median(shapes, axis=0)
    if len(patch) == len(median) and any(side > MOST_TIMES * n for side, n in zip(patch, median, strict=True)):
        asked, there = ("×".join(f"{n:g}" for n in sides) for sides in (patch, median))
        what = f"--patch {asked} is more than {MOST_TIMES} times the median scan, {there}"
        raise UserError(what, fix=f"give {' '.join(f'{math.ceil(n)}' for n in median)} or less")
