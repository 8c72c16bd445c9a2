"""Prepared scans held in memory as they are stored, unpacked: a random crop is then a copy of its own bytes.

Loader processes share the one copy: it lies in shared memory.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from medssl.data.store import Store

SHARE = 0.5  # of the memory that is free now, which a cache may take
SHARED = Path("/dev/shm")
INFO = Path("/proc/meminfo")
LIMIT = Path("/sys/fs/cgroup")


class Resident:
    """``resident[row]`` is the whole stored array (C, *spatial) of a scan, or None for a row that is not held."""

    def __init__(self, store: "Store", rows: Sequence[int]) -> None:
        self.dtype, self.channels = np.dtype(store.plan.dtype), store.plan.channels
        self.rows = np.unique(np.asarray(rows, np.int64))
        self.shapes = store.shapes[self.rows]
        sizes = self.shapes.astype(np.int64).prod(axis=1) * self.channels * self.dtype.itemsize
        self.ends = np.cumsum(sizes)
        self.buffer = torch.empty(int(sizes.sum()), dtype=torch.uint8).share_memory_()
        for row in self.rows.tolist():
            place = self[row]
            assert place is not None
            place[...] = store.read(row)

    def __getitem__(self, row: int) -> np.ndarray | None:
        at = int(np.searchsorted(self.rows, row))
        if at == len(self.rows) or self.rows[at] != row:
            return None
        low, high = int(self.ends[at - 1]) if at else 0, int(self.ends[at])
        return self.buffer.numpy()[low:high].view(self.dtype).reshape(self.channels, *self.shapes[at])


def room_bytes() -> float:
    """Bytes that a cache may take: a share of what is free on the machine, in its container, and to be shared."""
    free = []
    with suppress(OSError, StopIteration, ValueError):
        line = next(line for line in INFO.read_text().splitlines() if line.startswith("MemAvailable"))
        free.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError):  # "max" where the container has no limit
        free.append(int((LIMIT / "memory.max").read_text()) - int((LIMIT / "memory.current").read_text()))
    with suppress(OSError):
        free.append(shutil.disk_usage(SHARED).free)
    return SHARE * min(free) if len(free) > 1 else 0.0
