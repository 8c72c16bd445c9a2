"""Row 11. Views made on the device, of regions that processes send, beside the same views made by the processes.

By the clock, each arm in blocks of steps; what the processes had made ahead is used up before a block counts.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils.data import Dataset

from benchmarks.case import Case, moved
from benchmarks.measure import Metric, of_ratios
from benchmarks.served import BLOCKS, MOST_WORKERS, STEPS, block_seconds, served
from benchmarks.step import cases
from medssl.batch import Batch, Views
from medssl.data.jobs import cores
from medssl.engine.machine import fast_bf16
from medssl.rng import Rng


def metrics(pairs: int, quick: bool, device: str = "cpu") -> Iterator[Metric]:
    """2D and 3D, as a run would have it; the ratio, and the samples a second of both."""
    workers = 0 if quick else min(MOST_WORKERS, max(1, cores() - 1))  # where all is quick this process makes them
    blocks, steps = (1, 2) if quick else (BLOCKS, STEPS)
    for name, arguments in cases(quick, device).items():
        case = Case(*arguments, device=device, precision="bf16" if fast_bf16(device) else "float32")
        arms = {"on the device": _on_device, f"by {workers} processes": _by_processes}
        loaders = [served(Made(arguments, views), workers) for views in (False, True)]
        runs = [partial(_next, arm, case, loader) for arm, loader in zip(arms.values(), loaders, strict=True)]
        spent = [[block_seconds(run, steps, workers, device) for run in runs] for _ in range(blocks)]
        ratios = [theirs / ours for ours, theirs in spent]
        told = f"{blocks} blocks of {steps} steps"
        yield of_ratios(11, f"samples a second, views on the device ÷ by processes, {name}", ">= 1", ratios, told)
        for arm, times in zip(arms, zip(*spent, strict=True), strict=True):
            rate = arguments[1] * steps * blocks / sum(times)
            yield Metric(row=11, name=f"samples a second, views {arm}, {name}", value=rate)


class Made(Dataset):
    """``made[step]``: a batch of regions as a run's processes send it, int16, or the views of it."""

    def __init__(self, arguments: tuple, views: bool) -> None:
        self.arguments, self.views = arguments, views
        self.case: Case | None = None  # made by the process that needs it

    def __getitem__(self, step: int) -> Batch | Views:
        if self.case is None:
            dims, batch, _, size = self.arguments
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # the same images, whoever makes the views
                self.case = Case(dims, batch, 4, size)  # the width is nothing to the views
            image, gain = (self.case.batch.image * 32767).to(torch.int16), torch.full((batch,), 1 / 32767)
            self.case.batch = replace(self.case.batch, image=image, gain=gain)
        return self.case.model.views(self.case.batch, Rng(0, step)) if self.views else self.case.batch


def _next(arm: Callable[[Case, Any], None], case: Case, loader: Iterator[Any]) -> None:
    arm(case, next(loader))


def _on_device(case: Case, batch: Batch) -> None:
    case.batch = batch.to(torch.device(case.device))
    case.step()


def _by_processes(case: Case, views: Views) -> None:
    case.views = moved(views, case.device)
    case.branchwise()
    case.update()
