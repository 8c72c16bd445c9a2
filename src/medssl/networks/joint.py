"""One space for several modalities: a tower and a head for each, and for what stands beside the images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.errors import UserError
from medssl.networks.cached import Cached, chunked
from medssl.networks.heads import Projector, pool, pool_within
from medssl.networks.local import per_tower
from medssl.networks.pyramid import Pyramid
from medssl.networks.text import build_tower, check_text
from medssl.networks.towers import Towers, image_towers


@dataclass(frozen=True)
class Encoded:
    """Samples of one modality: their rows in the batch, their encode, and the levels that were asked for."""

    rows: Tensor
    cached: Cached
    maps: dict[int, Tensor]

    @property
    def coarsest(self) -> Tensor:
        """The last level."""
        return self.cached.maps[-1]


Encodes = dict[int, Encoded]  # by the number of the modality


class JointSpace(nn.Module):
    """Towers and projection heads; vectors are (n, embed_dim), not yet of unit length."""

    def __init__(self, config: Any, kinds: Towers) -> None:
        super().__init__()
        self.kinds, self.out = kinds, config.embed_dim
        towers = image_towers([replace(config, encoder=name) for name in kinds.encoders], config.share)
        head = partial(Projector, hidden=self.out, out=self.out)
        self.towers = nn.ModuleList(towers)
        self.heads = per_tower(towers, [partial(head, tower.channels[-1]) for tower in towers])
        self.text: Any = None if kinds.kind is None else build_tower(kinds.kind)
        self.text_head = None if self.text is None else head(self.text.channels[-1])

    @property
    def pyramids(self) -> list[Pyramid]:
        """The image towers, a modality each."""
        return list(self.towers)  # type: ignore[arg-type]

    def encodes(self, x: Tensor, codes: Sequence[int], chunk: int, levels: Sequence[int] = ()) -> Encodes:
        """The maps of a flat batch, modality by modality; of each tower's ``levels`` too, where they are given."""
        # One pass a modality: batch norm never sees two modalities at once. Of a tower that several share, its running
        # statistics, which are used later, still mix them.
        found = {}
        for code, tower in enumerate(self.pyramids):
            rows = torch.tensor([i for i, c in enumerate(codes) if c == code], device=x.device)
            if len(rows):
                self._refuse_one(code, x, len(rows), chunk)
                keep = sorted({len(tower.channels) - 1, *levels[code : code + 1]})
                cached = Cached(tower, x[rows], chunk, keep)
                found[code] = Encoded(rows, cached, dict(zip(keep, cached.maps, strict=True)))
        return found

    def _refuse_one(self, code: int, x: Tensor, n: int, chunk: int) -> None:
        """Batch norm has nothing to average over where one sample's coarsest map is one position."""
        tower = self.pyramids[code]
        sizes = [part.stop - part.start for part in chunked(n, chunk)]
        if not (1 in sizes and self.training and any(isinstance(m, _BatchNorm) for m in tower.modules())):
            return
        if all(side == stride for side, stride in zip(x.shape[2:], tower.strides[-1], strict=True)):
            what = f"one sample of '{self.kinds.names[code]}' at once, of the smallest patch"
            raise UserError(what, "--batch", "give more, or --norm instance, or a larger --patch, or another --chunk")

    def read(self, text: Tensor | None, chunk: int, words: bool) -> Cached | None:
        """The encode of the texts, with the level of their ``words`` where it is wanted; None without a tower."""
        if self.text is None or text is None:
            return None
        return Cached(self.text, text, chunk, (0, 1) if words else (-1,))

    def forward(self, encodes: Mapping[int, Encoded], text: Cached | None) -> Tensor:
        """Vectors of all images, modality by modality, then of the texts."""
        found = [self.heads[code](pool(encoded.coarsest)) for code, encoded in encodes.items()]
        if self.text_head is not None and text is not None:
            found.append(self.text_head(text.maps[-1]))
        return torch.cat(found)

    def within(
        self, encodes: Mapping[int, Encoded], mask: Tensor, sample: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Vectors of structures, ``label`` of the ``mask`` of ``sample`` (n,) each, modality by modality.

        And which of the n each is.
        """
        found, order = [], []
        for code, encoded in encodes.items():
            which, row = (sample[:, None] == encoded.rows).nonzero(as_tuple=True)
            features = pool_within(encoded.coarsest, mask[encoded.rows], row, label[which])
            found.append(self.heads[code](features))
            order.append(which)
        return torch.cat(found), torch.cat(order)

    def embed(self, name: str, rows: Tensor) -> Tensor:
        """Vectors of whole images, or of texts."""
        if name == self.kinds.beside:
            check_text(rows, self.text, name)
            return self.text_head(self.text(rows)[-1])  # type: ignore[misc]
        code = self.kinds.names.index(name)
        return self.heads[code](pool(self.towers[code](rows)[-1]))
