"""What a run tells: metrics.jsonl for machines, a progress line for people, TensorBoard on request."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from medssl import files
from medssl.data.progress import rate
from medssl.engine.fit import Step
from medssl.errors import UserError

NAME = "metrics.jsonl"
PLAIN_EVERY_S = 30.0  # between lines where there is no terminal to redraw


class Metrics:
    """metrics.jsonl: one flat object a logged step. Opened at a checkpoint, it forgets what came after it."""

    def __init__(self, run: Path, step: int, tensorboard: bool = False) -> None:
        self.path = run / NAME
        kept = [row for row in read(run) if row["step"] <= step] if step else []
        files.write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self.board = _board(run, step) if tensorboard else None

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, at once."""
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        if self.board is not None:
            for name, value in row.items():
                if isinstance(value, (int, float)) and name != "step":
                    self.board.add_scalar(name, value, row["step"])
            self.board.flush()


def read(run: Path) -> list[dict[str, Any]]:
    """All rows; what follows a line that a killed process left half-written is dropped."""
    return files.read_rows(run / NAME)


class Log:
    """All that a run tells while it trains. ``silent``: a rank that neither writes nor speaks."""

    def __init__(
        self, run: Path, name: str, start: int, steps: int, *, tensorboard: bool = False, silent: bool = False
    ) -> None:
        self.metrics = Metrics(run, start, tensorboard) if not silent else None
        before = [row["elapsed_s"] for row in read(run) if "elapsed_s" in row] if self.metrics else []
        self.began = time.perf_counter() - (before[-1] if before else 0.0)
        self.line = Line(name, start, steps, silent)
        self.clock = Clock(steps)
        self.say = self.line.say

    def __enter__(self) -> Self:
        self.line.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.line.__exit__(*error)

    def count(self, step: Step) -> None:
        """Take note of a step's samples and waiting."""
        self.clock.add(step.samples, step.data_wait_s)

    def write(self, step: Step, extra: Mapping[str, float] | None = None) -> None:
        """A line of metrics.jsonl and the progress line; all ranks must call."""
        terms, rates = step.floats(), self.clock.lap(step.step)
        if self.metrics is not None:
            norms = {f"norm.{name}": value for name, value in step.norms.items()}
            parts = {"parts": step.parts} if step.parts > 1 else {}
            row = {"step": step.step, **terms, "lr": step.lr, **norms, **rates, **(extra or {}), **parts}
            row["elapsed_s"] = round(time.perf_counter() - self.began, 3)
            self.metrics.write({name: value for name, value in row.items() if name != "eta_s"})
        self.line.show(step.step, terms, rates)


class Clock:
    """Throughput, waiting and the time to go, over the steps since the last lap.

    The first step is left out: loader processes start in it, and kernels are chosen.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.warm = steps, False
        self.away_s = 0.0
        self.restart()

    def restart(self) -> None:
        """Begin a lap."""
        self.began = time.perf_counter()
        self.samples = self.done = 0
        self.waited_s = 0.0

    def add(self, samples: int, data_wait_s: float) -> None:
        """Count a step."""
        if not self.warm:
            self.warm = True
            return self.restart()
        self.samples += samples
        self.waited_s += data_wait_s
        self.done += 1
        return None

    def leave_out_next(self) -> None:
        """The next step is not counted: loader processes start in it."""
        self.warm = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Probes and checkpoints are not the loop's time."""
        paused = time.perf_counter()
        yield
        away_s = time.perf_counter() - paused
        self.began += away_s
        self.away_s += away_s

    def now_s(self) -> float:
        """An instant on a clock that stands still while paused."""
        return time.perf_counter() - self.away_s

    def lap(self, step: int) -> dict[str, float]:
        """samples_per_s, data_wait (share of the time) and eta_s; begins the next lap. Empty where no step counts."""
        if not self.done:
            return {}
        elapsed_s = max(time.perf_counter() - self.began, 1e-9)
        rates = {
            "samples_per_s": self.samples / elapsed_s,
            "data_wait": self.waited_s / elapsed_s,
            "eta_s": (self.steps - step) * elapsed_s / self.done,
        }
        self.restart()
        return rates


class Line:
    """The progress line, redrawn on a terminal; elsewhere a plain line now and then. Silent on ranks above 0."""

    def __init__(self, name: str, step: int, steps: int, silent: bool = False) -> None:
        self.name, self.steps, self.silent = name, steps, silent
        self.said = 0.0
        console = Console(stderr=True)
        name_column = TextColumn("{task.description}", table_column=Column(min_width=len(name), no_wrap=True))
        facts_column = TextColumn("{task.fields[facts]}", table_column=Column(ratio=1, no_wrap=False))
        columns = (name_column, BarColumn(bar_width=10), facts_column)
        self.bar = Progress(*columns, console=console, disable=silent or not console.is_terminal, expand=True)
        self.task = self.bar.add_task(name, total=steps, completed=step, facts="")

    def __enter__(self) -> "Line":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def show(self, step: int, terms: Mapping[str, float], rates: Mapping[str, float]) -> None:
        """Terms, samples a second, time to go, share of the time spent waiting for data."""
        facts = f"{step}/{self.steps}"
        if rates:
            eta, speed = clock(rates["eta_s"]), rate(rates["samples_per_s"], "sample")
            facts += f"  ETA {eta}  {speed}  data wait {rates['data_wait']:.0%}"
        facts += "".join(f"  {name} {value:.4g}" for name, value in terms.items())
        self.bar.update(self.task, completed=step, facts=facts)
        due = time.monotonic() - self.said > PLAIN_EVERY_S or step == self.steps
        if self.bar.disable and not self.silent and due:
            self.said = time.monotonic()
            print(f"{self.name}  {facts}", file=sys.stderr, flush=True)

    def say(self, sentence: str) -> None:
        """A sentence of its own, above the bar."""
        if self.silent:
            return
        if self.bar.disable:
            print(sentence, file=sys.stderr, flush=True)
        else:
            self.bar.console.print(sentence, soft_wrap=True, markup=False, highlight=False)


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"


def _board(run: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        fix = "pip install 'medssl[tensorboard]'"
        raise UserError("TensorBoard is not installed", "--tensorboard", fix) from None
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
