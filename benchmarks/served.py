"""What a data set makes for each step, made here or by worker processes ahead of time."""

import itertools
import multiprocessing
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import WARM, Run, clock

MOST_WORKERS = 16
BLOCKS, STEPS = 3, 10  # where workers make ahead: single steps would be served from what they have made
AHEAD = 1  # batches that a worker makes before they are asked for


def served(dataset: Dataset, workers: int) -> Iterator[Any]:
    """``dataset[step]`` for step after step, without end."""
    if workers == 0:
        return map(dataset.__getitem__, itertools.count())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([type(dataset).__module__])  # imported once, not once a worker
    loader = DataLoader(
        dataset, batch_size=None, sampler=range(10**9), num_workers=workers, prefetch_factor=AHEAD,
        multiprocessing_context=context, worker_init_fn=_alone, pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    return iter(loader)


def block_seconds(run: Run, steps: int, workers: int, device: str) -> float:
    """By the clock, of ``steps`` calls, once all is warm and what the workers have made ahead is used up."""
    for _ in range(max(WARM, workers * AHEAD)):
        run()
    began = clock(device)
    for _ in range(steps):
        run()
    return clock(device) - began


def _alone(worker: int) -> None:
    torch.set_num_threads(1)
