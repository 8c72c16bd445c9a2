"""Heads on feature maps."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def pool(feature_map: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c"]:
    """Global average, in float32 or better."""
    return _widened(feature_map).flatten(2).mean(2)


def pool_within(
    feature_map: Float[Tensor, "b c *g"], mask: Int[Tensor, "b *s"], row: Int[Tensor, " n"], label: Int[Tensor, " n"]
) -> Float[Tensor, "n c"]:
    """Mean feature of structure ``label[i]`` of image ``row[i]``: a cell counts by the share of it that it fills.

    The sides of the map divide those of the mask. In float32 or better.
    """
    grid = feature_map.shape[2:]
    edges = [s // g for s, g in zip(mask.shape[1:], grid, strict=True)]
    there = mask[row] == label.view(-1, *(1,) * len(grid))  # (n, *s)
    cells = [n for g, edge in zip(grid, edges, strict=True) for n in (g, edge)]
    inner = tuple(range(2, 1 + len(cells), 2))
    features = _widened(feature_map)[row].flatten(2)  # (n, c, cells)
    share = there.view(-1, *cells).sum(inner).to(features.dtype).flatten(1)  # (n, cells); bfloat16 counts to 256
    return (features * share[:, None]).sum(2) / share.sum(1, keepdim=True)


def at_cells(feature_map: Float[Tensor, "b c *s"], cells: Int[Tensor, "b a"]) -> Float[Tensor, "n c"]:
    """Features of the numbered positions, n = b·a."""
    spots = feature_map.flatten(2).gather(2, cells[:, None].expand(-1, feature_map.shape[1], -1))
    return spots.transpose(1, 2).flatten(0, 1)


def at_places(feature_map: Float[Tensor, "b c *s"], places: Float[Tensor, "b a d"]) -> Float[Tensor, "n c"]:
    """Features between positions, linearly; ``places`` in [-1, 1], last axis first, as ``grid_sample`` takes them.

    In float32 or better: rounded to bfloat16 a place would move by up to 1/512 of the map's side.
    """
    b, a, dims = places.shape
    feature_map = _widened(feature_map)
    grid = places.view(b, a, *(1,) * (dims - 1), dims).to(feature_map.dtype)
    # Between the last centre and the edge the border goes on; zeros there would tell edges from middles.
    spots = F.grid_sample(feature_map, grid, padding_mode="border", align_corners=False).flatten(2)
    return spots.transpose(1, 2).flatten(0, 1)


class Projector(nn.Module):
    """FC, ReLU, FC on pooled features or on features of single positions; the caller normalises the result.

    PCRL: 512 → 128 → 128. Computed in float32 whatever the precision, since similarities are.
    """

    def __init__(self, channels: int, hidden: int = 128, out: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out))

    def forward(self, features: Float[Tensor, "n c"]) -> Float[Tensor, "n d"]:
        with torch.autocast(features.device.type, enabled=False):
            return self.layers(_widened(features))


class Comparer(nn.Module):
    """z = BN(GAP(F)) and its prediction p = FC C→2C, BN, ReLU, FC 2C→C, as PCRLv2 compares levels of a decoder.

    Batch norm whatever the rest of the network has: it keeps z from becoming one point. Computed in float32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.norm = nn.BatchNorm1d(channels)
        self.predictor = nn.Sequential(
            nn.Linear(channels, wide), nn.BatchNorm1d(wide), nn.ReLU(inplace=True), nn.Linear(wide, channels)
        )

    def forward(self, feature_map: Float[Tensor, "n c *s"]) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n c"]]:
        with torch.autocast(feature_map.device.type, enabled=False):
            z = self.norm(pool(feature_map))
            return z, self.predictor(z)


def mixed(a: Sequence[Tensor], b: Sequence[Tensor], alpha: float) -> list[Tensor]:
    """The hybrid encoder of PCRL: ``α·a + (1-α)·b`` at every level."""
    return [torch.lerp(y, x.to(y.dtype), alpha) for x, y in zip(a, b, strict=True)]


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
