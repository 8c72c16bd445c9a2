"""A batch in parts: gradients of small passes add up to that of one large; memory that runs out makes more parts."""

import gc
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl import distributed
from medssl.contract import Method
from medssl.errors import UserError
from medssl.networks.cached import near_equal

T = TypeVar("T")


class Parts:
    """In how many parts ``method`` takes a batch of ``batch`` samples (of this rank), and whether it can take more.

    Exact where the objective is a mean over samples. A method that compares the samples of a batch keeps it whole; one
    that can encodes it a part at a time by gradient caching, which is exact too. Batch norm averages over a part.
    """

    def __init__(
        self, method: Method, batch: int, count: int = 1, tell: Callable[[str], object] = lambda sentence: None
    ) -> None:
        self.method, self.batch, self.asked, self.count, self.tell = method, batch, count, 1, tell
        self._statistics = _statistics(method)
        if method.coupled and method.chunk:
            self.count = math.ceil(batch / method.chunk)
        if min(count, self.most) > self.count:  # a run that goes on with more ranks has fewer samples on each
            self._take(min(count, self.most))

    @property
    def obstacle(self) -> str:
        """Why this method takes a batch whole; "" where it need not."""
        return "" if self.method.cached else self.method.coupled

    @property
    def most(self) -> int:
        """The largest number of parts."""
        return 1 if self.obstacle else max(1, self.batch // least_samples(self.method))

    def rows(self) -> list[slice]:
        """The rows of each part, near equal; all of them where the method encodes a ``chunk`` at a time itself."""
        count = 1 if self.method.coupled else self.count
        return near_equal(self.batch, count)

    def check(self) -> None:
        """Refuse a number of parts that a person asked for and the method cannot take."""
        if self.asked == 1:
            return
        if self.obstacle:
            fix = "leave it out and give a smaller --batch, or choose moco, whose negatives wait in a queue"
            raise UserError(f"--accumulate {self.asked} would change what is learnt, since {self.obstacle}", fix=fix)
        if self.asked > self.most:
            least = least_samples(self.method)
            why = f", and batch norm averages over {least} samples or more" if least > 1 else ""
            what = f"--accumulate {self.asked} for {self.batch} samples{why}"
            raise UserError(what, fix=f"give {self.most} or less, or a larger --batch")

    def run(self, step: Callable[[list[slice]], T]) -> T:
        """``step(rows)``; where memory runs out, the same again in twice as many parts, said aloud, then always so.

        What is left of a failed attempt is undone. Several ranks would have to agree: there the error is passed on.
        """
        while True:
            kept = [torch._foreach_add(group, 0) for group in self._statistics]
            try:
                return step(self.rows())
            except Exception as error:
                if not exhausted(error) or self.count >= self.most or distributed.active():
                    raise
            # Outside the handler: the traceback that it keeps would hold the failed attempt's memory.
            self.method.zero_grad(set_to_none=True)
            self.method.noted = []
            release()
            for group, before in zip(self._statistics, kept, strict=True):
                torch._foreach_copy_(group, before)
            self._take(min(2 * self.count, self.most))
            self.tell(self.sentence())

    def _take(self, count: int) -> None:
        self.count = count
        if self.method.coupled:
            self.method.chunk = math.ceil(self.batch / count)

    def sentence(self) -> str:
        """What is done, and what it changes."""
        size = math.ceil(self.batch / self.count)
        how = "encoded by gradient caching" if self.method.coupled else "their gradients added up"
        norm = f"; batch norm now averages over {size}" if has_batch_norm(self.method) else ""
        return (
            f"out of memory: the {self.batch} samples of a step go in {self.count} parts of {size} from here on, "
            f"{how}: the same batch and the same objective{norm}"
        )


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a layer's output for one sample depends on the others."""
    return any(isinstance(m, _BatchNorm) for m in module.modules())


def least_samples(method: Method) -> int:
    """The smallest part: batch norm needs two samples for every set of statistics."""
    pairs = 2 * getattr(method.config, "batch_groups", 1) if has_batch_norm(method) else 1
    return max(method.least, pairs)


def exhausted(error: BaseException) -> bool:
    """True if an error means that memory ran out, on a GPU or in torch's CPU allocator."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        said in str(error) for said in ("out of memory", "DefaultCPUAllocator", "can't allocate memory")
    )


def release() -> None:
    """Give back what a failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _statistics(module: nn.Module) -> list[list[torch.Tensor]]:
    """Running statistics, which a forward pass moves; a list for each type of number, to be copied at a stroke."""
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for norm in module.modules():
        for buffer in norm.buffers(recurse=False) if isinstance(norm, _BatchNorm) else ():
            groups.setdefault(buffer.dtype, []).append(buffer)
    return list(groups.values())
