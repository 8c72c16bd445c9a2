"""How far a long job is: a bar with rate and time left on a terminal, else a plain line now and then. On stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PLAIN_EVERY_S = 30.0


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` things."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("{task.speed:.1f}/s"))
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total)
            bar.tasks[0].finished_speed = 0.0
            yield lambda: bar.advance(task)
        return
    began = told = time.monotonic()
    done = 0

    def step() -> None:
        nonlocal done, told
        done += 1
        now = time.monotonic()
        if now - told >= PLAIN_EVERY_S:
            told, rate = now, done / (now - began)
            left_s = (total - done) / rate
            print(f"{label}: {done} of {total}, {rate:.1f}/s, {left_s:.0f} s left", file=sys.stderr, flush=True)

    yield step
