"""Heads on feature maps."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def pool(feature_map: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c"]:
    """Global average, in float32."""
    return feature_map.flatten(2).float().mean(2)


class Projector(nn.Module):
    """FC, ReLU, FC on pooled features or on features of single positions; the caller normalises the result.

    PCRL: 512 → 128 → 128. Computed in float32 whatever the precision, since similarities are.
    """

    def __init__(self, channels: int, hidden: int = 128, out: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out))

    def forward(self, features: Float[Tensor, "n c"]) -> Float[Tensor, "n d"]:
        with torch.autocast(features.device.type, enabled=False):
            return self.layers(features.float())


def mixed(a: Sequence[Tensor], b: Sequence[Tensor], alpha: float) -> list[Tensor]:
    """The hybrid encoder of PCRL: ``α·a + (1-α)·b`` at every level."""
    return [torch.lerp(y, x.to(y.dtype), alpha) for x, y in zip(a, b, strict=True)]
