"""Masked autoencoder for convolutional pyramids (He et al., CVPR 2022, arXiv:2111.06377).

Most patches of an image are hidden; from the rest the network must say what they held. A vision transformer leaves
hidden patches out; a convolutional encoder sees them filled with one value, as in "Revisiting MAE pre-training for 3D
medical image segmentation" (Wald et al., CVPR 2025, arXiv:2410.23132).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medssl.config import ModelConfig, OptimOptions, from_table
from medssl.contract import Batch, Method, Shared, Term, Views
from medssl.errors import UserError
from medssl.losses.reconstruction import rebuild_error
from medssl.networks.decoder import decoder_for
from medssl.networks.norms import evaluating
from medssl.networks.pyramid import Pyramid, build_encoder, check_patch
from medssl.networks.weights import weights_from
from medssl.rng import Rng
from medssl.views.mask import patch_statistics, sample_mask, spread
from medssl.views.pair import PairConfig, region_for
from medssl.views.pose import clean_view

FEWEST = 4  # patches along an axis, so that a mask has something to choose from


@dataclass(frozen=True, kw_only=True)
class MAEConfig(ModelConfig):
    """The masked autoencoder's options; defaults are the papers' unless they say otherwise."""

    # Paper (App. A.1): AdamW, betas .9 and .95, decay .05, base rate 1.5e-4 for each 256 of a batch of 4096, that is
    # 2.4e-3. 3D paper: SGD at 1e-2. Ours: the optimiser of the first at the rate of the house, since batches are small.
    usual = OptimOptions(weight_decay=0.05, betas=(0.9, 0.95))

    mask_ratio: float = 0.75
    """Share of the patches that are hidden."""
    mask_patch: tuple[int, ...] = ()
    """Voxels of a patch along each axis; by default the encoder's coarsest stride, halved along an axis until four
    patches fit (published for volumes: 16)."""
    fill: Literal["mean", "zero", "token"] = "mean"
    """What hidden patches hold in the input: the mean of the visible voxels, zero, or a learned value a channel."""
    normalise_patches: bool = False
    """Rebuild patches normalised to mean 0 and standard deviation 1, as the 2D paper prefers."""
    skips: bool = True
    """The decoder sees all levels of the encoder, not the coarsest alone."""
    mirror: bool = True
    """Inputs may be mirrored: images left-right, volumes along every axis."""

    def problems(self) -> list[UserError]:
        found = super().problems()
        patch = self.mask_patch
        found += self.refused(mask_ratio=not 0 < self.mask_ratio < 1, mask_patch=any(edge < 2 for edge in patch))
        if patch and len(patch) != self.dims:
            found.append(UserError(f"mask_patch {patch} has {len(patch)} axes", fix=f"give {self.dims} numbers"))
        return found


class MAE(Method):
    """``MAE(MAEConfig(...))``, or its fields as keywords: ``MAE(encoder="resunet", dims=3, channels=1)``."""

    encoder: Pyramid

    # Networks -------------------------------------------------------------------------------------------------

    def __init__(self, config: MAEConfig | None = None, /, **options: Any) -> None:
        super().__init__()
        self.config = config = from_table(MAEConfig, options) if config is None else config
        with weights_from(config.seed):
            self.encoder = build_encoder(config)
            check_patch(self.encoder, config.size)
            # 2D paper: a small transformer as decoder. 3D paper and its code: the whole U-Net, skips included.
            # Ours: the decoder of PCRL, skips included; linear, since normalised targets have no bounds.
            self.decoder = decoder_for(config, self.encoder, skips=config.skips, head="linear")
        self.patch = tuple(config.mask_patch) or patch_for(config.size, self.encoder.strides[-1])
        if any(n % p for n, p in zip(config.size, self.patch, strict=True)) or self.patch == tuple(config.size):
            what = f"mask_patch {self.patch} does not cut patch {tuple(config.size)} into equal parts"
            raise UserError(what, fix="choose smaller numbers that divide it")
        self.token = nn.Parameter(torch.zeros(config.channels)) if config.fill == "token" else None
        self._pairs = PairConfig.for_size(config.size, config.value_range, config.scan)

    # Views ----------------------------------------------------------------------------------------------------

    def region(self) -> tuple[int, ...]:
        return region_for(self._pairs)

    @torch.no_grad()
    def views(self, batch: Batch, rng: Rng) -> Views:
        # 2D paper: resized crops, flips. 3D paper: crops of one size, rotations, scaling, flips; no grey values.
        # Ours: the crop, rotation and flips of PCRL's first view, so that arms differ by their objective (ADR 0012).
        image = target = clean_view(batch.normalised(), self._pairs, rng, self.config.mirror)
        grid = tuple(n // p for n, p in zip(self.config.size, self.patch, strict=True))
        hidden = sample_mask(rng, "mae/mask", len(image), grid, self.config.mask_ratio).to(image.device)
        if self.config.normalise_patches:
            mean, spread_of = patch_statistics(image, self.patch)
            target = (image - mean) / spread_of
        return Views({"image": image, "target": target, "hidden": spread(hidden, self.patch)})

    def _masked(self, image: Tensor, hidden: Tensor) -> Tensor:
        # Published code for volumes: zero, which in z-scored images is their mean. 2D paper: a learned token.
        # Ours: the mean of what is visible, the same whatever the normalisation; the others on request.
        hidden = hidden[:, None]
        fill = image.new_zeros(1)
        if self.token is not None:
            fill = self.token.view(1, -1, *(1,) * self.config.dims)
        elif self.config.fill == "mean":
            space = tuple(range(2, image.ndim))
            fill = torch.where(hidden, 0, image).sum(space, keepdim=True) / (~hidden).sum(space, keepdim=True)
        return torch.where(hidden, fill, image)

    # Objective ------------------------------------------------------------------------------------------------

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        """‖D(f(masked x)) − x‖², the mean over the voxels of hidden patches only."""
        shared = Shared(self.encoder(self._masked(views["image"], views["hidden"])))
        value = rebuild_error(self.decoder(shared.maps), views["target"], views["hidden"])
        yield Term("rebuild", value, shared)
        yield shared

    # Report ---------------------------------------------------------------------------------------------------

    def rebuild_samples(self, views: Views) -> dict[str, Any]:
        """What the report shows: (b, C, *s) masked view, target, and the hidden patches rebuilt among the visible."""
        image, hidden = views["image"], views["hidden"]
        with evaluating(self):
            view = self._masked(image, hidden)
            rebuilt = self.decoder(self.encoder(view))
            if self.config.normalise_patches:  # how bright a patch was is not asked for: shown as it was
                mean, spread_of = patch_statistics(image, self.patch)
                rebuilt = rebuilt * spread_of + mean
        return {"view": view, "target": image, "rebuilt": torch.where(hidden[:, None], rebuilt, image)}


def patch_for(size: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    """The coarsest ``stride``, halved along an axis while fewer than four patches fit."""
    patch = list(stride)
    for axis, n in enumerate(size):
        while n // patch[axis] < FEWEST and patch[axis] % 2 == 0 and patch[axis] > 2:
            patch[axis] //= 2
    return tuple(patch)
