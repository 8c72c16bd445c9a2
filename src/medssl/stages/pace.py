"""The steps of a pre-training: fed as the first ones show is best, in parts where memory is short."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch

from medssl.data.feed import STALL, Feed, Pace
from medssl.data.jobs import cores
from medssl.distributed import world_size
from medssl.engine import machine, memory
from medssl.engine.fit import Step, fit
from medssl.engine.log import Log, clock
from medssl.engine.optim import warmup_cosine
from medssl.engine.parts import Parts
from medssl.engine.stop import Stop
from medssl.errors import UserError
from medssl.stages.configure import optim_of
from medssl.stages.paired import check_batch

if TYPE_CHECKING:
    from medssl.stages.pretrain import Job

UNMEASURED = 2  # loader processes where nobody said and nothing is measured
WRONG = 1.5  # ratio of the pace that came to the pace that was said, either way, from which the estimate is corrected
PROOF_STEPS, PROOF_S = 20, 10.0  # that must have passed before it is


class Promise:
    """What was said of a step's time, held against the clock: it is corrected once, if it was wrong."""

    def __init__(self, steps: int, now_s: Callable[[], float]) -> None:
        self.steps, self.now_s, self.step_s = steps, now_s, 0.0

    def make(self, step_s: float, at: int) -> None:
        """Say from step ``at`` on that a step takes ``step_s``."""
        self.step_s, self.at, self.began_s = step_s, at, self.now_s()

    def kept(self, step: int) -> str:
        """ "" after ``step`` steps, or the sentence that corrects what was said: the only one."""
        done, passed_s = (step - self.at, self.now_s() - self.began_s) if self.step_s else (0, 0.0)
        if done < PROOF_STEPS or passed_s < PROOF_S or step >= self.steps:
            return ""
        said_s, found_s = self.step_s, passed_s / done
        if 1 / WRONG <= found_s / said_s <= WRONG:
            return ""
        self.step_s = 0.0
        return (
            f"preflight: a step takes {found_s:.3g} s, not {said_s:.3g} s as first measured: "
            f"the {self.steps - step} steps that are left take about {clock((self.steps - step) * found_s)}"
        )


def steps_of(job: "Job", stop: Stop, diary: Log) -> Iterator[Step]:
    """``fit``; memory that runs out makes parts, or advice; loader processes that Ctrl-C ended make a stop."""
    options, optim = job.options, optim_of(job.options)
    parts = Parts(job.method, options.loop.batch // world_size(), job.parts, diary.say)
    schedule = partial(warmup_cosine, peak=optim.lr, warmup=optim.warmup)
    promise = Promise(options.steps, diary.clock.now_s)
    steps = fit(
        job.method, iter(_feed(job, diary, promise)), job.optimizer, job.fabric,
        steps=options.steps, start=job.start, seed=options.model.seed, lr=schedule, clip=optim.clip,
        log_every=options.loop.log_every, parts=parts,
    )  # fmt: skip
    try:
        for step in memory.advised(steps, partial(advice, job, parts)):
            job.parts = parts.count
            if sentence := promise.kept(step.step):
                diary.say(sentence)
            yield step
    except RuntimeError as error:
        if not (stop.requested and "DataLoader worker" in str(error)):
            raise


def advice(job: "Job", parts: Parts) -> UserError:
    """What to say when memory runs out and parts can be no smaller."""
    options, config, ranks = job.options, job.method.config, world_size()
    if ranks > 1 and not parts.obstacle:  # they cannot agree on parts in mid-step
        fix = "add --accumulate 2: a step then takes the batch in parts, for the same gradient"
        return UserError(f"out of memory with {parts.batch} samples a rank", "--batch", fix)
    least = -(-check_batch(job.method, job.store, job.rows, options.loop.batch, options.sync_norm) // ranks)
    shape = config.channels, parts.batch, config.size
    return memory.advice(job.method, job.fabric, *shape, least=least, ranks=ranks, whole=parts.obstacle)


def _feed(job: "Job", diary: Log, promise: Promise) -> Feed:
    options, loop = job.options, job.options.loop
    measured = options.preflight and loop.workers is None
    unmeasured = 0 if options.cache == "device" else UNMEASURED

    def settled(feed: Feed) -> None:
        diary.clock.leave_out_next()
        if measured and feed.pace is not None:
            for sentence in told(feed, feed.pace, options.steps - feed.at, job.fabric.device, loop.precision):
                diary.say(sentence)
            promise.make(seconds(feed.pace, feed.workers or 0), feed.at)

    return Feed(
        job.batches, job.start, options.steps, job.store, job.rows,
        workers=loop.workers if options.preflight or loop.workers is not None else unmeasured,
        cache=options.cache, device=job.fabric.device, share=world_size(), tell=settled,
        wait=partial(finished, job.fabric.device),
    )  # fmt: skip


def finished(device: torch.device) -> None:
    """Return once an accelerator has done the work it was given; a CPU always has."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def told(feed: Feed, pace: Pace, steps: int, device: torch.device, precision: str) -> list[str]:
    """Two sentences: what a step costs and how it is fed; how long the rest takes, what bounds it, what would help."""
    workers = feed.workers or 0
    processes = f"{workers} loader process{'' if workers == 1 else 'es'}" if workers else "no loader processes"
    peak = memory.peak_bytes(device) / 2**30
    cache = f"scans {'in memory' if feed.device is None else f'on {feed.device}'}" if feed.held else "no cache"
    return [
        f"preflight: {pace.step_s:.3g} s a step and {pace.load_s:.2g} s to load its batch: {processes}, "
        f"{cache}; {peak:.1f} GiB at most so far",
        f"preflight: {steps} steps take about {clock(steps * seconds(pace, workers))}; {bound(pace, workers)} is what "
        f"limits it; {'; '.join(remedies(pace, workers, device, precision))} would help",
    ]


def seconds(pace: Pace, workers: int) -> float:
    """Seconds a step with so many loader processes."""
    return max(pace.step_s, pace.load_s / workers) if workers else pace.step_s + pace.load_s


def bound(pace: Pace, workers: int) -> str:
    """``data`` where steps wait for more than a fiftieth of their time, else ``compute``."""
    return "data" if seconds(pace, workers) * (1 - STALL) > pace.step_s else "compute"


def remedies(pace: Pace, workers: int, device: torch.device, precision: str) -> list[str]:
    """What would make steps faster on this machine, the cheapest first."""
    if bound(pace, workers) == "data":
        return ["more cores for loader processes, or a faster disk"]
    found = []
    if precision == "32" and machine.fast_bf16(device.type):
        found.append("--precision bf16")
    if device.type == "cpu":
        idle = cores(world_size())
        found += [f"--threads {idle}"] if torch.get_num_threads() < idle else []
        found.append("a GPU")
    return [*found, "a smaller --patch or --width"]
