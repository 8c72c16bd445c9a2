"""Distances between an image and its reconstruction."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def rebuild_error(
    rebuilt: Float[Tensor, "b c *s"], target: Float[Tensor, "b c *s"], where: Bool[Tensor, "b *s"] | None = None
) -> Float[Tensor, ""]:
    """Mean squared error over the whole image, or over the voxels ``where`` is true (zero where there are none)."""
    rebuilt = rebuilt.to(torch.promote_types(rebuilt.dtype, target.dtype))
    if where is None:
        return (rebuilt - target).square().mean()
    inside = where[:, None].expand_as(target)
    # torch.where and not a product: infinities outside must not turn into NaN.
    errors = torch.where(inside, rebuilt - target, 0).square()
    return errors.sum() / inside.sum().clamp(min=1)


def absolute_error(rebuilt: Float[Tensor, "b c *s"], target: Float[Tensor, "b c *s"]) -> Float[Tensor, ""]:
    """Mean absolute error over the whole image."""
    return (rebuilt.to(torch.promote_types(rebuilt.dtype, target.dtype)) - target).abs().mean()
