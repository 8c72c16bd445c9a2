"""Segmentation: encoder, decoder with skips, Dice and cross-entropy; whole scans by sliding windows.

Training patches are centred on a structure half of the time (`data.sample`), so small structures are met often.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from medssl.contract import Batch, Shared, Term, Views
from medssl.errors import UserError
from medssl.networks.decoder import Decoder
from medssl.rng import Rng
from medssl.tasks.augment import ZOOM, apply_classes, apply_images, centred, region_of, sample_change
from medssl.tasks.fused import draw_present, make_encoder
from medssl.tasks.task import Task, TaskConfig, channels_of

EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(TaskConfig):
    """A segmenter of images or volumes."""

    labels: tuple[int, ...] = (1,)
    """Mask values of the structures; all others count as background."""
    foreground: float = 0.5
    """Share of training patches centred on a structure."""
    overlap: float = 0.5
    """Overlap of neighbouring windows at inference."""
    windows: int = 8
    """Windows predicted at once."""

    def problems(self) -> list[UserError]:
        """Everything wrong with these values at once."""
        found = super().problems()
        if not self.labels or any(label < 1 for label in self.labels) or len(set(self.labels)) < len(self.labels):
            found.append(UserError(f"structures {self.labels}", fix="give different mask values of 1 or more"))
        if not 0 <= self.foreground <= 1:
            found.append(UserError(f"foreground is {self.foreground}", fix="give a share between 0 and 1"))
        if not 0 <= self.overlap < 1:
            found.append(UserError(f"overlap is {self.overlap}", fix="give a share of at least 0 and below 1"))
        return found


class Segment(Task):
    """Learns label maps (b, *patch) of mask values from patches (b, C, *patch)."""

    config: SegmentConfig

    def __init__(self, config: SegmentConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = make_encoder(config)
        self.decoder = Decoder(
            channels_of(self.encoder),
            self.encoder.strides,
            config.dims,
            out_channels=len(config.labels) + 1,
            skips=True,
            head="linear",
            norm=config.norm,
        )
        self._freeze()

    def region(self) -> tuple[int, ...]:
        """What patches are cut from."""
        return region_of(self.config.size) if self.config.augment else self.config.size

    def views(self, batch: Batch, rng: Rng) -> Views:
        """Augmented patches and their classes: 0 background, i the i-th structure."""
        if batch.mask is None:
            raise UserError("a segmenter was given images without masks", fix="give batches with masks")
        config, n, region = self.config, len(batch), tuple(batch.image.shape[2:])
        if config.augment:
            change = sample_change(rng, n, region, 1 / ZOOM, config.mirror)
        else:
            change = centred(n, region, config.size)
        images = apply_images(batch.normalised(), change, config.size, config.value_range)
        mask = apply_classes(self.classes(batch.mask), len(config.labels) + 1, change, config.size)
        return Views({"image": images, "mask": mask}, draw_present(config, batch, rng))

    def classes(self, mask: Tensor) -> Tensor:
        """Class numbers (int64) of mask values, any shape."""
        found = torch.zeros_like(mask, dtype=torch.int64)
        for number, label in enumerate(self.config.labels, start=1):
            found[mask == label] = number
        return found

    # Objective ---------------------------------------------------------------------------------------------------

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        """Soft Dice and cross-entropy, equal weights (nnU-Net, doi:10.1038/s41592-020-01008-z)."""
        self.hold(progress)
        cached = self.cached_logits(views)
        logits = cached.maps[-1].float()
        yield Term("dice", soft_dice(logits, views["mask"]))
        logits = cached.maps[-1].float()
        yield Term("cross_entropy", F.cross_entropy(logits, views["mask"]))
        yield from (shared for _, shared in cached.again())

    def logits(self, images: Tensor, present: Tensor | None = None) -> Tensor:
        """(b, 1 + structures, *spatial) from (b, C, *spatial); of M modalities (b, M·C, *spatial), present (b, M)."""
        return self.decoder(self.encoder(images) if present is None else self.encoder(images, present))

    @torch.no_grad()
    def predict(self, image: Tensor, fill: float | None = None, present: Tensor | None = None) -> Tensor:
        """Mask values (*spatial) of one whole normalised image (C, *spatial), by overlapping windows.

        ``fill``: the value around images smaller than the patch, their minimum unless told.
        ``present`` (M,) bool: which of several modalities the image has.
        """
        from monai.inferers import sliding_window_inference

        patch = self.config.size
        gaps = [max(p - n, 0) for p, n in zip(patch, image.shape[1:], strict=True)]
        pads = [side for gap in reversed(gaps) for side in (gap // 2, gap - gap // 2)]
        padded = F.pad(image[None].float(), pads, value=float(image.amin()) if fill is None else fill)

        def predictor(x: Tensor) -> Tensor:
            seen = () if present is None else (present.expand(len(x), -1),)
            return self.logits(x, *seen).float()

        logits = sliding_window_inference(
            padded, patch, self.config.windows, predictor, self.config.overlap, mode="gaussian"
        )
        box = tuple(slice(g // 2, g // 2 + n) for g, n in zip(gaps, image.shape[1:], strict=True))
        values = torch.tensor((0, *self.config.labels), device=image.device)
        return values[logits[0].argmax(0)[box]]


def soft_dice(logits: Float[Tensor, "b k *s"], classes: Int[Tensor, "b *s"]) -> Float[Tensor, ""]:
    """1 - mean over structures of 2Σpg / (Σp + Σg), sums over the whole batch; background left out.

    Over the batch, since a patch without the structure would otherwise ask for nothing but silence.
    """
    k = logits.shape[1]
    p = logits.softmax(1).transpose(0, 1).flatten(1)[1:]  # (k-1, b·s)
    g = F.one_hot(classes.flatten(), k).T[1:].to(p)  # (k-1, b·s)
    return 1 - ((2 * (p * g).sum(1) + EPS) / (p.sum(1) + g.sum(1) + EPS)).mean()
