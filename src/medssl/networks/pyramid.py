"""Encoders as pyramids: an image in, one feature map a level out, fine to coarse."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medssl.config import ModelConfig
from medssl.errors import UserError
from medssl.networks.recompute import recomputed

# name: "module:function", so that a name is checked without importing MONAI
ENCODERS = {
    "resnet18": "medssl.networks.resnet:resnet18",
    "resnet34": "medssl.networks.resnet:resnet34",
    "resnet50": "medssl.networks.resnet:resnet50",
    "unet": "medssl.networks.unet:unet",
    "resunet": "medssl.networks.unet:resunet",
    "poolunet": "medssl.networks.unet:poolunet",
    "swin": "medssl.networks.swin:swin",
}


class Pyramid(nn.Module):
    """Base of all encoders.

    ``channels`` has the width of each level, ``strides`` how many input voxels a position of that level spans
    along each axis, both fine to coarse. ``stem`` names the parts that make the first level.
    """

    dims: int
    channels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    stem: tuple[str, ...]
    recompute = False

    def levels(self) -> list[Callable[[Tensor], Tensor]]:
        """What computes each level from the one before it."""
        raise NotImplementedError

    def shown(self, x: Tensor) -> Tensor:
        """What is handed out of a level whose next level takes ``x``."""
        return x

    def forward(self, x: Float[Tensor, "b c *s"], keep: Bool[Tensor, "b k"] | None = None) -> list[Tensor]:
        """(b, C, *spatial) → maps (b, channels[l], *spatial / strides[l]).

        ``keep`` (b, channels[0]) says which channels of the first level go on; the others are zero at every position,
        in the map that is handed out as in what the next level takes.
        """
        maps: list[Tensor] = []
        before = (1,) * self.dims
        for level, stride in zip(self.levels(), self.strides, strict=True):
            shortest = min(n * b // s for n, b, s in zip(x.shape[2:], before, stride, strict=True))
            run = partial(in_safe_precision, level, shortest)
            x = recomputed(self, run, x) if self.recompute else run(x)
            hidden = None if keep is None or maps else ~keep.view(*keep.shape, *(1,) * self.dims)
            x = x if hidden is None else x.masked_fill(hidden, 0)
            out = self.shown(x)
            maps.append(out if hidden is None else out.masked_fill(hidden, 0))
            before = stride
        return maps


def build_encoder(config: ModelConfig) -> Pyramid:
    """The encoder that ``config`` describes, with fresh weights."""
    if config.encoder not in ENCODERS:
        raise UserError(f"no encoder '{config.encoder}'", fix=f"choose one of {', '.join(ENCODERS)}")
    module, function = ENCODERS[config.encoder].split(":")
    return getattr(import_module(module), function)(config)


def in_safe_precision(module: Callable[..., Tensor], shortest: int, *inputs: Tensor) -> Tensor:
    """Call ``module``; on a CPU in float32 where the shortest axis of its maps is below 4.

    torch's bfloat16 convolutions return wrong weight gradients on the CPU for such short axes (relative error
    above 1, or infinite); the maps are so small there that float32 costs nothing.
    """
    if shortest < 4 and inputs[0].device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return module(*(x.float() for x in inputs))
    return module(*inputs)


def check_patch(encoder: Pyramid, size: Sequence[int]) -> None:
    """Refuse a patch that the levels of ``encoder`` do not divide; a decoder could not put it together again."""
    coarsest = encoder.strides[-1]
    if len(size) != encoder.dims:
        raise UserError(f"patch {tuple(size)} has {len(size)} axes", fix=f"give {encoder.dims} numbers")
    if any(n < s or n % s for n, s in zip(size, coarsest, strict=True)):
        near = tuple(max(s, round(n / s) * s) for n, s in zip(size, coarsest, strict=True))
        wanted = "×".join(map(str, coarsest))
        raise UserError(f"patch {tuple(size)} is no multiple of {wanted}", fix=f"choose {near}")
    if any(isinstance(m, nn.modules.instancenorm._InstanceNorm) for m in encoder.modules()):
        positions = [n // s for n, s in zip(size, coarsest, strict=True)]
        if max(positions) < 2:
            raise UserError(f"patch {tuple(size)} leaves instance norm one position", fix="double it, or norm=batch")


def check_whole(encoder: Pyramid, size: Sequence[int], channels: int) -> None:
    """Refuse a size that ``encoder``, built on the meta device, cannot take, where nothing is decoded: a small one."""
    try:
        encoder(torch.empty(2, channels, *size, device="meta"))
    except (RuntimeError, ValueError):
        least = "×".join(str(2 * s) for s in encoder.strides[-1])
        raise UserError(f"patch {tuple(size)} is too small for the encoder", fix=f"{least} always fits") from None
