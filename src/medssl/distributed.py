"""What ranks say to each other; on one process every function is the identity."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx


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


def gather_with_gradient(x: Tensor) -> Tensor:
    """``gather`` through which gradients return: a rank's x collects those that every rank has of its share."""
    return _Gather.apply(x) if active() else x


class _Gather(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        whole = gradient.contiguous().clone()
        dist.all_reduce(whole)
        return whole.chunk(world_size())[rank()]


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average gradients over ranks in one flat all-reduce; a rank without a gradient counts as zero."""
    if not active():
        return
    wanted = [p for p in parameters if p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in wanted])
    dist.all_reduce(flat)
    flat /= world_size()
    for p, piece in zip(wanted, flat.split([p.numel() for p in wanted]), strict=True):
        # Into the old memory where there is some, so that a channels_last gradient keeps its strides.
        grad = piece.view(p.shape)
        p.grad = grad.clone() if p.grad is None else p.grad.copy_(grad)
