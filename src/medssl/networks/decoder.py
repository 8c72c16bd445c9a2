"""One decoder for every pyramid: from the coarsest map back to the resolution of the input."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn

from medssl.config import ModelConfig
from medssl.networks.norms import NormName, evaluating, set_norm
from medssl.networks.pyramid import Pyramid, in_safe_precision
from medssl.networks.recompute import recomputed


class Decoder(nn.Module):
    """Upsample, join the skip, convolve twice; a level at a time, then a head.

    ``channels`` and ``strides`` are those of the pyramid. Widths halve from min(256, half the coarsest): with a
    ResNet-18 256-128-64-32-16. ``up="nearest"`` has a 3-convolution as head (2D paper), ``up="transposed"`` keeps
    the width while upsampling and has a 1-convolution (3D paper). ``head="sigmoid"`` bounds the output to (0, 1).
    ``channels`` of the result has the width of each level, coarse to fine.
    """

    recompute = False

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[Sequence[int]],
        dims: int,
        out_channels: int,
        *,
        skips: bool = True,
        head: Literal["linear", "sigmoid"] = "linear",
        up: Literal["nearest", "transposed"] = "nearest",
        norm: NormName = "batch",
    ) -> None:
        super().__init__()
        # Steps from coarse to fine; a pyramid that starts below full resolution gets one more, without a skip.
        fine_to_coarse = [(1,) * dims, *strides] if max(strides[0]) > 1 else list(strides)
        factors = [
            tuple(c // f for f, c in zip(fine, coarse, strict=True)) for fine, coarse in pairwise(fine_to_coarse)
        ][::-1]
        skip_widths = [*channels[-2::-1], 0][: len(factors)] if skips else [0] * len(factors)
        width, start = channels[-1], min(256, channels[-1] // 2)
        self.skips, self.sigmoid = skips, head == "sigmoid"
        self.channels: list[int] = []
        self.blocks = nn.ModuleList()
        for i, (factor, skip) in enumerate(zip(factors, skip_widths, strict=True)):
            after = max(8, start >> i)
            self.blocks.append(_Up(width, skip, after, factor, dims, up))
            width = after
            self.channels.append(width)
        kernel = 3 if up == "nearest" else 1
        self.head = Conv["conv", dims](width, out_channels, kernel, padding=kernel // 2)
        set_norm(self, norm)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of the pyramid, fine to coarse → (b, out_channels, *input spatial)."""
        *_, finest = self.levels(maps)
        return self.finish(finest)

    def levels(self, maps: Sequence[Tensor]) -> Iterator[Tensor]:
        """What each block makes, coarse to fine; a level is computed when it is asked for."""
        x = maps[-1]
        skips = list(maps[-2::-1]) if self.skips else []
        for i, block in enumerate(self.blocks):
            joined = (x, skips[i]) if i < len(skips) else (x,)
            run = partial(in_safe_precision, block, min(x.shape[2:]))
            x = recomputed(self, run, *joined) if self.recompute else run(*joined)
            yield x

    def finish(self, finest: Tensor) -> Tensor:
        """The image, from the finest level."""
        x = self.head(finest)
        return torch.sigmoid(x) if self.sigmoid else x


def decoder_for(
    config: ModelConfig,
    encoder: Pyramid,
    *,
    skips: bool = True,
    head: Literal["auto", "linear", "sigmoid"] = "auto",
) -> Decoder:
    """The decoder that rebuilds images of ``config`` from the maps of ``encoder``, as the papers of PCRL build it.

    ``head="auto"``: sigmoid in 3D where images lie in [0, 1], else linear.
    """
    bounded = config.dims == 3 and config.value_range[0] >= 0 and config.value_range[1] <= 1
    end: Any = ("sigmoid" if bounded else "linear") if head == "auto" else head
    up: Any = "transposed" if config.encoder == "poolunet" else "nearest"
    shape = (encoder.channels, encoder.strides, config.dims, config.channels)
    return Decoder(*shape, skips=skips, head=end, up=up, norm=config.norm)


def rebuilt_beside(model: Any, view: Tensor, target: Tensor) -> dict[str, Tensor]:
    """``view`` (b, C, *s), its ``target``, and what ``model.decoder`` makes of ``model.encoder``'s maps of it."""
    with evaluating(model):
        rebuilt = model.decoder(model.encoder(view))
    return {"view": view, "target": target, "rebuilt": rebuilt}


class LevelImage(nn.Module):
    """An image from one level of a decoder, upsampled to full size: PCRLv2's intermediate restoration.

    2D: 3-convolution, norm, ReLU, 1-convolution. 3D: 3-convolution, norm. Then a sigmoid where ``bounded``.
    """

    def __init__(self, channels: int, out_channels: int, dims: int, *, bounded: bool, norm: NormName = "batch") -> None:
        super().__init__()
        conv, normal = Conv["conv", dims], Norm["batch", dims]
        middle = channels if dims == 2 else out_channels
        self.layers = nn.Sequential(conv(channels, middle, 3, padding=1), normal(middle))
        if dims == 2:
            self.layers.extend([nn.ReLU(inplace=True), conv(middle, out_channels, 1)])
        self.bounded, self.mode = bounded, "bilinear" if dims == 2 else "trilinear"
        set_norm(self, norm)

    def forward(self, level: Tensor, size: Sequence[int]) -> Tensor:
        """(b, channels, *coarse) → (b, out_channels, *size)."""
        x = in_safe_precision(self.layers, min(level.shape[2:]), level)
        return F.interpolate(torch.sigmoid(x) if self.bounded else x, size=tuple(size), mode=self.mode)


class _Up(nn.Module):
    def __init__(self, before: int, skip: int, after: int, factor: tuple[int, ...], dims: int, up: str) -> None:
        super().__init__()
        conv, norm = Conv["conv", dims], Norm["batch", dims]
        self.factor = [float(f) for f in factor]
        self.up = Conv["convtrans", dims](before, before, factor, stride=factor) if up == "transposed" else None
        self.convs = nn.Sequential(
            conv(before + skip, after, 3, padding=1, bias=False),
            norm(after),
            nn.ReLU(inplace=True),
            conv(after, after, 3, padding=1, bias=False),
            norm(after),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = F.interpolate(x, scale_factor=self.factor, mode="nearest") if self.up is None else self.up(x)
        return self.convs(x if skip is None else torch.cat([x, skip], dim=1))
