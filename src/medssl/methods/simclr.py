"""SimCLR, a simple framework for contrastive learning of visual representations (Chen et al., ICML 2020).

arXiv:2002.05709. Two views of one image shall have like features, views of different images unlike ones; the other
images of the batch are the negatives, so the batch must be large.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medssl import distributed
from medssl.config import ModelConfig, from_table
from medssl.contract import Batch, Method, Shared, Term, Views
from medssl.errors import UserError
from medssl.losses.contrastive import nt_xent, strangers, unit
from medssl.networks.cached import Cached
from medssl.networks.heads import Projector, pool
from medssl.networks.pyramid import Pyramid, build_encoder, check_patch
from medssl.networks.weights import weights_from
from medssl.rng import Rng
from medssl.views.pair import PairConfig, make_pair, region_for
from medssl.views.pose import before_turn


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig(ModelConfig):
    """SimCLR's options; defaults are the paper's unless they say otherwise."""

    temperature: float = 0.1
    """Temperature of the contrast; .1 to .5 are usual."""
    mirror: bool = True
    """Inputs may be mirrored: images left-right, volumes along every axis."""
    view_strength: float = 1.0
    """How far views may differ from the image, 0 to 1 (as published): crops, rotation, tone, blur, holes, painting."""
    embed_dim: int = 128
    """Length of the vectors that are contrasted."""

    def problems(self) -> list[UserError]:
        return super().problems() + self.refused(
            temperature=self.temperature <= 0,
            view_strength=not 0 <= self.view_strength <= 1,
            embed_dim=self.embed_dim < 1,
        )


class SimCLR(Method):
    """``SimCLR(SimCLRConfig(...))``, or its fields as keywords: ``SimCLR(encoder="resnet18", dims=2, channels=1)``."""

    encoder: Pyramid
    coupled = "its negatives are the other images of the batch"
    cached = True

    # Networks -------------------------------------------------------------------------------------------------

    def __init__(self, config: SimCLRConfig | None = None, /, **options: Any) -> None:
        super().__init__()
        self.config = config = from_table(SimCLRConfig, options) if config is None else config
        with weights_from(config.seed):
            self.encoder = build_encoder(config)
            check_patch(self.encoder, config.size)
            # Paper: FC, ReLU, FC, as wide as the features, then 128. Published code: batch norm after each FC.
            # Ours: the paper's.
            width = self.encoder.channels[-1]
            self.projector = Projector(width, hidden=width, out=config.embed_dim)
        self._pairs = PairConfig.for_size(config.size, config.value_range, config.scan, config.view_strength)

    # Views ----------------------------------------------------------------------------------------------------

    def region(self) -> tuple[int, ...]:
        return region_for(self._pairs)

    @torch.no_grad()
    def views(self, batch: Batch, rng: Rng) -> Views:
        # Paper: crops, colour distortion, blur of photographs. Published code: the same.
        # Ours: the views of PCRL to the bit, so that arms of a study differ by their objective only (ADR 0012).
        pair = before_turn(make_pair(batch.normalised(), self._pairs, rng), rng, self.config.mirror)
        return Views({"x1": pair.x1, "x2": pair.x2}, {"item": batch.item, "patient": batch.patient})

    # Objective ------------------------------------------------------------------------------------------------

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        """ℓ(i,j) = −log( e^{sim(z_i, z_j)/τ} / Σ_{k≠i} e^{sim(z_i, z_k)/τ} ), mean over both views of all images (1).

        z = head(pool(f(x))); both views go through f as one batch, as published.
        """
        cached = Cached(self.encoder, torch.cat([views["x1"], views["x2"]]), 2 * self.chunk)
        first, second = unit(self.projector(pool(cached.maps[-1]))).chunk(2)
        yield Term("contrast", self._contrast(first, second, views), cached.whole)
        yield from (shared for _, shared in cached.again())

    def _contrast(self, first: Tensor, second: Tensor, views: Views) -> Tensor:
        # Paper and published code: every other image is a negative, of all ranks.
        # Ours: of all ranks too, but another image of the same patient is none.
        others = distributed.gather_rows(first), distributed.gather_rows(second)
        items, patients = (distributed.gather(views[name]) for name in ("item", "patient"))
        allowed = strangers(views["item"], views["patient"], items, patients)
        return nt_xent(first, second, others, allowed, self.config.temperature)

    # Report ---------------------------------------------------------------------------------------------------

    def rebuild_samples(self, views: Views) -> dict[str, Any]:
        """What the report shows: (b, C, *s) both views of each image."""
        return {"view": views["x1"], "other": views["x2"]}
