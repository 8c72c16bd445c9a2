"""The temperature of a contrast: fixed, scheduled or learnt; similarities are divided by it."""

import math

import torch
from torch import Tensor, nn

SHARPEST = 100.0  # 1/τ at most, where it is learnt


class Temperature(nn.Module):
    """τ: a number, two numbers (first and last, linear in progress), or learnt from a number on.

    Learnt as log 1/τ, so that it stays positive and its steps are relative; after each step ``bound`` keeps 1/τ ≤ 100
    (CLIP, arXiv:2103.00020 § 2.4).
    """

    def __init__(self, tau: float | tuple[float, float], learn: bool = False) -> None:
        super().__init__()
        self.first, self.last = tau if isinstance(tau, tuple) else (tau, tau)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(self.first))) if learn else None

    def forward(self, progress: float = 0.0) -> float | Tensor:
        """τ at this share of the run."""
        if self.log_scale is not None:
            return torch.exp(-self.log_scale)
        return self.first + (self.last - self.first) * progress

    @torch.no_grad()
    def bound(self) -> None:
        """1/τ ≤ 100."""
        if self.log_scale is not None:
            self.log_scale.clamp_(max=math.log(SHARPEST))
