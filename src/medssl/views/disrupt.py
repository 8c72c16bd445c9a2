"""The disruptions of DAE (arXiv:2307.16896): noise, then loss of resolution, then channels of the first features."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.rng import Rng
from medssl.views.noise import normal_noise

LINEAR = {2: "bilinear", 3: "trilinear"}


def add_noise(images: Float[Tensor, "b c *s"], seeds: Int[Tensor, "b"], std: float) -> Float[Tensor, "b c *s"]:
    """Add Gaussian noise of one standard deviation; values may leave their range, as published."""
    return images + std * normal_noise(seeds, tuple(images.shape[1:]), images.device).to(images.dtype)


def coarsen(images: Float[Tensor, "b c *s"], factor: int) -> Float[Tensor, "b c *s"]:
    """Resample linearly to a ``factor``-th of every side (at least one voxel), and back."""
    size, mode = images.shape[2:], LINEAR[images.ndim - 2]
    small = F.interpolate(images, [max(1, n // factor) for n in size], mode=mode, align_corners=False)
    return F.interpolate(small, size, mode=mode, align_corners=False)


def sample_kept(rng: Rng, purpose: str, n: int, channels: int, share: float) -> Bool[Tensor, "b k"]:
    """Which channels stay: all but round(``share`` · channels), drawn for each sample; at least one stays."""
    hidden = min(channels - 1, round(share * channels))
    order = torch.from_numpy(rng.uniform(purpose, n, channels)).argsort(dim=1)
    return torch.ones(n, channels, dtype=torch.bool).scatter(1, order[:, :hidden], False)
