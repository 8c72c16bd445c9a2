"""A method of a few hundred weights that has all that the engine must serve: shared maps, dropout, state of its own."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from medssl.config import ModelConfig
from medssl.contract import Batch, Method, Shared, Term, Views
from medssl.rng import Rng, stream

SIDE = 16


class TinyEncoder(nn.Module):
    dims, channels, strides = 2, (4, 8), ((2, 2), (4, 4))

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(1, 4, 3, 2, 1)
        self.coarse = nn.Conv2d(4, 8, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.fine(x).relu()
        return [fine, self.coarse(fine).relu()]


class Tiny(Method):
    """Rebuilds a noisy image; ``poison`` makes one term NaN at one step."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.config = ModelConfig(patch=(SIDE, SIDE))
        self.encoder = TinyEncoder()
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(0.2 if norm else 0.0)
        self.decoder = nn.ConvTranspose2d(8, 1, 4, 4)
        self.register_buffer("average", torch.zeros(()))
        self.poison: int | None = None
        self.seen: list[dict[str, Any]] = []

    def region(self) -> tuple[int, ...]:
        return (SIDE, SIDE)

    def views(self, batch: Batch, rng: Rng) -> Views:
        images = batch.normalised()
        noise = torch.from_numpy(rng.normal("noise", len(images), *images.shape[1:])).float()
        return Views({"noisy": images + 0.1 * noise, "clean": images}, {"step": rng.step, "start": rng.start})

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        self.seen.append({"progress": progress, "autocast": torch.is_autocast_enabled("cpu"), **views.drawn})
        shared = Shared(self.encoder(views["noisy"]))
        features = self.norm(shared.maps[-1])
        rebuilt = self.decoder(self.dropout(features))
        yield Term("rebuild", (rebuilt.float() - views["clean"]).square().mean(), shared)
        small = 0.1 * shared.maps[-1].float().square().mean()
        yield Term("small", small * (torch.nan if views["step"] == self.poison else 1.0), shared)
        yield shared

    def after_step(self, progress: float) -> None:
        self.average.lerp_(self.decoder.bias.detach().mean(), 0.5)


def tiny_batches(start: int = 0, b: int = 4, first: int = 0, last: int | None = None) -> Iterator[Batch]:
    """Batches that depend on their step alone, from ``start`` on; a share of them for a rank."""
    step = start
    while True:
        images = torch.from_numpy(stream(0, "images", step).random((b, 1, SIDE, SIDE))).float()
        yield Batch.of(images[first:last])
        step += 1
