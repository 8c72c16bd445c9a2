"""The nearest of many vectors, exactly, without the matrix of all similarities."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

ASKED = 256  # rows at a time
SLAB = 4096  # columns at a time: 4 MiB of similarities, which a CPU's caches hold
GROUP = 64  # columns that are looked at as one


def nearest(
    known: Float[np.ndarray, "n d"], asked: Float[np.ndarray, "m d"], k: int
) -> tuple[Float[np.ndarray, "m k"], Int[np.ndarray, "m k"]]:
    """Inner product with, and row of, the k of ``known`` most similar to each of ``asked``; the most similar first.

    Columns form groups, and the k best lie in the k groups with the best maxima: a maximum over groups is one pass at
    the speed of memory, where a selection of k among all costs more than the products. k ≤ n.
    """
    base, questions = (torch.from_numpy(np.ascontiguousarray(x)) for x in (known, asked))
    found = [_nearest(base, part, k) for part in questions.split(ASKED)]
    return tuple(torch.cat(parts).numpy() for parts in zip(*found, strict=True))  # type: ignore[return-value]


def _nearest(base: Tensor, asked: Tensor, k: int) -> tuple[Tensor, Tensor]:
    n, wide = len(base), SLAB // GROUP
    similar, maxima = asked.new_full((len(asked), SLAB), -torch.inf), []
    for slab in base.split(SLAB):
        if len(slab) < SLAB:
            similar.fill_(-torch.inf)
        torch.mm(asked, slab.T, out=similar[:, : len(slab)])
        maxima.append(similar.view(-1, GROUP, wide).amax(1))  # group g of a slab: columns g, g + wide, g + 2·wide …
    best = torch.cat(maxima, dim=1)
    groups = best.topk(min(k, best.shape[1]), dim=1).indices  # (r, groups)
    first = groups // wide * SLAB + groups % wide
    columns = (first[:, :, None] + wide * torch.arange(GROUP)).flatten(1)  # (r, groups · GROUP)
    real = columns < n
    values = torch.bmm(base[columns.where(real, 0)], asked[:, :, None])[:, :, 0].masked_fill_(~real, -torch.inf)
    top = values.topk(k, dim=1)
    return top.values, columns.gather(1, top.indices)
