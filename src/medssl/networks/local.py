"""Heads of the local forms: features of single positions of a map, of regions, of words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medssl.networks.heads import Projector, at_cells, at_places
from medssl.networks.pyramid import Pyramid

CELLS = 64  # positions that a map should have at least


class VoxelHeads(nn.Module):
    """A head for each modality, on the coarsest map of its tower that has 64 positions or more, else its finest."""

    def __init__(self, towers: Sequence[Pyramid], size: Sequence[int], out: int) -> None:
        super().__init__()
        self.out = out
        self.levels = [_level(tower, size) for tower in towers]
        self.grids = [_grid(tower, size, level) for tower, level in zip(towers, self.levels, strict=True)]
        widths = [tower.channels[level] for tower, level in zip(towers, self.levels, strict=True)]
        self.heads = per_tower(towers, [lambda width=w: Projector(width, out, out) for w in widths])

    def forward(self, maps: Mapping[int, Tensor], meetings: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Features (n, out) at the anchors of all meetings: of the first view, and at the same place in the second."""
        query, key = [], []
        for met in meetings:
            first, second = (maps[code][rows] for code, rows in zip(met.codes, met.rows, strict=True))
            query.append(self.heads[met.codes[0]](at_cells(first, met.cells)))
            key.append(self.heads[met.codes[1]](at_places(second, met.there)))
        if not query:  # no row, but a graph and the heads' precision: every rank goes backward alike
            level = next(iter(maps.values()))
            none = level.new_zeros(0, self.out, dtype=torch.promote_types(level.dtype, torch.float32))
            none = none + sum(level.flatten()[:1].sum() * 0 for level in maps.values())
            return none, none
        return torch.cat(query), torch.cat(key)


class WordHeads(nn.Module):
    """Regions are the positions of the coarsest map; a head for each modality, one for the words."""

    def __init__(self, towers: Sequence[Pyramid], width: int, size: Sequence[int], out: int) -> None:
        super().__init__()
        self.out = out
        self.counts = [math.prod(_grid(tower, size, -1)) for tower in towers]
        widths = [tower.channels[-1] for tower in towers]
        self.heads = per_tower(towers, [lambda width=w: Projector(width, out, out) for w in widths])
        self.words = Projector(width, out, out)

    def regions(self, code: int, coarsest: Float[Tensor, "n c *s"] | None, words: Tensor) -> Float[Tensor, "n r d"]:
        """Features of all positions; no rows where the batch has no such image."""
        if coarsest is None:
            return words.new_zeros(0, self.counts[code], self.out) + words.sum() * 0
        spots = coarsest.flatten(2).transpose(1, 2)
        return self.heads[code](spots.flatten(0, 1)).unflatten(0, spots.shape[:2])

    def forward(self, words: Float[Tensor, "m l w"]) -> Float[Tensor, "m l d"]:
        """Features of the words."""
        return self.words(words.flatten(0, 1)).unflatten(0, words.shape[:2])


def per_tower(towers: Sequence[nn.Module], makers: Sequence[Any]) -> nn.ModuleList:
    """A module for each tower; towers that are one encoder have one module."""
    made: dict[int, nn.Module] = {}
    for tower, make in zip(towers, makers, strict=True):
        if id(tower) not in made:
            made[id(tower)] = make()
    return nn.ModuleList(made[id(tower)] for tower in towers)


def _level(tower: Pyramid, size: Sequence[int]) -> int:
    counts = [math.prod(_grid(tower, size, level)) for level in range(len(tower.strides))]
    return max((level for level, count in enumerate(counts) if count >= CELLS), default=0)


def _grid(tower: Pyramid, size: Sequence[int], level: int) -> tuple[int, ...]:
    return tuple(n // s for n, s in zip(size, tower.strides[level], strict=True))
