"""MoCo v2, momentum contrast with the head and temperature of SimCLR (Chen et al., 2020, arXiv:2003.04297).

MoCo (He et al., CVPR 2020, arXiv:1911.05722) keeps the keys of earlier steps as negatives, made by an encoder that
follows the trained one slowly; so many negatives need no large batch. PCRL without its reconstruction is this.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medssl.config import ModelConfig, from_table
from medssl.contract import Batch, Method, Shared, Term, Views
from medssl.errors import UserError
from medssl.losses.contrastive import info_nce, unit
from medssl.networks.heads import Projector, pool
from medssl.networks.momentum import FittedQueue, KeyQueue, frozen_copy, joined, move_towards, sample_shuffle, teach
from medssl.networks.norms import set_norm
from medssl.networks.pyramid import Pyramid, build_encoder, check_patch
from medssl.networks.weights import weights_from
from medssl.rng import Rng
from medssl.views.pair import PairConfig, make_pair, region_for
from medssl.views.pose import before_turn


@dataclass(frozen=True, kw_only=True)
class MoCoConfig(FittedQueue, ModelConfig):
    """MoCo v2's options; defaults are the paper's unless they say otherwise."""

    queue: int | None = None
    """Keys kept as negatives (paper: 65536); by default .06 · batch / (1 - momentum), at least 4 batches, at most one
    an image."""
    momentum: float | None = None
    """Momentum m of the teacher; by default .999, less in runs below 20000 steps: 1 - 20 / steps, at least .9."""
    temperature: float = 0.2
    """Temperature of the contrast."""
    mirror: bool = True
    """Inputs may be mirrored: images left-right, volumes along every axis."""
    view_strength: float = 1.0
    """How far views may differ from the image, 0 to 1 (as published): crops, rotation, tone, blur, holes, painting."""
    embed_dim: int = 128
    """Length of the vectors that are contrasted."""
    batch_groups: int = 1
    """Parts of a batch with batch-norm statistics of their own, keys shuffled: stops the leak from query to key."""

    def problems(self) -> list[UserError]:
        return super().problems() + self.refused(
            queue=self.queue is not None and self.queue < 1,
            momentum=self.momentum is not None and not 0 <= self.momentum < 1,
            temperature=self.temperature <= 0,
            view_strength=not 0 <= self.view_strength <= 1,
            embed_dim=self.embed_dim < 1,
            batch_groups=self.batch_groups < 1,
        )


class MoCo(Method):
    """``MoCo(MoCoConfig(...))``, or its fields as keywords: ``MoCo(encoder="resnet18", dims=2, channels=1)``."""

    encoder: Pyramid

    # Networks -------------------------------------------------------------------------------------------------

    def __init__(self, config: MoCoConfig | None = None, /, **options: Any) -> None:
        super().__init__()
        self.config = config = from_table(MoCoConfig, options) if config is None else config
        self._momentum = 0.999 if config.momentum is None else config.momentum
        with weights_from(config.seed):
            self.encoder = build_encoder(config)
            check_patch(self.encoder, config.size)
            set_norm(self.encoder, config.norm, config.batch_groups)
            width = self.encoder.channels[-1]
            self.projector = Projector(width, hidden=width, out=config.embed_dim)
        self.teacher = frozen_copy(self._learners())
        self.queue = KeyQueue(config.queue or 2048, config.embed_dim)
        self._pairs = PairConfig.for_size(config.size, config.value_range, config.scan, config.view_strength)

    def _learners(self) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": self.encoder, "projector": self.projector})

    # Views ----------------------------------------------------------------------------------------------------

    def region(self) -> tuple[int, ...]:
        return region_for(self._pairs)

    @torch.no_grad()
    def views(self, batch: Batch, rng: Rng) -> Views:
        # Paper: crops, colour distortion, blur of photographs. Published code: the same.
        # Ours: the views of PCRL to the bit, so that arms of a study differ by their objective only (ADR 0012).
        pair = before_turn(make_pair(batch.normalised(), self._pairs, rng), rng, self.config.mirror)
        drawn = {"item": batch.item, "patient": batch.patient}
        shuffle = sample_shuffle(rng, len(batch), self.config.norm, self.config.batch_groups)
        if shuffle is not None:
            drawn["shuffle"] = shuffle.to(batch.image.device)
        return Views({"x1": pair.x1, "x2": pair.x2}, drawn)

    # Objective ------------------------------------------------------------------------------------------------

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        """−log( e^{q·k/τ} / (e^{q·k/τ} + Σ_queue e^{q·k'/τ}) ), arXiv:1911.05722 Eq. 1.

        q = head(f(x1)), k = head_m(f_m(x2)), both of unit length.
        """
        # Published code: every key of the queue is a negative, those of the same image too.
        # Ours: a key of the same image or patient is none; this step's keys come after the loss.
        student = Shared(self.encoder(views["x1"]))
        teacher = teach(self.teacher["encoder"], views["x2"], views.drawn.get("shuffle"))
        keys = unit(self.teacher["projector"](pool(teacher[-1])))
        self.noted.append((keys, views["item"], views["patient"]))
        query = unit(self.projector(pool(student.maps[-1])))
        allowed = self.queue.allowed(views["item"], views["patient"])
        yield Term("contrast", info_nce(query, keys, self.queue.keys, allowed, self.config.temperature), student)
        yield student

    # Update ---------------------------------------------------------------------------------------------------

    def after_step(self, progress: float) -> None:
        """θ_m ← m·θ_m + (1-m)·θ, arXiv:1911.05722 Eq. 2; then this step's keys join the queue."""
        move_towards(self.teacher, self._learners(), self._momentum)
        if self.noted:
            self.queue.enqueue(*joined(self.noted))
        self.noted = []

    # Report ---------------------------------------------------------------------------------------------------

    def rebuild_samples(self, views: Views) -> dict[str, Any]:
        """What the report shows: (b, C, *s) both views of each image."""
        return {"view": views["x1"], "other": views["x2"]}
