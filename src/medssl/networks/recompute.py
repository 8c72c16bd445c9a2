"""Activations computed again in the backward pass instead of being kept: memory for time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def set_recompute(module: nn.Module, on: bool = True) -> None:
    """Have every pyramid and decoder within ``module`` keep the inputs of its levels only."""
    for part in module.modules():
        if hasattr(part, "recompute"):
            part.recompute = on  # type: ignore[assignment]


def recomputed(owner: nn.Module, call: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``call(*inputs)``, run again when its gradient is asked for; running statistics of ``owner`` move once only."""
    if not torch.is_grad_enabled():
        return call(*inputs)
    return checkpoint(call, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_stay(owner)))  # type: ignore[return-value]


@contextmanager
def _statistics_stay(owner: nn.Module) -> Iterator[None]:
    # With a momentum of 0 a layer computes and saves what it did before, and its statistics keep every bit.
    kept = [(m, m.momentum, m.num_batches_tracked) for m in owner.modules() if isinstance(m, _BatchNorm)]
    for norm, _, count in kept:
        # A count to move instead, where there is one: synchronised layers do not go without.
        norm.momentum, norm.num_batches_tracked = 0.0, None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count
