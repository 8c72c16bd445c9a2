"""What ranks say to each other; on one process every function is the identity."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def active() -> bool:
    """True inside a process group of more than one rank."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's rank; 0 on one process."""
    return dist.get_rank() if active() else 0


def world_size() -> int:
    """Number of ranks; 1 on one process."""
    return dist.get_world_size() if active() else 1


def gather(x: Tensor) -> Tensor:
    """Concatenate (b, …) of all ranks in rank order, without gradient."""
    if not active():
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def gather_rows(x: Tensor) -> Tensor:
    """Concatenate (n, …) of all ranks in rank order; n may differ by rank, and gradients flow back.

    Every rank must call, and go backward, alike. Where each rank computes the same loss of the gathered rows, the
    average over ranks of the gradients (``average_gradients``) is the gradient of that loss.
    """
    return _GatherRows.apply(x) if active() else x


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        counts = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world_size())]
        dist.all_gather(counts, torch.full_like(counts[0], len(x)))
        lengths = [int(n) for n in counts]
        padded = x.new_zeros(max(lengths), *x.shape[1:])
        padded[: len(x)] = x
        ctx.own = slice(sum(lengths[: rank()]), sum(lengths[: rank() + 1]))
        return torch.cat([part[:n] for part, n in zip(gather(padded).split(max(lengths)), lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        whole = grads[0].contiguous()
        dist.all_reduce(whole)
        return whole[ctx.own]


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average gradients over ranks in one flat all-reduce; a rank without a gradient counts as zero.

    A parameter that no rank has a gradient of keeps none, as on one process: optimisers pass it by, where a gradient
    of zero would let it decay.
    """
    if not active():
        return
    wanted = [p for p in parameters if p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in wanted])
    there = flat.new_tensor([p.grad is not None for p in wanted])
    flat = torch.cat([flat, there])
    dist.all_reduce(flat)
    flat /= world_size()
    *pieces, there = flat.split([*(p.numel() for p in wanted), len(wanted)])
    # Read only where something is absent here: elsewhere every answer is known, and no step waits for the device.
    known = [True] * len(wanted) if all(p.grad is not None for p in wanted) else (there > 0).tolist()
    for p, piece, anywhere in zip(wanted, pieces, known, strict=True):
        if not anywhere:
            continue
        # Into the old memory where there is some, so that a channels_last gradient keeps its strides.
        grad = piece.view(p.shape)
        p.grad = grad.clone() if p.grad is None else p.grad.copy_(grad)
