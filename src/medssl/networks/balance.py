"""Weights that keep the gradients of two objectives equally strong where they meet."""

import torch
from torch import Tensor, nn

from medssl import distributed


class GradientBalance(nn.Module):
    """λ = ‖∇a‖ / ‖∇b‖, running means of gradient norms at features that both objectives use.

    The means are buffers, so a resumed run goes on with the same λ. Until both have been seen λ is 1.
    """

    norms: Tensor

    def __init__(self, memory: float = 0.9) -> None:
        super().__init__()
        self.memory = memory
        self.register_buffer("norms", torch.zeros(2))

    def weight(self) -> Tensor:
        """λ, the factor of objective b."""
        known = self.norms.min() > 0
        return torch.where(known, self.norms[0] / self.norms[1].clamp(min=1e-12), 1.0)

    @torch.no_grad()
    def measure(self, before: dict[int, Tensor], after: dict[int, Tensor]) -> Tensor:
        """Norms (2,) of a's gradients ``before`` and of what b, weighted by λ, has added ``after``; levels as keys."""
        added = [grad - before[i] if i in before else grad for i, grad in after.items()]
        a, b = (torch.stack([g.float().norm() for g in found]).norm() for found in (list(before.values()), added))
        return torch.stack([a, b / self.weight()])

    @torch.no_grad()
    def observe(self, norms: Tensor) -> None:
        """Take in (2,) norms of this step, b's without λ; averaged over ranks. A zero says nothing and is left out."""
        now = distributed.gather(norms[None].to(self.norms)).mean(0)
        moved = torch.where(self.norms > 0, torch.lerp(now, self.norms, self.memory), now)
        self.norms.copy_(torch.where(now > 0, moved, self.norms))
