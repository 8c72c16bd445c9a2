"""The numbers a person can give, and what they may be: a wrong one is told before anything is read or written."""

import math
from dataclasses import fields
from typing import Any

from medssl.errors import UserError

INF = math.inf
LIMITS = {
    "batch": (1, INF),
    "clip": (0, INF),
    "encoder_lr": (0, INF),
    "foreground": (0, 1),
    "log_every": (1, INF),
    "lr": (0, INF),
    "n_labels": (1, INF),
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


def out_of_range(*options: Any) -> list[UserError]:
    """What is wrong with the numbers in these groups of options; NaN and infinities are never right."""
    given = {f.name: getattr(group, f.name) for group in options for f in fields(group)}
    found = []
    for name, value in given.items():
        low, high = LIMITS.get(name, (-INF, INF))
        if isinstance(value, (int, float)) and not (low <= value <= high and math.isfinite(value)):
            fix = f"give {low} to {high}" if high < INF else f"give {low} or more"
            found.append(UserError(f"--{name.replace('_', '-')} is {value}", fix=fix))
    return found
