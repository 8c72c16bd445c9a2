"""How far a long job is: a bar with rate and time left on a terminal, else a plain line now and then. On stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PLAIN_EVERY_S = 30.0


def rate(per_s: float, thing: str = "") -> str:
    """A speed in words: `12.3/s` or `12.3 samples/s`; below one a second `40 s each`, or `40 s a sample`."""
    if per_s >= 1:
        return f"{per_s:.1f}{f' {thing}s' if thing else ''}/s"
    each_s = 1 / per_s
    return f"{each_s:.{int(each_s < 10)}f} s {f'a {thing}' if thing else 'each'}"


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` things."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
        began = time.monotonic()
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total, speed="")

            def advance() -> None:
                done = bar.tasks[0].completed + 1
                bar.update(task, completed=done, speed=rate(done / max(time.monotonic() - began, 1e-9)))

            yield advance
        return
    began = told = time.monotonic()
    done = 0

    def step() -> None:
        nonlocal done, told
        done += 1
        now = time.monotonic()
        if now - told >= PLAIN_EVERY_S:
            told, speed = now, done / (now - began)
            left_s = (total - done) / speed
            print(f"{label}: {done} of {total}, {rate(speed)}, {left_s:.0f} s left", file=sys.stderr, flush=True)

    yield step
