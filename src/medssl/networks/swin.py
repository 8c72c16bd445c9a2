"""Swin transformer of Swin-UNETR: MONAI's network itself, so that its weights load elsewhere under the same names."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import Tensor

from medssl.config import ModelConfig
from medssl.networks.pyramid import Pyramid

DEFAULT_WIDTH = 48
DEPTHS = (2, 2, 2, 2)
HEADS = 3  # of the first stage; they double with the width
WINDOW = 7


class SwinPyramid(Pyramid, SwinTransformer):
    """Five levels: the tokens of 2-voxel patches, then four stages of shifted windows at strides 4, 8, 16, 32.

    Equal to ``SwinTransformer(channels, 48, (7,)*dims, (2,)*dims, (2, 2, 2, 2), (3, 6, 12, 24), spatial_dims=dims)``
    (arXiv:2201.01266). A token is normalised over its own channels (LayerNorm) whatever ``norm`` says: that layer is
    part of every block, and ``norm`` is then the decoder's alone. Widths that three heads do not divide have two, or
    one. Windows shrink to maps smaller than 7; weights do not depend on the size of the crop.
    """

    # Paper: a merge joins 2³ tokens. Published code: in 3D it takes two of the eight twice and leaves two out.
    # Ours: the published code, since weights that load elsewhere must mean the same there.

    stem = ("patch_embed",)

    def __init__(self, config: ModelConfig) -> None:
        width, dims = config.width or DEFAULT_WIDTH, config.dims
        heads = next(n for n in (HEADS, 2, 1) if width % n == 0)
        device = torch.get_default_device()
        with torch.device("cpu"):  # MONAI reads numbers from tensors while it builds; the meta device has none
            SwinTransformer.__init__(
                self,
                config.channels,
                width,
                (WINDOW,) * dims,
                (2,) * dims,
                DEPTHS,
                tuple(heads * 2**stage for stage in range(len(DEPTHS))),
                spatial_dims=dims,
            )
        self.to(device)
        self.dims = dims
        self.channels = tuple(width * 2**level for level in range(5))
        self.strides = tuple((s,) * dims for s in (2, 4, 8, 16, 32))

    def levels(self) -> list[Callable[[Tensor], Tensor]]:
        stages = [self.layers1, self.layers2, self.layers3, self.layers4]
        return [self.patch_embed, *(stage[0] for stage in stages)]

    def shown(self, x: Tensor) -> Tensor:
        """Tokens normalised over their channels, without weights, as Swin-UNETR's decoder gets them."""
        return F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> list[Tensor]:  # type: ignore[override]
        return Pyramid.forward(self, x, keep)


def swin(config: ModelConfig) -> SwinPyramid:
    """Swin transformer of Swin-UNETR, 48-96-192-384-768 by default."""
    return SwinPyramid(config)
