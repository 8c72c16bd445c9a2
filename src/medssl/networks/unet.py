"""U-Net pyramids: nnU-Net's encoders from MONAI's dynamic U-Net blocks, and the pooling U-Net of the PCRL paper."""

from collections.abc import Callable

from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn

from medssl.config import ModelConfig
from medssl.networks.norms import set_norm
from medssl.networks.pyramid import Pyramid


class UNetPyramid(Pyramid):
    """A chain of blocks, each half as fine and twice as wide as the one before; the first keeps the resolution."""

    stem = ("blocks.0",)

    def __init__(self, blocks: list[nn.Module], channels: list[int], config: ModelConfig) -> None:
        super().__init__()
        self.dims = config.dims
        self.channels = tuple(channels)
        self.strides = tuple((2**level,) * config.dims for level in range(len(channels)))
        self.blocks = nn.ModuleList(blocks)
        set_norm(self, config.norm)

    def levels(self) -> list[Callable[[Tensor], Tensor]]:
        return list(self.blocks)


def unet(config: ModelConfig) -> UNetPyramid:
    """Plain nnU-Net encoder: strided 3-convolutions, 32-64-128-256-512 by default."""
    return _dynamic(UnetBasicBlock, config)


def resunet(config: ModelConfig) -> UNetPyramid:
    """Residual nnU-Net encoder, 32-64-128-256-512 by default."""
    return _dynamic(UnetResBlock, config)


def poolunet(config: ModelConfig) -> UNetPyramid:
    """The 3D U-Net of the PCRL paper: max-pooling, 64-128-256-512 by default, first convolution of half width."""
    dims, widths = config.dims, [(config.width or 64) * 2**level for level in range(4)]
    conv, norm, pool = Conv["conv", dims], Norm["batch", dims], Pool["max", dims]

    def block(before: int, width: int, first: bool) -> nn.Module:
        half = width // 2
        layers = [] if first else [pool(2)]
        layers += [conv(before, half, 3, padding=1), norm(half), nn.ReLU(inplace=True)]
        layers += [conv(half, width, 3, padding=1), norm(width), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    inputs = [config.channels, *widths[:-1]]
    blocks = [block(b, w, i == 0) for i, (b, w) in enumerate(zip(inputs, widths, strict=True))]
    return UNetPyramid(blocks, widths, config)


def _dynamic(block: type[UnetBasicBlock | UnetResBlock], config: ModelConfig) -> UNetPyramid:
    widths = [(config.width or 32) * 2**level for level in range(5)]
    inputs = [config.channels, *widths[:-1]]
    blocks: list[nn.Module] = [
        block(config.dims, before, width, kernel_size=3, stride=1 if i == 0 else 2, norm_name="batch")
        for i, (before, width) in enumerate(zip(inputs, widths, strict=True))
    ]
    return UNetPyramid(blocks, widths, config)
