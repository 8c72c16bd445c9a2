"""PCRL, Preservational Contrastive Representation Learning (Zhou et al., ICCV 2021, arXiv:2109.04379).

Contrast keeps what tells two images apart and throws detail away. PCRL keeps the detail: from the features of an
ordinary encoder f_o, a momentum encoder f_m and their mixture, one shared decoder must rebuild the image in a pose
that a code t prescribes. The numbered equations are in ``PCRL.losses``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medssl.config import ModelConfig, from_table
from medssl.contract import Batch, Method, Shared, Term, Views
from medssl.errors import UserError
from medssl.losses.contrastive import far_or_other, info_nce, unit
from medssl.losses.reconstruction import rebuild_error
from medssl.networks.attention import TransformAttention
from medssl.networks.balance import GradientBalance
from medssl.networks.decoder import decoder_for
from medssl.networks.heads import Projector, at_cells, at_places, mixed, pool
from medssl.networks.momentum import FittedQueue, KeyQueue, frozen_copy, joined, move_towards, sample_shuffle, teach
from medssl.networks.norms import evaluating, set_norm
from medssl.networks.pyramid import Pyramid, build_encoder, check_patch
from medssl.networks.weights import weights_from
from medssl.rng import Rng
from medssl.views.pair import PairConfig, make_pair, region_for
from medssl.views.pose import anchors, before_turn, poses, without_turn
from medssl.views.turn import code_size, turn, unturn

ANCHORS = 32  # positions a view that the patch contrast compares
LEARNERS = {"encoder", "projector", "patch_projector"}  # what the teacher holds a copy of


@dataclass(frozen=True, kw_only=True)
class PCRLConfig(FittedQueue, ModelConfig):
    """PCRL's options; defaults are the paper's unless they say otherwise."""

    contrast: Literal["image", "patch", "both"] = "image"
    """Contrast whole views, equal positions of two views, or both."""
    target: Literal["view", "clean"] = "clean"
    """Rebuild the corrupted view (as published) or the view without corruption (ours)."""
    rebuild: Literal["all", "corrupted"] = "all"
    """Measure the error over the whole view, or over its corrupted parts only."""
    attention: Literal["channel", "outer", "none"] = "channel"
    """Gate: one weight a channel (published code), channels times positions, or none and targets posed as inputs."""
    skips: Literal["plain", "turned", "none"] = "plain"
    """Finer maps that the decoder sees: as they are (published code), turned by T like the target, or none."""
    mix: bool = False
    """Add the contrast and the reconstruction of mixed inputs (published code); doubles the encodes."""
    contrast_weight: float = 1.0
    """Weight of the contrast; 0 leaves it out."""
    rebuild_weight: float | tuple[float, float] | Literal["balanced"] = 1.0
    """Weight of the reconstruction: a number (0 leaves it out), two numbers (first and last value, linear in
    progress), or balanced: gradient norms at the shared features equal to those of the contrast."""
    rebuild_momentum: bool = True
    """Rebuild from the momentum encoder too (paper; the published code dropped it)."""
    rebuild_hybrid: bool = True
    """Rebuild from the mixture of both encoders too."""
    queue: int | None = None
    """Keys kept as negatives; by default .06 · batch / (1 - momentum), at least 4 batches, at most one an image."""
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
    head: Literal["auto", "linear", "sigmoid"] = "auto"
    """End of the decoder; auto: sigmoid in 3D where images lie in [0, 1], else linear."""
    batch_groups: int = 1
    """Parts of a batch with batch-norm statistics of their own, keys shuffled: stops the leak from query to key."""

    def problems(self) -> list[UserError]:
        found = super().problems()
        weight = self.rebuild_weight
        pair = weight if isinstance(weight, tuple) else (weight, weight)
        numbers = len(pair) == 2 and all(isinstance(w, int | float) and 0 <= w < math.inf for w in pair)
        found += self.refused(
            queue=self.queue is not None and self.queue < 1,
            momentum=self.momentum is not None and not 0 <= self.momentum < 1,
            temperature=self.temperature <= 0,
            view_strength=not 0 <= self.view_strength <= 1,
            batch_groups=self.batch_groups < 1,
            rebuild_weight=weight != "balanced" and not numbers,
            contrast_weight=self.contrast_weight < 0,
            embed_dim=self.embed_dim < 1,
        )
        found += self.unreachable(self.head)
        if self.contrast_weight == 0 and self.rebuild_weight in (0, "balanced"):
            found.append(UserError("nothing is left to learn", fix="give contrast or reconstruction a weight"))
        return found


class PCRL(Method):
    """``PCRL(PCRLConfig(...))``, or its fields as keywords: ``PCRL(encoder="resnet18", dims=2, channels=1)``."""

    encoder: Pyramid

    # Networks -------------------------------------------------------------------------------------------------

    def __init__(self, config: PCRLConfig | None = None, /, **options: Any) -> None:
        super().__init__()
        self.config = config = from_table(PCRLConfig, options) if config is None else config
        self._momentum = 0.999 if config.momentum is None else config.momentum
        with weights_from(config.seed):
            self._build(config)
        self.teacher = frozen_copy(self._learners())
        self.queue = KeyQueue(config.queue or 2048, config.embed_dim)
        self.balance = GradientBalance()
        self._pairs = PairConfig.for_size(config.size, config.value_range, config.scan, config.view_strength)
        # Terms of each kind are averaged: contrast over images and patches, reconstruction over branches.
        contrasts = {"image": 1, "patch": 0, "both": 1}[config.contrast] * (3 if config.mix else 1)
        self._contrast_share = config.contrast_weight / (contrasts + (config.contrast != "image"))
        self._rebuilds = 1 + config.rebuild_momentum + config.rebuild_hybrid + config.mix
        ties = config.contrast != "image" or config.mix or config.rebuild == "corrupted"
        self.coupled = "it compares or mixes images of the batch, or errs over its corrupted voxels" if ties else ""

    def _build(self, config: PCRLConfig) -> None:
        encoder = self.encoder = build_encoder(config)
        check_patch(encoder, config.size)
        # Paper: plain BatchNorm. Published code: keys shuffled, which does nothing on one GPU.
        # Ours: on request, groups of the batch with statistics of their own, keys shuffled over groups and ranks.
        set_norm(encoder, config.norm, config.batch_groups)
        self.projector = Projector(encoder.channels[-1], out=config.embed_dim)
        cells = [math.prod(n // s for n, s in zip(config.size, stride, strict=True)) for stride in encoder.strides]
        self._level = max((level for level, count in enumerate(cells) if count >= 64), default=0)
        if config.contrast != "image":
            self.patch_projector = Projector(encoder.channels[self._level], out=config.embed_dim)
        if config.attention != "none":
            code, width = code_size(config.dims), encoder.channels[-1]
            self.attention = TransformAttention(code, width, config.dims, config.attention)
        self.decoder = decoder_for(config, encoder, head=config.head)

    def _learners(self) -> nn.ModuleDict:
        return nn.ModuleDict({name: module for name, module in self.named_children() if name in LEARNERS})

    # Views ----------------------------------------------------------------------------------------------------

    def region(self) -> tuple[int, ...]:
        return region_for(self._pairs)

    @torch.no_grad()
    def views(self, batch: Batch, rng: Rng) -> Views:
        config, device = self.config, batch.image.device
        # Published code: input and target in poses that differ by branch, misaligned in some.
        # Ours: the input is x, the target T_t(x) exactly, so that the pose is known from t alone.
        pair = before_turn(make_pair(batch.normalised(), self._pairs, rng), rng, config.mirror)
        if config.attention == "none":  # no code reaches the decoder, so the pose must be the input's
            pair = without_turn(pair)
        targets = pair.clean1, pair.clean2
        if config.target == "view":
            targets = turn(pair.x1, pair.t1), turn(pair.x2, pair.t2)
        images = {"x1": pair.x1, "x2": pair.x2, "target1": targets[0], "target2": targets[1]}
        images |= {"hidden1": pair.corrupted1, "hidden2": pair.corrupted2}
        drawn: dict[str, Any] = {"item": batch.item, "patient": batch.patient, "t1": pair.t1, "t2": pair.t2}
        if config.contrast != "image":
            drawn["anchors"] = anchors(pair, self.encoder.strides[self._level], ANCHORS, rng)
        # Beta(1, 1) is uniform. One draw a batch, the same on all ranks.
        shares = {name: float(rng.batch(f"pcrl/{name}").random()) for name in ("alpha", "lambda")}
        drawn |= {name: max(share, 1 - share) for name, share in shares.items()}
        drawn["order"] = torch.from_numpy(rng.batch("pcrl/order").permutation(len(batch))).to(device)
        shuffle = sample_shuffle(rng, len(batch), config.norm, config.batch_groups)
        if shuffle is not None:
            drawn["shuffle"] = shuffle.to(device)
        return Views(images, drawn)

    # Objective ------------------------------------------------------------------------------------------------

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        """Contrast + λ_rec · mean of the reconstructions, with F_o = f_o(x1) and F_m = f_m(x2) at all levels.

        (1) contrast: InfoNCE of q = head(F_o), k = head_m(F_m), negatives from the queue.
        (2) ordinary: D(gate(F_o, t1)) → T1(x1)
        (3) momentum: D(gate(F_m, t2)) → T2(x2)
        (4) hybrid: D(α·gate(F_o, t1) + (1-α)·gate(F_m, t2)) → α·T1(x1) + (1-α)·T2(x2), skips mixed alike.
        The gate touches the coarsest map only, the contrast sees it ungated.
        """
        student = Shared(self.encoder(views["x1"]))
        teacher = teach(self.teacher["encoder"], views["x2"], views.drawn.get("shuffle"))
        yield from self._contrasts(student, teacher, views)
        balanced = self.config.rebuild_weight == "balanced"
        before = {level: grad.clone() for level, grad in student.gradients().items()} if balanced else {}
        if self.config.rebuild_weight != 0:
            yield from self._branches(student, teacher, views, progress)
        if before:
            self.noted[-1]["norms"] = self.balance.measure(before, student.gradients())
        yield student
        if self.config.mix:
            yield from self._mixed(teacher, views, progress)

    def _contrasts(self, student: Shared, teacher: list[Tensor], views: Views) -> Iterator[Term]:
        # Published code: NCE with a frozen normaliser, three updates of the queue a step, no word of patients.
        # Ours: InfoNCE; this step's keys come after the loss; the same image or patient is never a negative.
        keys = self.teacher["projector"](pool(teacher[-1]))
        self.noted.append({"keys": (unit(keys), views["item"], views["patient"])})
        if self.config.contrast_weight > 0 and self.config.contrast != "patch":
            yield self._contrast("contrast", student, keys, views)
        if self.config.contrast_weight > 0 and self.config.contrast != "image":
            value = self._patch_contrast(student.maps[self._level], teacher[self._level], views)
            yield Term("contrast_patch", self._contrast_share * value, student)

    def _contrast(self, name: str, student: Shared, keys: Tensor, views: Views, both: bool = False) -> Term:
        allowed = self.queue.allowed(views["item"], views["patient"])
        if both:  # a mixed image is of two patients
            allowed = allowed & allowed[views["order"]]
        query = unit(self.projector(pool(student.maps[-1])))
        value = info_nce(query, unit(keys), self.queue.keys, allowed, self.config.temperature)
        return Term(name, self._contrast_share * value, student)

    def _patch_contrast(self, ours: Tensor, theirs: Tensor, views: Views) -> Tensor:
        """InfoNCE at equal positions of the two views; negatives are far positions and other patients."""
        cells, there, shown = views["anchors"]
        query = unit(self.patch_projector(at_cells(ours, cells)))
        keys = unit(self.teacher["patch_projector"](at_places(theirs, there)))
        allowed = far_or_other(cells, tuple(ours.shape[2:]), views["item"], views["patient"], radius=1)
        shown = shown.flatten()
        return info_nce(query, keys, keys, allowed & shown, self.config.temperature, shown)

    def _branches(self, student: Shared, teacher: list[Tensor], views: Views, progress: float) -> Iterator[Term]:
        share, alpha, hidden = self._rebuild_share(progress), views["alpha"], views["hidden1"] | views["hidden2"]
        value = self._rebuild(self._gated(student.maps, views["t1"]), views["target1"], views["hidden1"])
        yield Term("rebuild_ordinary", share * value, student)
        if self.config.rebuild_momentum:
            value = self._rebuild(self._gated(teacher, views["t2"]), views["target2"], views["hidden2"])
            yield Term("rebuild_momentum", share * value, student)
        if self.config.rebuild_hybrid:
            hybrid = mixed(self._gated(student.maps, views["t1"]), self._gated(teacher, views["t2"]), alpha)
            value = self._rebuild(hybrid, torch.lerp(views["target2"], views["target1"], alpha), hidden)
            yield Term("rebuild_hybrid", share * value, student)

    def _mixed(self, teacher: list[Tensor], views: Views, progress: float) -> Iterator[Term | Shared]:
        """Mixed inputs, ungated and without T: one gate cannot name two transformations."""
        order = views["order"]

        def mix(x: Tensor) -> Tensor:
            return torch.lerp(x[order], x, views["lambda"])

        student = Shared(self.encoder(mix(views["x1"])))
        if self.config.contrast_weight > 0 and self.config.contrast != "patch":
            maps = teach(self.teacher["encoder"], mix(views["x2"]), views.drawn.get("shuffle"))
            raw, seen = (self.teacher["projector"](pool(found[-1])) for found in (teacher, maps))
            yield self._contrast("contrast_mixed", student, seen, views, both=True)
            yield self._contrast("contrast_mixed_keys", student, mix(raw), views, both=True)
        if self.config.rebuild_weight != 0:
            target, hidden = (unturn(x, views["t1"]) for x in (views["target1"], views["hidden1"][:, None]))
            value = self._rebuild(student.maps, mix(target), (hidden | hidden[order])[:, 0])
            yield Term("rebuild_mixed", self._rebuild_share(progress) * value, student)
        yield student

    def _gated(self, maps: Sequence[Tensor], code: Tensor) -> list[Tensor]:
        # Published code: skips as they are, though the target is turned. Ours: the same, or turned alike on request.
        skips = [turn(level, code) for level in maps[:-1]] if self.config.skips == "turned" else maps[:-1]
        return [*skips, maps[-1] if self.config.attention == "none" else self.attention(maps[-1], code)]

    def _rebuild(self, maps: Sequence[Tensor], target: Tensor, hidden: Tensor) -> Tensor:
        where = hidden if self.config.rebuild == "corrupted" else None
        return rebuild_error(self._decoded(maps), target, where)

    def _decoded(self, maps: Sequence[Tensor]) -> Tensor:
        seen = [torch.zeros_like(level) for level in maps[:-1]] if self.config.skips == "none" else maps[:-1]
        return self.decoder([*seen, maps[-1]])

    def _rebuild_share(self, progress: float) -> float | Tensor:
        """λ_rec over the number of reconstructions."""
        weight = self.config.rebuild_weight
        weight = weight[0] + (weight[1] - weight[0]) * progress if isinstance(weight, tuple) else weight
        return (self.balance.weight() if weight == "balanced" else weight) / self._rebuilds

    # Update ---------------------------------------------------------------------------------------------------

    def after_step(self, progress: float) -> None:
        """θ_m ← m·θ_m + (1-m)·θ_o, then this step's keys join the queue."""
        move_towards(self.teacher, self._learners(), self._momentum)
        if self.noted:
            self.queue.enqueue(*joined(part["keys"] for part in self.noted))
        if norms := [part["norms"] for part in self.noted if "norms" in part]:
            self.balance.observe(torch.stack(norms).norm(dim=0))  # of the whole batch's gradient
        self.noted = []

    # Report ---------------------------------------------------------------------------------------------------

    def rebuild_samples(self, views: Views) -> dict[str, Any]:
        """What the report shows: (b, C, *s) view, target, rebuilt; (n, C, *s) the first view in n poses, and T_t(x)."""
        names, codes = poses(self.config.size)
        with evaluating(self):
            maps = self.encoder(views["x1"])
            rebuilt = self._decoded(self._gated(maps, views["t1"]))
            codes = codes.to(rebuilt.device)
            first = [level[:1].expand(len(codes), *level.shape[1:]) for level in maps]
            clean = unturn(views["target1"][:1], views["t1"][:1]).expand(len(codes), *rebuilt.shape[1:])
            gate = {"gate_rebuilt": self._decoded(self._gated(first, codes)), "gate_target": turn(clean, codes)}
        return {"view": views["x1"], "target": views["target1"], "rebuilt": rebuilt, **gate, "gate_names": names}
