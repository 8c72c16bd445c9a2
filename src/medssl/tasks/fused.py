"""Several modalities in one task: an encoder each, and at every level the mean of the maps of those that are there.

A mean over what is present takes any subset, in any order, and one modality alone is the plain task. A tower sees the
samples that have its modality and no others, so nothing that stands in for a missing scan reaches its statistics.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medssl.contract import Batch
from medssl.networks.pyramid import Pyramid, build_encoder
from medssl.rng import Rng
from medssl.tasks.task import TaskConfig


class Towers(Pyramid):
    """Encoders of one architecture, seen from outside as one; ``towers`` are in the order of the modalities."""

    def __init__(self, towers: Sequence[Pyramid]) -> None:
        super().__init__()
        self.towers = nn.ModuleList(towers)
        first = towers[0]
        self.dims, self.channels, self.strides, self.stem = first.dims, first.channels, first.strides, ()

    def forward(self, x: Tensor, present: Tensor | None = None) -> list[Tensor]:  # type: ignore[override]
        """(b, M·C, *spatial), present (b, M) bool, by default all → maps (b, channels[l], *spatial / strides[l]).

        Every sample needs a modality that is present; voxels of absent ones are never looked at.
        """
        count = len(self.towers)
        if present is None:
            present = torch.ones(len(x), count, dtype=torch.bool, device=x.device)
        images = x.unflatten(1, (count, -1))  # (b, M, C, *s)
        total: list[Tensor] = []
        for m, tower in enumerate(self.towers):
            rows = present[:, m].nonzero()[:, 0].to(x.device)
            if len(rows):
                maps = [_placed(f, rows, len(x)) for f in self._maps(tower, images[:, m], rows)]
                total = [t + f for t, f in zip(total, maps, strict=True)] if total else maps
        share = present.sum(1).clamp_min(1).to(x.device)  # (b,)
        return [t / share.view(-1, 1, *(1,) * self.dims).to(t.dtype) for t in total]

    def _maps(self, tower: nn.Module, images: Tensor, rows: Tensor) -> list[Tensor]:
        """The maps of the samples ``rows``. In training a lone sample goes twice: the normalisation of a batch of
        one has nothing to average over where the coarsest map is one position, and two equal ones change no mean."""
        chosen = images if len(rows) == len(images) else images[rows]
        if self.training and len(rows) == 1:
            return [f[:1] for f in tower(torch.cat([chosen, chosen]))]
        return list(tower(chosen))


def _placed(maps: Tensor, rows: Tensor, count: int) -> Tensor:
    """(count, …) with ``maps`` at ``rows`` and zero elsewhere."""
    if len(rows) == count:
        return maps
    return maps.new_zeros(count, *maps.shape[1:]).index_copy(0, rows, maps)


def make_encoder(config: TaskConfig) -> Pyramid:
    """The encoder of a task, or one for each of its modalities."""
    if not config.modalities:
        return build_encoder(config)
    return Towers([build_encoder(config) for _ in config.modalities])


def drop(present: Tensor, chance: Tensor, rate: float) -> Tensor:
    """Present (b, M) bool without those whose ``chance`` (b, M) in [0, 1) is below ``rate``; one always stays."""
    kept = present & (chance >= rate)
    last = torch.where(present, chance, -1.0).argmax(1, keepdim=True)  # the last that would go
    return kept.scatter(1, last, True) & present


def draw_present(config: TaskConfig, batch: Batch, rng: Rng) -> dict[str, Any]:
    """What views say of the modalities: those that the batch has, some of them left out. Nothing for a plain batch."""
    if batch.present is None:
        return {}
    chance = torch.from_numpy(rng.uniform("augment/modalities", *batch.present.shape)).float()
    return {"present": drop(batch.present, chance.to(batch.present.device), config.modality_dropout)}
