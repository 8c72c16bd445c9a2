"""Two gloo processes on this machine, as two ranks of one training: the one way in which tests start them."""

import multiprocessing
import os
import pickle
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from medssl.engine.machine import Machine
from medssl.engine.ranks import launched


def two_ranks(work: Callable[..., Any], *args: Any) -> dict[int, Any]:
    """What ``work(rank, *args)`` returns on each rank; a function of a module, so that the processes find it."""
    with tempfile.TemporaryDirectory() as folder:
        ranks = started(_kept, work, args, Path(folder))
        while not ranks.join():
            pass
        return {rank: pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(2)}


def started(work: Callable[..., Any], *args: Any) -> mp.ProcessContext:
    """Two processes that call ``work(rank, *args)`` as torchrun would have it; their group is work's to make."""
    multiprocessing.set_forkserver_preload(["medssl.engine.ranks"])  # torch is imported once, not once a rank
    todo = (free_port(), work, args)
    return mp.start_processes(_begin, todo, nprocs=2, join=False, start_method="forkserver")


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def as_torchrun(rank: int, port: int, world: int = 2) -> dict[str, str]:
    """The environment that torchrun gives a rank, without the time that torchrun takes."""
    return {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0",
        "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def _begin(rank: int, port: int, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ |= as_torchrun(rank, port)
    torch.set_num_threads(1)
    work(rank, *args)


def _kept(rank: int, work: Callable[..., Any], args: tuple[Any, ...], folder: Path) -> None:
    with launched(Machine("cpu", "32", 1)):
        (folder / str(rank)).write_bytes(pickle.dumps(work(rank, *args)))
