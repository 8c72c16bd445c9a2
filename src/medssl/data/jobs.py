"""Independent jobs over many scans: on processes here, or on a Dask cluster. No job can stop the others."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from medssl.errors import UserError

Outcome = tuple[int, Any]  # which job, and its result or the exception it raised
LOST = UserError("a worker of the cluster was lost each time it was tried", fix="see the log of the Dask worker")
CRASHED = UserError("reading it kills the process", fix="leave the file out, or give the machine more memory")


def each(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    *,
    workers: int = 0,
    cluster: str | None = None,
    apart: bool = False,
) -> Iterator[Outcome]:
    """Yield (position, result or exception) as jobs finish. ``workers`` 0 takes one a core; 1 stays in this process.

    ``apart``: in processes of their own also where one would do.
    A job that takes its process down (a crash in a C library, the memory killer) is found out and named.
    """
    workers = min(workers or cores(), len(jobs))
    if cluster is not None:
        yield from _on_cluster(function, jobs, cluster)
    elif workers <= 1 and not apart:
        single_threaded()
        for position, job in enumerate(jobs):
            yield position, _attempt(function, job)
    else:
        yield from _on_processes(function, jobs, workers)


def cores(share: int = 1) -> int:
    """Cores that this process may use, where ``share`` processes share the machine."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, own // share)


def single_threaded() -> None:
    """One thread a process: the jobs are the parallelism."""
    import blosc2
    import SimpleITK as sitk

    blosc2.set_nthreads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _on_processes(function: Callable[[Any], Any], jobs: Sequence[Any], workers: int) -> Iterator[Outcome]:
    todo = deque(range(len(jobs)))
    while todo:
        with _pool(workers) as pool:
            suspects = yield from _drained(pool, function, jobs, todo, 2 * workers)
        alone = deque(suspects)
        while alone:  # one of them broke the pool: one after another they tell which
            with _pool(1) as pool:
                lost = yield from _drained(pool, function, jobs, alone, 1)
            yield from ((position, CRASHED) for position in lost)


def _on_cluster(function: Callable[[Any], Any], jobs: Sequence[Any], address: str) -> Iterator[Outcome]:
    """Dask gives the jobs of a worker that dies to another one; a job that four workers die of is given up."""
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise UserError("--cluster needs Dask", fix="pip install 'medssl[cluster]'") from None
    try:
        client = Client(address, timeout=30)
    except (OSError, ValueError) as error:
        raise UserError(f"no Dask scheduler answers: {error}", address, "start one, or leave --cluster out") from None
    alone = partial(_single_threaded, function)
    with client, client.get_executor(pure=False) as pool:
        window = 4 * max(1, sum(client.ncores().values()))
        for position, outcome in _drained(pool, alone, jobs, deque(range(len(jobs))), window):
            yield position, LOST if isinstance(outcome, KilledWorker) else outcome


def _single_threaded(function: Callable[[Any], Any], job: Any) -> Any:
    single_threaded()  # in whatever process: a worker may have come, or come back, at any time
    return function(job)


def _drained(
    pool: Executor, function: Callable[[Any], Any], jobs: Sequence[Any], todo: deque[int], window: int
) -> Generator[Outcome, None, list[int]]:
    """Yield outcomes until ``todo`` is empty or the pool breaks; return the positions it broke on."""
    pending: dict[Future, int] = {}
    lost: list[int] = []
    try:
        while pending or (todo and not lost):
            while todo and not lost and len(pending) < window:
                try:
                    pending[pool.submit(_attempt, function, jobs[todo[0]])] = todo[0]
                except BrokenProcessPool:
                    break
                todo.popleft()
            if not pending:
                break
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                position = pending.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    lost.append(position)
                else:
                    yield position, future.exception() or future.result()
    finally:  # Ctrl-C: what has begun is finished, nothing else is begun
        for future in pending:
            future.cancel()
    return lost


def _attempt(function: Callable[[Any], Any], job: Any) -> Any:
    try:
        return function(job)
    except Exception as error:
        return error


def _pool(workers: int) -> ProcessPoolExecutor:
    # forkserver: a fork of this process would inherit the locks of polars' and blosc2's threads.
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)


def _begin() -> None:
    end_with_parent()
    single_threaded()


def end_with_parent() -> None:
    """Have this worker end with the process that it works for, also by kill -9, and leave Ctrl-C to that one.

    A thread waits for it: a closed queue tells nothing while another worker holds its other end, and what began the
    worker is the forkserver.
    """
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
