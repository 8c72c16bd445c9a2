"""The processes of one run: they start together, and none waits for one that is gone."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch.distributed as dist
from lightning.fabric import Fabric

from medssl.engine.machine import Machine, make_fabric
from medssl.errors import UserError

EVERY_S = 5.0  # between beats
PATIENCE_S = 40.0  # of silence: then a process counts as dead, and the others end within a minute of its death
GRACE_S = 10.0  # for a process to find out by itself, and to tell it better, that another one has ended

LOST = "another process of this run has ended or does not answer"
FIX = "mend what it says, if it says anything, and give the same command again: the run goes on from its checkpoint"


@contextmanager
def launched(machine: Machine, deterministic: bool = False) -> Iterator[Fabric]:
    """A launched Fabric; at the end, and after an error, the ranks' ties are cut.

    A group left open at the interpreter's exit can take the process down, its threads being alive still.
    Raises UserError on the ranks that lose another one.
    """
    pulse = None
    try:
        fabric = make_fabric(machine, deterministic)
        pulse = Pulse() if fabric.world_size > 1 else None
        try:
            yield fabric
        except KeyboardInterrupt:  # all ranks have agreed to stop; rank 0 may still be saving
            _leave(pulse)
            raise
        _leave(pulse)
    except Exception as error:
        if pulse is not None:
            pulse.end(failed=True)
        if not _lost(error):
            raise
        raise UserError(LOST, fix=FIX) from None
    finally:
        if pulse is not None:
            pulse.end()
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def _leave(pulse: "Pulse | None") -> None:
    """Wait for the others: the first to go would seem dead to those that still work."""
    if pulse is not None:
        dist.barrier()
        pulse.end()


def _lost(error: Exception) -> bool:
    """True for what a collective raises where another rank has closed its end."""
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in str(error))


class Pulse:
    """Tells the others that this rank lives, and ends this process when another one no longer does.

    gloo sees a process that dies, but not a machine that stops, and NCCL waits for either until a time-out of many
    minutes. The beat is a thread's, so that a process which waits within a collective is still heard, and ends.
    """

    def __init__(self, every_s: float = EVERY_S, patience_s: float = PATIENCE_S, grace_s: float = GRACE_S) -> None:
        self.every_s, self.patience_s, self.grace_s = every_s, patience_s, grace_s
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        # A connection of its own: the group's may be held by a call that waits.
        self._store = dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
        self._ended = threading.Event()
        self._beat("0")
        dist.barrier()  # all have a first beat
        threading.Thread(target=self._watch, daemon=True).start()

    def end(self, failed: bool = False) -> None:
        """No more beats. ``failed`` ranks say so, and the others needn't be patient."""
        if failed and not self._ended.is_set():
            with suppress(RuntimeError):  # the store may be gone with its rank
                self._beat("failed")
        self._ended.set()

    def _beat(self, value: str) -> None:
        self._store.set(_key(self._rank), value)

    def _watch(self) -> None:
        others = [rank for rank in range(self._world) if rank != self._rank]
        heard = {rank: (b"", time.monotonic()) for rank in others}
        beats = 0
        while not self._ended.wait(self.every_s):
            beats += 1
            try:
                self._beat(str(beats))
                values = self._store.multi_get([_key(rank) for rank in others])
            except RuntimeError:  # the store lives in rank 0, or in torchrun
                return self._give_up(LOST)
            now = time.monotonic()
            heard = {r: (v, heard[r][1] if v == heard[r][0] else now) for r, v in zip(others, values, strict=True)}
            for rank, (value, at) in heard.items():
                if value == b"failed":
                    return self._give_up(f"process {rank} of this run has ended")
                if now - at > self.patience_s:
                    return self._give_up(f"process {rank} of this run has been silent for {self.patience_s:.0f} s")
        return None

    def _give_up(self, what: str) -> None:
        if self._ended.wait(self.grace_s):
            return
        print(f"medssl: {UserError(what, fix=FIX)}", file=sys.stderr, flush=True)
        os._exit(2)  # the main thread may be waiting within a collective, where no exception reaches it


def _key(rank: int) -> str:
    return f"medssl/pulse/{rank}"
