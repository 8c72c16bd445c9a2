"""DAE, Disruptive Autoencoders (Valanarasu et al., MIDL 2024, arXiv:2307.16896).

An encoder that can undo noise, lost resolution and missing features of an image knows its low-level structure. A crop
is disrupted three times, the last time within the encoder, and a decoder must rebuild it as it was. Beside that,
features may learn what the scan was taken with (``cmcl="discriminate"``, the paper's), or that scans of one patient
belong together whatever they were taken with (``cmcl="align"``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from medssl import distributed
from medssl.config import ModelConfig, OptimOptions, from_table
from medssl.contract import Batch, Method, Shared, Term, Views
from medssl.errors import UserError
from medssl.losses.align import align
from medssl.losses.contrastive import unit
from medssl.losses.discriminate import discriminate_bce, discriminate_supcon
from medssl.losses.reconstruction import absolute_error
from medssl.networks.decoder import Decoder
from medssl.networks.heads import Projector, pool
from medssl.networks.norms import evaluating
from medssl.networks.pyramid import Pyramid, build_encoder, check_patch
from medssl.networks.weights import weights_from
from medssl.rng import Rng
from medssl.views.disrupt import add_noise, coarsen, sample_kept
from medssl.views.noise import sample_seeds


@dataclass(frozen=True, kw_only=True)
class DAEConfig(ModelConfig):
    """DAE's options; defaults are the paper's unless they say otherwise."""

    # Paper: AdamW, 4e-4, decay 1e-5, 500 of 20000 steps of warm-up. Ours: the same.
    usual = OptimOptions(lr=4e-4, weight_decay=1e-5, warmup=0.025)

    noise: float = 0.1
    """Variance of the noise, for images in [0, 1]; its standard deviation grows with the value range. 0: none."""
    downsample: int = 4
    """How many times fewer voxels a side has after the loss of resolution; 1: none."""
    masking: float = 0.6
    """Share of the first level's channels that are zeroed: .6 in the paper's text, .4 best in its sweep. 0: none."""
    cmcl: Literal["none", "discriminate", "align"] = "none"
    """Across modalities: discriminate (the paper's) has features tell modalities apart, align has those of one patient
    agree. By default none, since most data sets have one modality only."""
    cmcl_form: Literal["bce", "supcon"] = "bce"
    """discriminate: binary cross-entropy over pairs (paper), or supervised contrast."""
    cmcl_weight: float = 0.004
    """Weight of that term; the paper's .05 belongs to another temperature convention (ADR 0013)."""
    temperature: float = 0.07
    """Temperature of that term; similarities are divided by it."""
    embed_dim: int = 128
    """Length of the vectors that are compared across modalities."""

    @property
    def objective(self) -> str:
        """What batches drawn by subject are for, in the words of the sampler's checks."""
        return self.cmcl

    def problems(self) -> list[UserError]:
        return super().problems() + self.refused(
            noise=self.noise < 0,
            downsample=self.downsample < 1,
            masking=not 0 <= self.masking < 1,
            cmcl_weight=self.cmcl_weight <= 0,
            temperature=self.temperature <= 0,
            embed_dim=self.embed_dim < 1,
        )


class DAE(Method):
    """``DAE(DAEConfig(...))``, or its fields as keywords: ``DAE(encoder="swin", dims=3, channels=1)``."""

    encoder: Pyramid

    # Networks -------------------------------------------------------------------------------------------------

    def __init__(self, config: DAEConfig | None = None, /, **options: Any) -> None:
        super().__init__()
        self.config = config = from_table(DAEConfig, options) if config is None else config
        self.needs_modality = self.paired = config.cmcl != "none"  # paired batches are balanced over modalities
        self.coupled = "it compares the samples of a batch across modalities" if self.paired else ""
        with weights_from(config.seed):
            self._build(config)

    def _build(self, config: DAEConfig) -> None:
        encoder = self.encoder = build_encoder(config)
        check_patch(encoder, config.size)
        # Paper: skips from the tokens on. Published code: also one from the image itself, past the masking.
        # Ours: skips from below full resolution only, all of them of masked features (ADR 0011).
        self._finest = next(level for level, stride in enumerate(encoder.strides) if max(stride) > 1)
        shape = encoder.channels[self._finest :], encoder.strides[self._finest :], config.dims, config.channels
        self.decoder = Decoder(*shape, up="transposed", norm=config.norm)
        if self.needs_modality:
            self.projector = Projector(encoder.channels[-1], out=config.embed_dim)

    def check_scans(self, modality: Tensor, patient: Tensor) -> None:
        """One modality has nothing to compare."""
        if self.needs_modality and len(modality.unique()) < 2:
            fix = "choose --cmcl none, or name modalities in the column 'modality' of `medssl index --table`"
            raise UserError(f"cmcl is {self.config.cmcl}, but all scans are of one modality", fix=fix)

    # Views ----------------------------------------------------------------------------------------------------

    def region(self) -> tuple[int, ...]:
        return self.config.size

    @torch.no_grad()
    def views(self, batch: Batch, rng: Rng) -> Views:
        """target: the crop; x: with noise, then coarser; keep (b, channels): what the encoder does not mask."""
        config, n, device = self.config, len(batch), batch.image.device
        target = x = batch.normalised()
        if config.noise > 0:
            span = config.value_range[1] - config.value_range[0]
            x = add_noise(x, sample_seeds(rng, "dae/noise", n), config.noise**0.5 * span)
        if config.downsample > 1:
            x = coarsen(x, config.downsample)
        drawn: dict[str, Any] = {"modality": batch.modality, "patient": batch.patient}
        drawn["subject"] = batch.patient if batch.subject is None else batch.subject
        # Paper: channels of the tokens. Published code: a view read (B, D, H, W, C) as (B, C, D, H, W), so that whole
        # slabs of the depth axis were zeroed. Ours: channels, the same at every position (ADR 0011).
        drawn["keep"] = sample_kept(rng, "dae/mask", n, self.encoder.channels[0], config.masking).to(device)
        return Views({"x": x, "target": target}, drawn)

    # Objective ------------------------------------------------------------------------------------------------

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        """L1(D(F), crop) + α · CMCL(head(pool(F))), with F the maps of the disrupted crop."""
        shared = Shared(self.encoder(views["x"], views["keep"]))
        yield Term("rebuild", absolute_error(self._rebuild(shared.maps), views["target"]), shared)
        if self.needs_modality:
            z = self.projector(pool(shared.maps[-1]))
            yield Term("cmcl", self.config.cmcl_weight * self._across(z, views), shared)
        yield shared

    def _rebuild(self, maps: list[Tensor]) -> Tensor:
        return self.decoder(maps[self._finest :])

    def _across(self, z: Tensor, views: Views) -> Tensor:
        """CMCL over the batches of all ranks."""
        z, modality, subject, patient = (
            distributed.gather_rows(x) for x in (z, views["modality"], views["subject"], views["patient"])
        )
        temperature = self.config.temperature
        if self.config.cmcl == "align":
            return align(unit(z), modality, subject, temperature, same=[patient])
        form = discriminate_bce if self.config.cmcl_form == "bce" else discriminate_supcon
        return form(z, modality, temperature)

    # Report ---------------------------------------------------------------------------------------------------

    def rebuild_samples(self, views: Views) -> dict[str, Any]:
        """What the report shows: (b, C, *s) view, target, rebuilt."""
        with evaluating(self):
            rebuilt = self._rebuild(self.encoder(views["x"], views["keep"]))
        return {"view": views["x"], "target": views["target"], "rebuilt": rebuilt}
