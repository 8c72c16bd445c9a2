"""Gradient caching: a batch that does not fit is encoded a chunk at a time, and its gradient is exact."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from medssl.contract import Shared, in_one_graph


def near_equal(count: int, parts: int) -> list[slice]:
    """``count`` rows in so many parts, whose sizes differ by one at most."""
    return [slice(low, high) for low, high in pairwise(count * k // parts for k in range(parts + 1))]


def chunked(count: int, chunk: int) -> list[slice]:
    """Near-equal parts of at most ``chunk`` rows; one part where that is 0, for no limit."""
    return near_equal(count, math.ceil(count / chunk) if 0 < chunk < count else 1)


class Together:
    """Several encodes as one place where the gradients of a term are measured."""

    def __init__(self, parts: Sequence["Cached"]) -> None:
        self._parts = parts

    def gradients(self) -> dict[Any, Tensor]:
        """Of all, by number and level."""
        return {(i, level): g for i, part in enumerate(self._parts) for level, g in part.gradients().items()}


class Cached:
    """The maps of a batch for terms that compare all its samples (Gao et al., arXiv:2101.06983).

    ``maps``, the levels ``keep`` of ``encode(x)``, are leaves as those of ``Shared``. With a ``chunk`` smaller than the
    batch they come from encodes without a graph; once all such terms have been yielded, ``again()`` encodes each chunk
    anew and hands it the gradients that its leaves have collected. Chunks are near equal, so that no sample is left
    alone in one. Batch-norm statistics are those of a chunk, and their running means move at both encodes; whatever
    else ``encode`` does must be the same both times. ``beside``: more tensors (b, …) that it takes after ``x``.
    """

    def __init__(
        self,
        encode: Callable[..., Sequence[Tensor]],
        x: Tensor,
        chunk: int = 0,
        keep: Sequence[int] = (-1,),
        beside: Sequence[Tensor] = (),
    ) -> None:
        self._encoder, self._inputs, self._keep = encode, (x, *beside), keep
        self._parts = chunked(len(x), chunk)
        several = len(self._parts) > 1
        self.whole: Shared | None = None
        if not several or in_one_graph():
            levels = zip(*(self._encode(part) for part in self._parts), strict=True)
            self.whole = Shared([torch.cat(level) if several else level[0] for level in levels])
            self.maps = [self.whole.maps[level] for level in keep]
            return
        with torch.no_grad():
            found = [[maps[level] for level in keep] for maps in (self._encode(part) for part in self._parts)]
        torch.clear_autocast_cache()  # it holds copies of the weights that know no gradient
        self.maps = [torch.cat(level).requires_grad_() for level in zip(*found, strict=True)]

    def _encode(self, part: slice) -> Sequence[Tensor]:
        return self._encoder(*(tensor[part] for tensor in self._inputs))

    def gradients(self) -> dict[Any, Tensor]:
        """What the maps have collected so far, by level, as of ``Shared``."""
        if self.whole is not None:
            return self.whole.gradients()
        return {level: leaf.grad for level, leaf in zip(self._keep, self.maps, strict=True) if leaf.grad is not None}

    def again(self) -> Iterator[tuple[slice, Shared]]:
        """Rows of each chunk and its maps at all levels, for terms of single samples and then for the driver."""
        if self.whole is not None and len(self._parts) == 1:
            yield self._parts[0], self.whole
            return
        for part in self._parts:
            if self.whole is not None:
                yield part, Shared([level[part] for level in self.whole.maps])  # one graph: nothing is cut
                continue
            shared = Shared(self._encode(part))
            for level, leaf in zip(self._keep, self.maps, strict=True):
                if leaf.grad is not None and shared.maps[level].requires_grad:
                    shared.maps[level].grad = leaf.grad[part]
            yield part, shared
