"""The transformation T of a view, flips and quarter turns, and the code that names it to the decoder.

A code has one number a flip, then the quarter turns k = 0..3 one-hot: 6 numbers in 2D, 7 in 3D. T flips first, then
turns the plane of the first two axes, which is axial in RAS volumes, counter-clockwise as ``numpy.rot90`` does.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from medssl.rng import Rng


def code_size(dims: int) -> int:
    """Length of a transformation code."""
    return dims + 4


def sample_turn(rng: Rng, purpose: str, n: int, size: tuple[int, ...], flip_p: float = 0.5) -> Float[Tensor, "b k"]:
    """Codes (n, dims + 4); quarter turns that would swap unequal sides are left out."""
    dims = len(size)
    chance = rng.uniform(purpose, n, dims + 1)
    turns = np.array([0, 1, 2, 3] if size[0] == size[1] else [0, 2])
    k = turns[(chance[:, dims] * len(turns)).astype(int)]
    return torch.from_numpy(np.concatenate([chance[:, :dims] < flip_p, np.eye(4)[k]], axis=1)).float()


def turn(x: Shaped[Tensor, "b c *s"], code: Float[Tensor, "b k"]) -> Shaped[Tensor, "b c *s"]:
    """T(x), a code a sample."""
    swap, flips = _parts(code)
    return _flip(_swap(x, swap), flips)


def unturn(x: Shaped[Tensor, "b c *s"], code: Float[Tensor, "b k"]) -> Shaped[Tensor, "b c *s"]:
    """T⁻¹(x)."""
    swap, flips = _parts(code)
    return _swap(_flip(x, flips), swap)


def turn_matrix(code: Float[Tensor, "b k"], size: tuple[int, ...]) -> Float[Tensor, "b d1 d1"]:
    """Homogeneous matrices from voxel indices of T(x) to voxel indices of x."""
    dims = len(size)
    swap, flips = _parts(code)
    sign = 1 - 2 * flips.float()
    edge = torch.tensor(size, dtype=torch.float32, device=code.device) - 1
    unflip = torch.diag_embed(torch.cat([sign, torch.ones_like(sign[:, :1])], dim=1))
    unflip[:, :dims, dims] = flips * edge
    order = torch.arange(dims + 1, device=code.device).repeat(len(code), 1)
    order[:, 0] += swap
    order[:, 1] -= swap.long()
    return unflip.gather(1, order[:, :, None].expand_as(unflip))  # rows swapped: unflip first, then transpose


def _parts(code: Float[Tensor, "b k"]) -> tuple[Bool[Tensor, "b"], Bool[Tensor, "b d"]]:
    """T as a transposition (b,) followed by flips (b, dims): any chain of flips and quarter turns is one of these."""
    dims = code.shape[1] - 4
    flips, k = code[:, :dims] > 0.5, code[:, dims:].argmax(1)
    swap = k % 2 == 1
    x = torch.where(swap, flips[:, 1], flips[:, 0]) ^ ((k == 1) | (k == 2))
    y = torch.where(swap, flips[:, 0], flips[:, 1]) ^ ((k == 2) | (k == 3))
    return swap, torch.cat([x[:, None], y[:, None], flips[:, 2:]], dim=1)


def _swap(x: Tensor, chosen: Tensor) -> Tensor:
    if x.shape[2] != x.shape[3]:  # codes drawn for unequal sides hold no swap; comparing shapes needs no device sync
        return x
    return torch.where(_like(chosen, x), x.transpose(2, 3), x)


def _flip(x: Tensor, flips: Tensor) -> Tensor:
    for axis in range(flips.shape[1]):
        x = torch.where(_like(flips[:, axis], x), x.flip(axis + 2), x)
    return x


def _like(chosen: Tensor, x: Tensor) -> Tensor:
    return chosen.to(x.device).view(-1, *(1,) * (x.ndim - 1))
