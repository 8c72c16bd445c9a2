"""Prepared scans held in memory as they are stored, unpacked: a random crop is then a copy of its own bytes.

Loader processes share the one copy: it lies in shared memory. Or it lies on the device that trains, and crops are cut
there; then nothing but their places has to come from here, and there is nothing for loader processes to do.
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
    """The whole stored arrays (C, *spatial) of the scans ``rows``: in shared memory, or on a ``device``.

    ``resident[row]`` is the array in shared memory, ``on_device(row)`` the tensor; None for a row that is not held so.
    """

    def __init__(self, store: "Store", rows: Sequence[int], device: torch.device | None = None) -> None:
        self.dtype, self.channels, self.device = np.dtype(store.plan.dtype), store.plan.channels, device
        self.rows = np.unique(np.asarray(rows, np.int64))
        self.shapes = store.shapes[self.rows]
        sizes = self.shapes.astype(np.int64).prod(axis=1) * self.channels * self.dtype.itemsize
        self.ends = np.cumsum(sizes)
        buffer = torch.empty(int(sizes.sum()), dtype=torch.uint8, device=device)
        self.buffer = buffer.share_memory_() if device is None else buffer
        for row in self.rows.tolist():
            place = self._held(row)
            assert place is not None
            place.copy_(torch.from_numpy(np.require(store.read(row), requirements="W")))

    def __getitem__(self, row: int) -> np.ndarray | None:
        held = self._held(row) if self.device is None else None
        return None if held is None else held.numpy()

    def on_device(self, row: int) -> torch.Tensor | None:
        """The scan on the device."""
        return None if self.device is None else self._held(row)

    def _held(self, row: int) -> torch.Tensor | None:
        at = int(np.searchsorted(self.rows, row))
        if at == len(self.rows) or self.rows[at] != row:
            return None
        low, high = int(self.ends[at - 1]) if at else 0, int(self.ends[at])
        return (
            self.buffer[low:high].view(getattr(torch, self.dtype.name)).view(self.channels, *self.shapes[at].tolist())
        )


def room_bytes(device: torch.device | None = None) -> float:
    """Bytes that a cache may take: a share of what is free on the machine, in its container, and to be shared.

    On a GPU, a share of what is free there.
    """
    if device is not None and device.type == "cuda":
        return SHARE * torch.cuda.mem_get_info(device)[0]
    free = []
    with suppress(OSError, StopIteration, ValueError):
        line = next(line for line in INFO.read_text().splitlines() if line.startswith("MemAvailable"))
        free.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError):  # "max" where the container has no limit
        free.append(int((LIMIT / "memory.max").read_text()) - int((LIMIT / "memory.current").read_text()))
    with suppress(OSError):
        free.append(shutil.disk_usage(SHARED).free)
    return SHARE * min(free) if len(free) > 1 else 0.0
