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


def anywhere(said: bool) -> bool:
    """True on every rank where it is true on one; all must call."""
    if not active():
        return said
    count = torch.tensor(float(said), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(count)
    return bool(count > 0)


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
        if not max(lengths):
            ctx.own = slice(0)
            return x.clone()
        padded = x.new_zeros(max(lengths), *x.shape[1:])
        padded[: len(x)] = x
        ctx.own = slice(sum(lengths[: rank()]), sum(lengths[: rank() + 1]))
        return torch.cat([part[:n] for part, n in zip(gather(padded).split(max(lengths)), lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        whole = grads[0].contiguous()
        if len(whole):
            dist.all_reduce(whole)
        return whole[ctx.own]


def add_up(x: Tensor) -> Tensor:
    """Sum of ``x`` over ranks; its gradient is the sum of theirs. Every rank must call, and go backward, alike."""
    return _AddUp.apply(x) if active() else x


class _AddUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _AddUp.forward(ctx, grads[0].contiguous())


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average gradients over ranks in one flat all-reduce; a rank without a gradient counts as zero.

    A parameter that no rank has a gradient of keeps none, so that the optimiser leaves it alone, as on one process.
    """
    if not active():
        return
    wanted = [p for p in parameters if p.requires_grad]
    parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in wanted]
    known = parts[0].new_tensor([p.grad is not None for p in wanted])
    flat = torch.cat([*parts, known])
    dist.all_reduce(flat)
    flat /= world_size()
    *pieces, known = flat.split([*map(len, parts), len(known)])
    # Read from the device only where it matters here: a rank that has all of its gradients need not wait.
    learnt = known.tolist() if any(p.grad is None for p in wanted) else [1.0] * len(wanted)
    for p, piece, ranks in zip(wanted, pieces, learnt, strict=True):
        grad = piece.view(p.shape)
        if p.grad is not None:
            p.grad.copy_(grad)  # into the old memory, so that a channels_last gradient keeps its strides
        elif ranks > 0:
            p.grad = grad.clone()
