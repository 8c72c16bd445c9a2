"""How batches are fed where nobody said: the first ones are made in this process and timed, then it is decided.

Cache and loader processes change nothing that is drawn (see ``sample``), so the decision may differ from run to run.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from medssl.contract import Batch
from medssl.data.jobs import cores
from medssl.data.resident import Resident, room_bytes
from medssl.data.store import Store
from medssl.errors import UserError

WARM = 2  # batches before the clock counts: files are opened, kernels chosen
TIMED = 3
PATIENCE_S = 20.0  # of timing, where steps are slow
STALL = 0.02  # share of the time that may be spent waiting for data
START_S = 5.0  # what loader processes cost to start
MOST = 8  # loader processes
READ_BYTES_PER_S = 5e8  # of whole prepared scans, unpacked: a cautious guess


@dataclass(frozen=True)
class Pace:
    """Seconds to make a batch in this process, and seconds that the caller takes for one."""

    load_s: float
    step_s: float

    @property
    def stall(self) -> float:
        """Share of the time spent waiting, without loader processes."""
        return self.load_s / max(self.load_s + self.step_s, 1e-9)


class Feed:
    """Iterates over ``batches(start, workers)`` up to ``steps``; after the first few maybe with a cache, or workers.

    ``workers`` and ``cache`` (auto, on, off, device) are what a person chose; None and auto are left to the clock.
    ``device`` is where ``cache`` may say that crops are cut. ``tell`` is called once, with the feed, when it has
    settled. ``wait`` returns when the device has done what it was given.
    """

    def __init__(
        self,
        batches: Callable[[int, int], Iterator[Batch]],
        start: int,
        steps: int,
        store: Store,
        rows: Any,
        *,
        workers: int | None = None,
        cache: str = "auto",
        device: torch.device | None = None,
        share: int = 1,
        tell: Callable[["Feed"], object] = lambda feed: None,
        wait: Callable[[], object] = lambda: None,
    ) -> None:
        self.batches, self.at, self.steps, self.store, self.rows = batches, start, steps, store, rows
        self.workers, self.cache, self.share, self.tell, self.wait = workers, cache, share, tell, wait
        self.device = (device or torch.device("cpu")) if cache == "device" else None
        self.pace: Pace | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self.cache in ("on", "device"):
            self._hold()
        if self.workers is None:
            yield from self._timed()
            if self._cache_pays():
                self._hold()
                yield from self._timed()
            if self.pace is None or self.device is not None:  # loader processes cannot share what lies on a device
                self.workers = 0
            else:
                self.workers = workers_for(self.pace, self.steps - self.at, cores(self.share))
        source = self.batches(self.at, self.workers)
        first = next(source, None)  # loader processes have started once it is here
        self.tell(self)
        if first is not None:
            yield first
        yield from source

    @property
    def held(self) -> bool:
        """Whether the scans lie in memory."""
        return self.store.resident is not None

    def _timed(self) -> Iterator[Batch]:
        """A few batches made in this process; sets ``pace``."""
        loads: list[float] = []
        steps: list[float] = []
        began = time.perf_counter()
        source = self.batches(self.at, 0)
        for k in range(min(WARM + TIMED, self.steps - self.at)):
            asked = time.perf_counter()
            batch = next(source)
            made = time.perf_counter()
            self.at += 1
            yield batch
            self.wait()
            if k >= WARM:
                loads.append(made - asked)
                steps.append(time.perf_counter() - made)
                self.pace = Pace(median(loads), median(steps))
                if time.perf_counter() - began > PATIENCE_S:
                    return

    def _cache_pays(self) -> bool:
        """Whether data are waited for, the scans fit in memory, and the rest of the run reads more than them all."""
        if self.cache != "auto" or self.pace is None or self.pace.stall <= STALL or self.held:
            return False
        size = self.store.bytes(self.rows)
        gain_s = (self.steps - self.at) * self.pace.load_s
        return size <= room_bytes() / self.share and gain_s > START_S + 2 * size / READ_BYTES_PER_S

    def _hold(self) -> None:
        alone = self.device is not None and self.device.type != "cpu"  # each rank has a device of its own
        size, room = self.store.bytes(self.rows), room_bytes(self.device) / (1 if alone else self.share)
        if size > room:
            where = "on the device" if alone else "in memory"
            what = f"the scans take {size / 2**30:.1f} GiB {where}, and {room / 2**30:.1f} GiB may be used"
            raise UserError(what, "--cache", "leave it out: crops are then read from the prepared files")
        self.store.resident = Resident(self.store, self.rows, self.device)


def workers_for(pace: Pace, steps_left: int, cores: int) -> int:
    """Loader processes: enough to hide loading behind the step, none where that is not worth their start."""
    if pace.stall <= STALL or cores < 2 or steps_left * pace.load_s < 3 * START_S:
        return 0
    wanted = math.ceil(1.5 * pace.load_s / max(pace.step_s, 1e-9))
    return max(1, min(wanted, cores - 1, MOST))
