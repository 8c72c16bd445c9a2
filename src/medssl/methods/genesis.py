"""Models Genesis, generic autodidactic models for 3D medical image analysis (Zhou et al., MICCAI 2019, MedIA 2021).

arXiv:1908.06912. An image is changed in its grey values, in its fine texture and in parts of its content; an encoder
and a decoder with skips restore it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from medssl.config import ModelConfig, from_table
from medssl.contract import Batch, Method, Shared, Term, Views
from medssl.errors import UserError
from medssl.losses.reconstruction import rebuild_error
from medssl.networks.decoder import decoder_for, rebuilt_beside
from medssl.networks.pyramid import Pyramid, build_encoder, check_patch
from medssl.networks.weights import weights_from
from medssl.rng import Rng
from medssl.views import corrupt, intensity
from medssl.views.pair import PairConfig, region_for
from medssl.views.pose import clean_view


@dataclass(frozen=True, kw_only=True)
class GenesisConfig(ModelConfig):
    """Models Genesis' options; defaults are the published code's."""

    bezier_p: float = 0.9
    """Probability of a non-linear, monotone change of grey values; half of them exchange dark and bright."""
    shuffle_p: float = 0.5
    """Probability of shuffling voxels within small cells."""
    paint_p: float = 0.9
    """Probability of in- or out-painting."""
    paint_inner: float = 0.2
    """Share of in-painting among paintings."""
    mirror: bool = True
    """Inputs may be mirrored: images left-right, volumes along every axis."""
    head: Literal["auto", "linear", "sigmoid"] = "auto"
    """End of the decoder; auto: sigmoid in 3D where images lie in [0, 1], else linear."""

    def problems(self) -> list[UserError]:
        found = super().problems()
        shares = ("bezier_p", "shuffle_p", "paint_p", "paint_inner")
        found += self.refused(**{name: not 0 <= getattr(self, name) <= 1 for name in shares})
        return found + self.unreachable(self.head)


class Genesis(Method):
    """``Genesis(GenesisConfig(...))``, or its fields as keywords: ``Genesis(encoder="unet", dims=3, channels=1)``."""

    encoder: Pyramid

    # Networks -------------------------------------------------------------------------------------------------

    def __init__(self, config: GenesisConfig | None = None, /, **options: Any) -> None:
        super().__init__()
        self.config = config = from_table(GenesisConfig, options) if config is None else config
        with weights_from(config.seed):
            self.encoder = build_encoder(config)
            check_patch(self.encoder, config.size)
            self.decoder = decoder_for(config, self.encoder, head=config.head)
        self._pairs = PairConfig.for_size(config.size, config.value_range, config.scan)

    # Views ----------------------------------------------------------------------------------------------------

    def region(self) -> tuple[int, ...]:
        return region_for(self._pairs)

    @torch.no_grad()
    def views(self, batch: Batch, rng: Rng) -> Views:
        # Paper and published code: cubes of one size, flipped with probability .4 an axis.
        # Ours: the crop, rotation and flips of PCRL's first view, so that arms differ by their objective (ADR 0012).
        config, n = self.config, len(batch)
        clean = clean_view(batch.normalised(), self._pairs, rng, config.mirror)
        size, edge = config.size, self._pairs.shuffle_edge
        x = corrupt.apply_shuffle(
            clean, corrupt.sample_shuffle(rng, "genesis/shuffle", n, size, config.shuffle_p, edge)
        )
        bezier = intensity.sample_bezier(rng, "genesis/bezier", n, config.bezier_p)
        x = intensity.apply_bezier(x, bezier, config.value_range)
        kind = corrupt.sample_paint_kind(rng, "genesis/paint", n, config.paint_p, config.paint_inner)
        paint = corrupt.sample_paint(rng, "genesis/paint", n, size, kind)
        return Views({"x1": corrupt.apply_paint(x, paint, config.value_range), "target1": clean})

    # Objective ------------------------------------------------------------------------------------------------

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        """‖D(f(g(x))) − x‖², the mean over all voxels, skips included; g is the chain of changes."""
        shared = Shared(self.encoder(views["x1"]))
        yield Term("rebuild", rebuild_error(self.decoder(shared.maps), views["target1"]), shared)
        yield shared

    # Report ---------------------------------------------------------------------------------------------------

    def rebuild_samples(self, views: Views) -> dict[str, Any]:
        """What the report shows: (b, C, *s) view, target, rebuilt."""
        return rebuilt_beside(self, views["x1"], views["target1"])
