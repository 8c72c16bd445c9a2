"""Masks of whole patches, as masked autoencoders hide them (arXiv:2111.06377), and targets normalised a patch."""

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medssl.rng import Rng


def sample_mask(rng: Rng, purpose: str, n: int, grid: tuple[int, ...], ratio: float) -> Bool[Tensor, "b *g"]:
    """Which patches of a ``grid`` are hidden, a mask a sample: round(ratio · patches), but never none and never all."""
    count = prod(grid)
    hidden = min(count - 1, max(1, round(ratio * count)))
    rank = rng.uniform(purpose, n, count).argsort(axis=1).argsort(axis=1)
    return torch.from_numpy(rank < hidden).view(n, *grid)


def spread(mask: Bool[Tensor, "b *g"], patch: Sequence[int]) -> Bool[Tensor, "b *s"]:
    """A mask of patches as a mask of voxels."""
    for axis, edge in enumerate(patch, start=1):
        mask = mask.repeat_interleave(edge, dim=axis)
    return mask


def patch_statistics(
    images: Float[Tensor, "b c *s"], patch: Sequence[int]
) -> tuple[Float[Tensor, "b c *s"], Float[Tensor, "b c *s"]]:
    """Mean and standard deviation of each voxel's patch, channels together; √(variance + 1e-6), as published."""
    size = images.shape[2:]
    cells = [edge for n, p in zip(size, patch, strict=True) for edge in (n // p, p)]
    within = [1, *range(3, 2 + len(cells), 2)]  # axes of (b, c, g1, p1, g2, p2, …) that a patch spans
    folded = images.reshape(*images.shape[:2], *cells)
    variance, mean = torch.var_mean(folded, dim=within, keepdim=True)
    return tuple(x.expand_as(folded).reshape_as(images) for x in (mean, (variance + 1e-6).sqrt()))  # type: ignore[return-value]
