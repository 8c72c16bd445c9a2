"""Structures that a view shows, from the mask of the region that it was cut from."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

SHOWN = 1e-3  # of a view's voxels, and one at least: a sliver at the edge of a crop does not show a structure


def mask_of_view(
    mask: Int[Tensor, "b *region"], place: Float[Tensor, "b d1 d1"], size: tuple[int, ...]
) -> Int[Tensor, "b *s"]:
    """Labels of a view of ``size``, by nearest neighbour; ``place``: its voxels to those of the region.

    Beyond the region there is nothing: 0.
    """
    dims, device = len(size), mask.device
    axes = [torch.arange(n, device=device, dtype=place.dtype) for n in size]
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, dims)  # (v, d)
    there = voxels @ place[:, :dims, :dims].transpose(1, 2) + place[:, None, :dims, dims]
    there = there.round().long()  # (b, v, d)
    last = torch.tensor(mask.shape[1:], device=device) - 1
    held = torch.minimum(there.clamp(min=0), last)
    inside = (held == there).all(-1)
    found = torch.stack([one[tuple(at.T)] for one, at in zip(mask, held, strict=True)])
    return (found * inside).view(len(mask), *size)


def structures(mask: Int[Tensor, "b *s"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Sample and label, from 1 on, of every structure that a view shows, sample by sample."""
    flat = mask.flatten(1).long()
    names = flat.unique()
    names = names[names > 0]
    counts = flat.new_zeros(len(flat), len(names))
    for i, name in enumerate(names):
        counts[:, i] = (flat == name).sum(1)
    sample, which = (counts >= max(1.0, SHOWN * flat.shape[1])).nonzero(as_tuple=True)
    return sample, names[which]
