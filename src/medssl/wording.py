"""Numbers and lists as sentences and tables write them, the same in the terminal, the verdict and the report."""

import math
from collections.abc import Callable, Sequence


def signed(x: float | None) -> str:
    """A difference, `+0.012`; what rounds to nothing has no sign. None and infinities are unknown."""
    if x is None or not math.isfinite(x):
        return "unknown"
    text = f"{x:+.3f}"
    return text.replace("-", "−") if float(text) else "0.000"


def score(x: float | None) -> str:
    """A score, `0.812`; None and infinities are unknown."""
    return signed(x).removeprefix("+")


def span(interval: Sequence[float | None], write: Callable[[float | None], str] = score) -> str:
    """Both ends of an interval."""
    return " to ".join(map(write, interval))


def probability(p: float) -> str:
    """`p = 0.031`, no more exact than a bootstrap is."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def counted(n: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(words: Sequence[object]) -> str:
    """`a, b and c`."""
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last


def rounded_up(x: float) -> int:
    """Two digits: an estimate of a sample size deserves no more."""
    digits = max(0, len(str(int(x))) - 2)
    return int(math.ceil(x / 10**digits) * 10**digits)
