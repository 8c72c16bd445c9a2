"""Counts of bytes: what autograd keeps for a backward, what is alive at all, and what a GPU's allocator gives."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Held:
    """Give ``pack`` and ``unpack`` to ``saved_tensors_hooks``: each storage counts once, parameters do not."""

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        self.now = self.most = 0
        self.uses: Counter[int] = Counter()
        self.parameters = {p.untyped_storage().data_ptr() for p in parameters}

    def pack(self, x: torch.Tensor) -> object:
        storage = x.untyped_storage()
        return x if storage.data_ptr() in self.parameters else _Kept(self, x, storage.data_ptr(), storage.nbytes())

    @staticmethod
    def unpack(kept: object) -> torch.Tensor:
        return kept.x if isinstance(kept, _Kept) else kept  # type: ignore[return-value]

    def add(self, place: int, size: int) -> None:
        self.uses[place] += 1
        self.now += size * (self.uses[place] == 1)
        self.most = max(self.most, self.now)

    def drop(self, place: int, size: int) -> None:
        self.uses[place] -= 1
        self.now -= size * (self.uses[place] == 0)


class _Kept:
    def __init__(self, held: Held, x: torch.Tensor, place: int, size: int) -> None:
        self.held, self.x, self.place, self.size = held, x, place, size
        held.add(place, size)

    def __del__(self) -> None:
        self.held.drop(self.place, self.size)


class Live(TorchDispatchMode):
    """Within, the most bytes that are alive at one time of the tensors made within. No allocator's habits are in it."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves(args) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(found):
            if isinstance(x, torch.Tensor) and (key := x.untyped_storage()._cdata) not in given:  # no view
                self._alive[key] = StorageWeakRef(x.untyped_storage()), x.untyped_storage().nbytes()
        self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._alive.values()))
        return found


class Moved(TorchDispatchMode):
    """Within, the bytes that operations read and write, if each does so once and none finds them in a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if not function.is_view and not function.overloadpacket.__name__.startswith(("empty", "new_empty")):
            self.bytes += sum(x.nbytes for x in tree_leaves((args, kwargs, found)) if isinstance(x, torch.Tensor))
        return found


def peak_bytes(run: Callable[[], object]) -> int:
    """Most memory of the GPU that one call takes, beyond what is taken before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
