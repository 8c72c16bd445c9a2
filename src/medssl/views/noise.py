"""Noise without a generator: a hash of (seed of a sample, number of a voxel), the same on every device.

Drawing voxel noise from one generator would tie it to the batch; one generator a sample would cost a loop and differ
between CPU and GPU. Hashing a counter is elementwise, batched and has no state.
"""

from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from medssl.rng import Rng


def sample_seeds(rng: Rng, purpose: str, n: int) -> Int[Tensor, "b"]:
    """One 32-bit seed a sample."""
    return torch.from_numpy((rng.uniform(purpose, n) * 2**32).astype(np.int64))


def mixed(x: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
    """Scramble 32-bit integers held in int64 (xor-shift-multiply; both factors < 2³¹, so that no product overflows)."""
    x = (x ^ (x >> 16)).mul_(0x21F0AAAD).bitwise_and_(0xFFFFFFFF)
    x = x.bitwise_xor_(x >> 15).mul_(0x735A2D97).bitwise_and_(0xFFFFFFFF)
    return x.bitwise_xor_(x >> 15)


def uniform_noise(seeds: Int[Tensor, "b"], shape: tuple[int, ...], device: torch.device) -> Float[Tensor, "b *s"]:
    """(b, *shape) float32 in (0, 1), both ends excluded; row i depends on ``seeds[i]`` alone.

    In steps of 2⁻¹⁶, far finer than image noise needs: one hash serves two voxels.
    """
    count = prod(shape)
    bits = mixed(mixed(torch.arange((count + 1) // 2, device=device)) ^ seeds.to(device)[:, None])
    halves = torch.cat([bits & 0xFFFF, bits >> 16], dim=1)[:, :count]
    return (halves.float() + 0.5).mul_(2.0**-16).view(-1, *shape)


def normal_noise(seeds: Int[Tensor, "b"], shape: tuple[int, ...], device: torch.device) -> Float[Tensor, "b *s"]:
    """(b, *shape) float32, standard normal."""
    return uniform_noise(seeds, shape, device).mul_(2).sub_(1).erfinv_().mul_(2**0.5)
