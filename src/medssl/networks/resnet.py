"""ResNet pyramids: MONAI's network itself, so that its weights load elsewhere under the same names."""

from collections.abc import Callable

from monai.networks.nets.resnet import ResNet
from torch import Tensor

from medssl.config import ModelConfig
from medssl.networks.norms import set_norm
from medssl.networks.pyramid import Pyramid

DEFAULT_WIDTH = 64


class ResNetPyramid(Pyramid, ResNet):
    """Five levels: the stem at stride 2, then the four stages at 4, 8, 16, 32.

    Equal to ``monai.networks.nets.resnetN(conv1_t_stride=2, feed_forward=False)`` up to the pooling at its end.
    """

    stem = ("conv1", "bn1")

    def __init__(self, block: str, layers: list[int], config: ModelConfig) -> None:
        width = config.width or DEFAULT_WIDTH
        planes = [width, width * 2, width * 4, width * 8]
        ResNet.__init__(
            self,
            block,
            layers,
            planes,
            spatial_dims=config.dims,
            n_input_channels=config.channels,
            conv1_t_stride=2,  # type: ignore[arg-type]
            feed_forward=False,
        )
        self.dims = config.dims
        self.channels = (width, *(p * (4 if block == "bottleneck" else 1) for p in planes))
        self.strides = tuple((s,) * config.dims for s in (2, 4, 8, 16, 32))
        set_norm(self, config.norm)

    def levels(self) -> list[Callable[[Tensor], Tensor]]:
        def stem(x: Tensor) -> Tensor:
            return self.act(self.bn1(self.conv1(x)))

        def first(x: Tensor) -> Tensor:
            return self.layer1(self.maxpool(x))

        return [stem, first, self.layer2, self.layer3, self.layer4]

    def forward(self, x: Tensor, keep: Tensor | None = None) -> list[Tensor]:  # type: ignore[override]
        return Pyramid.forward(self, x, keep)


def resnet18(config: ModelConfig) -> ResNetPyramid:
    """ResNet-18."""
    return ResNetPyramid("basic", [2, 2, 2, 2], config)


def resnet34(config: ModelConfig) -> ResNetPyramid:
    """ResNet-34."""
    return ResNetPyramid("basic", [3, 4, 6, 3], config)


def resnet50(config: ModelConfig) -> ResNetPyramid:
    """ResNet-50."""
    return ResNetPyramid("bottleneck", [3, 4, 6, 3], config)
