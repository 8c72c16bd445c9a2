"""Two gloo processes on this machine, as two ranks of one training."""

import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp


def two_ranks(work: Callable[[int], Any]) -> dict[int, Any]:
    """What ``work(rank)`` returns on each rank; a function of a module, so that the processes find it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_rank, args=(port, work, results), nprocs=2)
        return dict(results)


def _rank(rank: int, port: int, work: Callable[[int], Any], results: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    results[rank] = work(rank)
    torch.distributed.destroy_process_group()
