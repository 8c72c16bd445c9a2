"""Classification of whole images and volumes: encoder, mean over the coarsest map, one linear layer.

Every item is seen whole, scaled to the patch size with its proportions kept (`data.whole`), so that no crop can miss
what the label is about. Small findings in large volumes need a larger ``--patch``.

With the few labels this is meant for, batches stay full by repeating items under new augmentation: so the statistics
of batch normalisation rest on as many samples as in pre-training, however few labels there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medssl.contract import Batch, Shared, Term, Views
from medssl.errors import UserError
from medssl.networks.heads import pool
from medssl.rng import Rng
from medssl.tasks.augment import apply_images, sample_change
from medssl.tasks.fused import draw_present, make_encoder
from medssl.tasks.task import Task, TaskConfig, channels_of

LARGEST_WEIGHT = 10.0  # a single rare positive must not outshout the batch
SMALLEST_CROP = 0.85  # of a side


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(TaskConfig):
    """A classifier of whole images or volumes."""

    classes: tuple[str, ...] = ("no", "yes")
    """Names of the outputs."""
    kind: Literal["one", "many"] = "one"
    """one: exactly one class is true; many: each is true or not."""
    weight_true: tuple[float, ...] = ()
    """Weight of each class where it is true; by default all 1."""
    weight_false: tuple[float, ...] = ()
    """Weight of each class where it is not (kind many)."""

    def problems(self) -> list[UserError]:
        """Everything wrong with these values at once."""
        found = super().problems()
        if len(self.classes) < (2 if self.kind == "one" else 1):
            found.append(UserError(f"{len(self.classes)} classes", fix="a classifier needs two or more"))
        for weights in (self.weight_true, self.weight_false):
            if weights and len(weights) != len(self.classes):
                found.append(UserError(f"{len(weights)} weights for {len(self.classes)} classes", fix="give one each"))
        return found


class Classify(Task):
    """Learns (b, k) labels of 0, 1 and NaN from whole images (b, C, *size)."""

    config: ClassifyConfig
    weight_true: Tensor
    weight_false: Tensor

    def __init__(self, config: ClassifyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = make_encoder(config)
        self.head = nn.Linear(channels_of(self.encoder)[-1], len(config.classes))
        ones = torch.ones(len(config.classes))
        for name, weights in (("weight_true", config.weight_true), ("weight_false", config.weight_false)):
            # The configuration already keeps them; weights of the model hold what was learnt.
            self.register_buffer(name, torch.tensor(weights) if weights else ones, persistent=False)
        self._freeze()

    def region(self) -> tuple[int, ...]:
        """The patch: items come whole, already scaled to it."""
        return self.config.size

    def views(self, batch: Batch, rng: Rng) -> Views:
        """Augmented images and their labels."""
        if batch.label is None:
            raise UserError("a classifier was given images without labels", fix="give batches with labels")
        images = batch.normalised()
        if self.config.augment:
            change = sample_change(rng, len(batch), tuple(images.shape[2:]), SMALLEST_CROP, self.config.mirror)
            images = apply_images(images, change, self.config.size, self.config.value_range)
        return Views({"image": images}, {"label": batch.label} | draw_present(self.config, batch, rng))

    # Objective ---------------------------------------------------------------------------------------------------

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        """Weighted cross-entropy."""
        self.hold(progress)
        cached = self.cached_logits(views)
        logits = cached.maps[-1].float()
        label = views["label"].to(logits)
        if self.config.kind == "one":
            yield Term("cross_entropy", one_of(logits, label, self.weight_true))
        else:
            yield Term("cross_entropy", many_of(logits, label, self.weight_true, self.weight_false))
        yield from (shared for _, shared in cached.again())

    def logits(self, images: Tensor, present: Tensor | None = None) -> Tensor:
        """(b, k) from (b, C, *spatial); of M modalities (b, M·C, *spatial), present (b, M)."""
        maps = self.encoder(images) if present is None else self.encoder(images, present)
        return self.head(pool(maps[-1]))

    @torch.no_grad()
    def predict(self, images: Tensor, present: Tensor | None = None) -> Tensor:
        """Probabilities (b, k) of images (b, C, *spatial), normalised; deterministic in evaluation mode."""
        logits = self.logits(images, present).float()
        return logits.softmax(1) if self.config.kind == "one" else logits.sigmoid()


def one_of(logits: Float[Tensor, "b k"], label: Float[Tensor, "b k"], weight: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """Cross-entropy Σ w_y·(-log p_y) / Σ w_y over rows whose label is known; 0 where none is."""
    known = ~label.isnan().any(1)  # (b,)
    mass = label.nan_to_num() * weight * known[:, None]  # (b, k)
    return -(mass * logits.log_softmax(1)).sum() / mass.sum().clamp_min(1e-12)


def many_of(
    logits: Float[Tensor, "b k"],
    label: Float[Tensor, "b k"],
    weight_true: Float[Tensor, " k"],
    weight_false: Float[Tensor, " k"],
) -> Float[Tensor, ""]:
    """Binary cross-entropy, weighted mean over cells whose label is known; 0 where none is."""
    truth = label.nan_to_num()
    weight = (truth * weight_true + (1 - truth) * weight_false) * ~label.isnan()  # (b, k)
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")  # (b, k)
    return (weight * loss).sum() / weight.sum().clamp_min(1e-12)


def balanced_weights(truth: np.ndarray, kind: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(weight_true, weight_false) under which all classes, or both sides of each, weigh the same in (n, k) truth.

    At most ``LARGEST_WEIGHT``; 1 for a class with no example, which no sample will ask for.
    """
    yes, no = np.nansum(truth == 1, axis=0), np.nansum(truth == 0, axis=0)
    total = yes.sum() / len(yes) if kind == "one" else (yes + no) / 2
    one = np.ones(truth.shape[1])
    true = np.divide(total, yes, out=one.copy(), where=yes > 0).clip(1 / LARGEST_WEIGHT, LARGEST_WEIGHT)
    false = np.divide(total, no, out=one.copy(), where=no > 0).clip(1 / LARGEST_WEIGHT, LARGEST_WEIGHT)
    if kind == "one":
        false = one
    return tuple(map(float, true)), tuple(map(float, false))
