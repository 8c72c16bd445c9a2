"""medssl preflight: what a pre-training costs here, measured in two minutes at most, and what would make it cheaper."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

import torch

from medssl.data.feed import STALL, TIMED, WARM, Pace, workers_for
from medssl.data.jobs import cores
from medssl.data.resident import Resident, room_bytes
from medssl.data.store import Store
from medssl.distributed import world_size
from medssl.engine import machine, memory
from medssl.engine.fit import fit
from medssl.engine.log import clock
from medssl.engine.parts import Parts
from medssl.errors import UserError
from medssl.stages import pretrain
from medssl.stages.configure import method_config, optim_of
from medssl.stages.defaults import settled
from medssl.stages.options.train import Preflight
from medssl.stages.pace import advice, bound, finished, remedies, seconds

BUDGET_S = 100.0  # for all measurements; one that has begun is finished
BLOCK, BLOCKS = 2, 5  # steps of a block, and blocks of a measurement: their median counts
STEPS = WARM + BLOCK * BLOCKS  # of a measurement
UNSTEADY = 1.5  # slowest block ÷ quickest from which the machine is busy with other work
PATIENCE_S = 20.0  # for one, where steps are slow; then two steps are enough
SLOW_S = 50.0  # and beyond this one
MOST_HELD = 4 * 2**30  # bytes; a larger set is not put in memory for the sake of a measurement
GAIN = 1.1  # ratio from which on another batch is worth a word


@dataclass(frozen=True)
class Way:
    """One way to run and what it costs.

    ``spread``: the slowest block of steps ÷ the quickest. ``parts``: in how many a batch went for want of memory.
    ``held_s``: to make a batch of scans in memory, if they fit.
    """

    name: str
    options: Preflight
    size: tuple[int, ...]
    pace: Pace
    spread: float
    parts: int
    peak_bytes: int
    held_s: float | None
    precision: str

    @property
    def workers(self) -> int:
        """Loader processes: a person's choice, or what suits a long run at this pace."""
        given = self.options.loop.workers
        return workers_for(self.pace, 10**6, cores()) if given is None else given

    @property
    def step_s(self) -> float:
        """Seconds a step, waiting included."""
        return seconds(self.pace, self.workers)

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.options.loop.batch / self.step_s


def run(options: Preflight, settings: Mapping[str, Any] | None = None) -> list[Way]:
    """Measure, print a short table and advice; returns the ways that were measured, the recommended one first."""
    if world_size() > 1:
        raise UserError("preflight runs in one process", fix="start it without torchrun")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        options = replace(options, out=Path(folder) / "run")
        pretrain.check(options, settings)
        store = Store(options.data)
        chosen = machine.choose(options.loop.device, options.loop.precision, options.loop.threads)
        rows = pretrain.training_rows(store, options.transductive)
        options = cast(Preflight, settled(options, store, rows)[0])
        first = _measure(f"precision {chosen.precision}", options, settings, store, hold=True)
        ways = [first]
        for name, other in _others(first, chosen):
            step_s = first.step_s * other.loop.batch / options.loop.batch
            ahead_s = max(2 * step_s, min(STEPS * step_s, PATIENCE_S))
            if time.perf_counter() - began + 2 * ahead_s < BUDGET_S:  # twice: a network is built too
                with suppress(UserError):  # otherwise it need not be possible, or fit into memory
                    ways.append(_measure(name, other, settings, store))
        best = min((way for way in ways if way.options.loop.batch == options.loop.batch and way.size == first.size),
               key=lambda way: way.step_s)  # fmt: skip
    ways = [best, *(way for way in ways if way is not best)]
    print("\n".join([*_table(ways, options.hours), "", *_advice(ways, first, options)]))
    return ways


def _others(first: Way, chosen: machine.Machine) -> Iterator[tuple[str, Preflight]]:
    """The options with another precision, where it was left open; with twice the batch; with half the patch."""
    options = first.options
    loop, model = options.loop, options.model
    if loop.precision == "auto" and machine.fast_bf16(chosen.device):
        precision: Any = "32" if chosen.precision == "bf16" else "bf16"
        yield f"precision {precision}", replace(options, loop=replace(loop, precision=precision))
    yield f"batch {2 * loop.batch}", replace(options, loop=replace(loop, batch=2 * loop.batch))
    half = tuple(side // 2 for side in first.size)
    yield f"patch {_sides(half)}", replace(options, model=replace(model, patch=half))


def _measure(
    name: str, options: Preflight, settings: Mapping[str, Any] | None, store: Store, hold: bool = False
) -> Way:
    """A few steps of a training that is thrown away; with ``hold`` also batches of scans that lie in memory."""
    loop = options.loop
    options = replace(options, steps=max(options.steps, STEPS))
    hardware = machine.choose(loop.device, loop.precision, loop.threads)
    fabric = machine.make_fabric(hardware, loop.deterministic)
    if fabric.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(fabric.device)
    rows = pretrain.training_rows(store, options.transductive)
    kind, config, reader = method_config(options, settings, store, rows)
    job = pretrain.make_job(options, kind(config), store, rows, fabric, reader)
    parts = Parts(job.method, loop.batch, job.parts, print)
    pace, spread = measured(_times(job, parts))
    peak, held_s = memory.peak_bytes(fabric.device), _held_s(job) if hold else None
    return Way(name, options, tuple(config.size), pace, spread, parts.count, peak, held_s, hardware.precision)


def _times(job: pretrain.Job, parts: Parts) -> list[tuple[float, float]]:
    """Seconds to load and to take each step, after those that warm up."""
    times, began = [], time.perf_counter()
    before, lr = began, optim_of(job.options).lr
    steps = fit(
        job.method, job.batches(0, workers=0), job.optimizer, job.fabric,
        steps=STEPS, lr=lambda progress: lr, parts=parts, log_every=STEPS,
    )  # fmt: skip
    for step in memory.advised(steps, partial(advice, job, parts)):
        finished(job.fabric.device)
        now = time.perf_counter()
        times.append((step.data_wait_s, now - before - step.data_wait_s))
        before = now
        if now - began > (PATIENCE_S if len(times) > 1 else SLOW_S):
            break
    return times[WARM:] or times[-1:]


def measured(times: Sequence[tuple[float, float]]) -> tuple[Pace, float]:
    """The median over blocks of steps, and how many times as long as the quickest the slowest block took."""
    cut = range(0, max(len(times) - BLOCK + 1, 1), BLOCK)  # what is left of a block at the end is left out
    blocks = [tuple(map(mean, zip(*times[at : at + BLOCK], strict=True))) for at in cut]
    load, taken = (median(seconds) for seconds in zip(*blocks, strict=True))
    return Pace(load, taken), max(map(sum, blocks)) / max(min(map(sum, blocks)), 1e-9)


def _held_s(job: pretrain.Job) -> float | None:
    """Seconds to make a batch of scans that lie in memory; None where they do not fit, or are too many to try."""
    if job.store.bytes(job.rows) > min(MOST_HELD, room_bytes()):
        return None
    job.store.resident = Resident(job.store, job.rows)
    source, times = job.batches(0, workers=0), []
    for _ in range(TIMED):
        began = time.perf_counter()
        next(source)
        times.append(time.perf_counter() - began)
    job.store.resident = None
    return median(times)


def _sides(size: Sequence[int]) -> str:
    return "×".join(map(str, size))


def _table(ways: Sequence[Way], hours: float | None) -> list[str]:
    head = ["", "s a step", "samples/s", "s to load", "workers", *([f"steps in {hours:g} h"] if hours else [])]
    rows = [head]
    for way in ways:
        row = [way.name, f"{way.pace.step_s:.3g}", f"{way.rate:.3g}", f"{way.pace.load_s:.2g}", str(way.workers)]
        rows.append([*row, *([f"{_fitting(way, hours)}"] if hours else [])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(f"{cell:{'>' if i else '<'}{widths[i]}}" for i, cell in enumerate(row)) for row in rows]


def _fitting(way: Way, hours: float) -> int:
    return max(1, int(3600 * hours / way.step_s))


def _advice(ways: Sequence[Way], first: Way, options: Preflight) -> list[str]:
    """What the measurements say, a line each; the last is what to add to the command."""
    busy = ways[0].spread > UNSTEADY
    best, device = ways[0], torch.device(machine.choose(options.loop.device).device)
    told = [
        f"{options.steps} steps take about {clock(options.steps * best.step_s)}"
        + (f", or not: the machine is busy, blocks of steps took 1 to {best.spread:.1f} × as long" if busy else ""),
        f"memory: {first.peak_bytes / 2**30:.1f} GiB at most"
        + (f"; the batch had to go in {first.parts} parts" if first.parts > 1 else ""),
        f"limited by: {bound(best.pace, best.workers)}",
        f"would help: {'; '.join(remedies(best.pace, best.workers, device, best.precision))}",
    ]
    if first.held_s is not None and best.pace.stall > STALL:
        told.append(f"cache: {first.held_s:.2g} s to load a batch from memory, {best.pace.load_s:.2g} from the files")
    told += [f"{other}, which is another run, so yours to choose" for other in _other_runs(ways, best)]
    steps = _fitting(best, options.hours) if options.hours else options.steps
    parts = f" --accumulate {first.parts}" if first.parts > 1 else ""
    return [*told, f"add: --steps {steps} --precision {best.precision} --workers {best.workers}{parts}"]


def _other_runs(ways: Sequence[Way], best: Way) -> Iterator[str]:
    for way in ways:
        if way.options.loop.batch != best.options.loop.batch and way.parts == 1 and way.rate > GAIN * best.rate:
            yield f"--batch {way.options.loop.batch} sees {way.rate / best.rate:.1f} × as many samples a second"
        if way.size != best.size and way.step_s < best.step_s:
            sides = " ".join(map(str, way.size))
            yield f"--patch {sides} makes steps {best.step_s / way.step_s:.1f} × faster, on smaller pieces"
