"""PCRLv2, a unified visual information preservation framework (Zhou et al., TPAMI 2023, arXiv:2301.00772).

No teacher, no queue: one network, a decoder without skips. Each level of the decoder keeps information of one scale,
so at each an image is rebuilt (pixels), two large views agree (semantics), and small views agree with large ones
(scales). The parts of the objective are numbered in ``PCRLv2.losses``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medssl.config import ModelConfig, from_table
from medssl.contract import Batch, Method, Shared, Term, Views
from medssl.errors import UserError
from medssl.losses.contrastive import simsiam
from medssl.losses.reconstruction import rebuild_error
from medssl.networks.decoder import LevelImage, decoder_for, rebuilt_beside
from medssl.networks.heads import Comparer
from medssl.networks.pyramid import Pyramid, build_encoder, check_patch
from medssl.networks.weights import weights_from
from medssl.rng import Rng
from medssl.views.pair import PairConfig, make_pair, region_for
from medssl.views.parts import make_parts
from medssl.views.pose import before_turn
from medssl.views.turn import unturn

PUBLISHED = 64 * 64 * 32  # voxels of a large view in 3D
PARTS = (8**3 / PUBLISHED, 32**3 / PUBLISHED)  # smallest and largest published part, in large views


@dataclass(frozen=True, kw_only=True)
class PCRLv2Config(ModelConfig):
    """PCRLv2's options; defaults are the paper's unless they say otherwise."""

    parts: int = 6
    """Small views of each image, compared with both large ones; 0 leaves them out."""
    part_patch: tuple[int, ...] = ()
    """Spatial size of a small view; by default 96 of 224 pixels of each side, or in 3D a cube of a quarter of the
    longest side, both up to the next multiple of the encoder's stride."""
    mirror: bool = True
    """Inputs may be mirrored: images left-right, volumes along every axis."""
    head: Literal["auto", "linear", "sigmoid"] = "auto"
    """End of the decoder; auto: sigmoid in 3D where images lie in [0, 1], else linear."""

    def problems(self) -> list[UserError]:
        found = super().problems() + self.refused(parts=self.parts < 0) + self.unreachable(self.head)
        if self.part_patch and len(self.part_patch) != self.dims:
            found.append(UserError(f"part_patch {self.part_patch}", fix=f"give {self.dims} numbers"))
        return found


class PCRLv2(Method):
    """``PCRLv2(PCRLv2Config(...))``, or its fields as keywords: ``PCRLv2(encoder="resnet18", dims=2, channels=1)``."""

    encoder: Pyramid
    least = 2  # comparers end in batch norm of rows, which has nothing to average over in one

    # Networks -------------------------------------------------------------------------------------------------

    def __init__(self, config: PCRLv2Config | None = None, /, **options: Any) -> None:
        super().__init__()
        self.config = config = from_table(PCRLv2Config, options) if config is None else config
        with weights_from(config.seed):
            # Published code: the 2D encoder starts from ImageNet weights, unsaid. Ours: from random ones.
            self.encoder = encoder = build_encoder(config)
            self.part_size = tuple(config.part_patch) or part_size(config.size, encoder.strides[-1], config.norm)
            for size in (config.size, self.part_size):
                check_patch(encoder, size)
            self.decoder = decoder = decoder_for(config, encoder, skips=False, head=config.head)
            ends: dict[str, Any] = {"bounded": decoder.sigmoid, "norm": config.norm}
            shape = config.channels, config.dims
            self.images = nn.ModuleList(LevelImage(width, *shape, **ends) for width in decoder.channels)
            self.comparers = nn.ModuleList(Comparer(width) for width in decoder.channels)
        changes: dict[str, Any] = {"scale": (0.3, 1.0)} if config.dims == 2 else {"min_iou": 0.3}
        self._pairs = PairConfig.for_size(config.size, config.value_range, config.scan, **changes)
        shares = (0.05, 0.3) if config.dims == 2 else tuple(part / self._pairs.reach**3 for part in PARTS)
        self._parts: dict[str, Any] = {
            "size": self.part_size,
            "scale": shares,
            "near": config.dims == 3,
            "mirror": config.mirror,
        }

    # Views ----------------------------------------------------------------------------------------------------

    def region(self) -> tuple[int, ...]:
        return region_for(self._pairs)

    @torch.no_grad()
    def views(self, batch: Batch, rng: Rng) -> Views:
        # Paper: cutout (2D) or swapped blocks (3D) in the large views, none in the small; targets before both.
        # Ours: the same order; how grey values change and content is taken away is PCRL's pair (ADR 0012).
        count, mirror, image = self.config.parts, self.config.mirror, batch.normalised()
        pair = before_turn(make_pair(image, self._pairs, rng), rng, mirror)
        parts = make_parts(image, self._pairs, rng, count=count, **self._parts)
        images = {"x1": pair.x1, "x2": pair.x2, "target1": unturn(pair.clean1, pair.t1)}
        images |= {f"part{k}": part for k, part in enumerate(parts, start=1)}
        # A level for the large views, then one for each pair of a small and a large view; the same on all ranks.
        levels = rng.batch("pcrlv2/levels").integers(len(self.decoder.channels), size=1 + 2 * count)
        return Views(images, {"levels": tuple(levels.tolist())})

    # Objective ------------------------------------------------------------------------------------------------

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        """Rebuild and compare on the levels of D(f(x)) that this step drew: l, and l_1 … l_12.

        (1) rebuild: D(f(x1)) → target, the clean x1
        (2) rebuild_level: β · image_l(D_l(f(x1))) → target, β = ½·(1 + cos(π·progress))
        (3) compare: −½·[cos(p1, sg z2) + cos(p2, sg z1)] at level l
        (4) compare_parts: the same between each small and each large view, a level each; the mean of the 12.
        """
        if len(views["x1"]) < self.least:
            raise UserError("one image a step", "--batch", "give 2 or more: pcrlv2 compares after batch norm")
        level, *others = views["levels"]
        first = Shared(self._levels(views["x1"], len(self.decoder.channels)))
        yield Term("rebuild", rebuild_error(self.decoder.finish(first.maps[-1]), views["target1"]), first)
        # Published code: β falls over 240 epochs, whatever the run's length. Ours: over the run.
        beta = 0.5 * (1 + math.cos(math.pi * progress))
        image = self.images[level](first.maps[level], self.config.size)
        yield Term("rebuild_level", beta * rebuild_error(image, views["target1"]), first)
        second = Shared(self._levels(views["x2"], 1 + max(views["levels"])))
        (z1, p1), (z2, p2) = (self.comparers[level](large.maps[level]) for large in (first, second))
        yield Term("compare", simsiam(p1, z1, p2, z2), first)
        if others:
            small = torch.cat([views[f"part{k}"] for k in range(1, 1 + self.config.parts)])
            parts = Shared(self._levels(small, 1 + max(others)))
            yield Term("compare_parts", self._compare_parts((first, second), parts, others), first)
            yield parts
        yield second
        yield first

    def _levels(self, x: Tensor, count: int) -> list[Tensor]:
        """The first ``count`` levels of the decoder, coarse to fine; finer ones are not computed."""
        return list(islice(self.decoder.levels(self.encoder(x)), count))

    def _compare_parts(self, large: Sequence[Shared], parts: Shared, drawn: Sequence[int]) -> Tensor:
        seen: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

        def compared(view: int, level: int) -> tuple[Tensor, Tensor]:
            if (view, level) not in seen:
                seen[view, level] = self.comparers[level]((*large, parts)[view].maps[level])
            return seen[view, level]

        total: Tensor | float = 0.0
        for i, level in enumerate(drawn):
            part, view = divmod(i, 2)
            z, p = compared(view, level)
            small_z, small_p = (x.chunk(self.config.parts)[part] for x in compared(2, level))
            total = total + simsiam(p, z, small_p, small_z)
        return total / len(drawn)  # type: ignore[return-value]

    # Report ---------------------------------------------------------------------------------------------------

    def rebuild_samples(self, views: Views) -> dict[str, Any]:
        """What the report shows: (b, C, *s) view, target, rebuilt."""
        return rebuilt_beside(self, views["x1"], views["target1"])


def part_size(size: Sequence[int], stride: Sequence[int], norm: str) -> tuple[int, ...]:
    """Published: 96 of 224 pixels; 16³ of 64×64×32 voxels. Up to the next multiple of ``stride``, within ``size``."""
    least = 2 if norm == "instance" else 1  # it needs more than one position to normalise over
    wanted = [n * 96 / 224 for n in size] if len(size) == 2 else [max(size) * 16 / 64] * 3
    steps = (max(least, math.ceil(round(w / s, 6))) for w, s in zip(wanted, stride, strict=True))
    return tuple(min(n, k * s) for n, k, s in zip(size, steps, stride, strict=True))
