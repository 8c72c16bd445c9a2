"""CMCL, cross-modal contrastive learning: one space for all that is known of a subject.

``align`` (ConVIRT arXiv:2010.00747, CLIP arXiv:2103.00020, SigLIP arXiv:2303.15343): what shows one subject, in CT, MR,
a report or a table, comes together, and other subjects go apart. ``discriminate`` (DAE, arXiv:2307.16896): features
of one modality come together, whatever the subject. Missing modalities are simply not there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medssl import distributed
from medssl.config import ModelConfig, from_table
from medssl.contract import Batch, Shared, Term, Views
from medssl.data.entries import OwnLoop
from medssl.errors import UserError
from medssl.losses.align import align, voxel_infonce, word_infonce
from medssl.losses.contrastive import unit
from medssl.losses.discriminate import discriminate_bce, discriminate_supcon
from medssl.losses.reconstruction import rebuild_error
from medssl.losses.relate import relations, who_is_who
from medssl.networks.cached import Cached, Together
from medssl.networks.decoder import decoder_for
from medssl.networks.joint import Encodes, JointSpace
from medssl.networks.local import VoxelHeads, WordHeads, per_tower
from medssl.networks.pyramid import Pyramid
from medssl.networks.temperature import SHARPEST, Temperature
from medssl.networks.text import Text, filled, fingerprint
from medssl.networks.towers import plan_towers
from medssl.networks.weights import weights_from
from medssl.rng import Rng
from medssl.views.pair import PairConfig, region_for
from medssl.views.single import meetings, single_view
from medssl.views.structures import mask_of_view, structures

FROM_DATA = {"from": "data"}  # options that no person gives: the stage reads them from the store
LEAST = {
    0: ("hard_beta", "hard_top", "local_weight", "rebuild_weight", "ignore_mm", "chunk", "text_size"),
    1: ("embed_dim", "anchors", "text_length", "text_vocab"),
}
PLAIN = {"cutout_p": 0.0, "shuffle_p": 0.0, "paint_p": 0.0}


@dataclass(frozen=True, kw_only=True)
class CMCLConfig(ModelConfig):
    """CMCL's options; ConVIRT's and CLIP's defaults where they have one."""

    objective: Literal["align", "discriminate"] = "align"
    """align: what shows one subject comes together. discriminate: what shows one modality does."""
    positives: Literal["subject", "label", "structure"] = "subject"
    """align: what comes together across modalities: scans of one subject (papers); of subjects with one label too; or
    structures that masks name, whoever's they are. The last two need no pairs, but they learn from truth."""
    label: str = ""
    """Column of --positives label; by default the only usable one."""
    share: Literal["nothing", "trunk", "all"] = "nothing"
    """Weights that image encoders share: nothing, all but the first level and normalisation layers, or all."""
    embed_dim: int = 128
    """Length of the vectors that are compared."""
    loss: Literal["infonce", "sigmoid"] = "infonce"
    """align: symmetric InfoNCE (CLIP), or the sigmoid of every pair (SigLIP; its bias is learnt, from -10)."""
    form: Literal["bce", "supcon"] = "bce"
    """discriminate: binary cross-entropy over pairs (paper), or supervised contrast."""
    temperature: float | tuple[float, float] = 0.07
    """Similarities are divided by it: a number, or two (first and last value, linear in progress)."""
    learn_temperature: bool = False
    """Learn it (CLIP), beginning with the given one; never below .01."""
    hard_beta: float = 0.0
    """InfoNCE: how much more similar negatives weigh; 0 weighs them alike."""
    hard_top: int = 0
    """InfoNCE: only so many most similar negatives of each anchor; 0 takes all."""
    local_weight: float = 0.0
    """Weight of the local form: equal positions of two modalities' maps, words of a text and regions of an image."""
    anchors: int = 100
    """Positions that the local form compares in each pair of images."""
    ignore_mm: float = 10.0
    """Positions of one subject that are nearer than this are not each other's negatives."""
    rebuild_weight: float = 0.0
    """Weight of rebuilding the uncorrupted crop from a corrupted one; 0 leaves it out and corrupts nothing."""
    crop: tuple[float, float] = (0.6, 1.0)
    """Share of the region's area or volume that a view shows (ConVIRT)."""
    mirror: bool = False
    """Views may be mirrored. Not by default: reports tell left from right, and a subject's scans share their sides."""
    chunk: int = 0
    """Samples encoded at once, by gradient caching, for batches that do not fit; exact, but batch norm sees a chunk."""
    text: Literal["none", "tokens", "vector"] = "none"
    """A text tower beside the images: reports as tokens, ready-made numbers, or none."""
    text_length: int = 128
    """Tokens kept of each report."""
    text_vocab: int = 4096
    """Pieces of words that the tokenizer learns at most."""
    text_model: str = ""
    """Folder or name of a Hugging Face text model, with its own tokenizer, in place of one trained here."""
    text_size: int = field(default=0, metadata=FROM_DATA)
    """Pieces of the tokenizer, or numbers of a vector; from the data."""
    modalities: tuple[str, ...] = field(default=(), metadata=FROM_DATA)
    """Names of the image modalities, sorted; from the store."""

    def problems(self) -> list[UserError]:
        found, tau = super().problems(), self.temperature
        ends = tau if isinstance(tau, tuple) else (tau,)
        found += self.refused(
            temperature=len(ends) not in (1, 2) or min(ends, default=0) <= 0,
            learn_temperature=self.learn_temperature and (len(ends) > 1 or min(ends) < 1 / SHARPEST),
            crop=len(self.crop) != 2 or not 0 < self.crop[0] <= self.crop[1] <= 1,
            **{name: getattr(self, name) < least for least, names in LEAST.items() for name in names},
        )
        if self.loss == "sigmoid" and (self.hard_beta or self.hard_top):
            found.append(UserError("the sigmoid loss has no hard negatives", fix="choose loss=infonce, or leave them"))
        if self.objective == "discriminate" and self.share != "all":
            found.append(UserError("encoders of their own tell modalities apart", fix="discriminate needs share=all"))
        if self.label and self.positives != "label":
            found.append(UserError(f"label is {self.label!r}, which nothing reads", fix="add --positives label"))
        if self.positives != "subject" and self.objective == "discriminate":
            found.append(UserError("discriminate has no use for positives", fix="leave --positives out"))
        if self.positives == "structure" and self.text != "none":
            found.append(UserError("a text shows no structure", fix="choose --positives label, or leave out --text"))
        if self.objective == "discriminate" and (self.text != "none" or self.local_weight):
            found.append(UserError("discriminate compares whole images", fix="leave text and local_weight out"))
        return found


class CMCL(OwnLoop):
    """``CMCL(CMCLConfig(...))``, or towers by name: ``CMCL(towers={"image": "resnet18", "text": Vector(100)})``.

    A tower is an encoder's name, or one ``Text`` or ``Vector``; other keywords are the fields of ``CMCLConfig``.
    """

    needs_modality = paired = cached = True
    coupled = "it compares all samples of a batch"

    # Networks -------------------------------------------------------------------------------------------------

    def __init__(
        self, config: CMCLConfig | None = None, /, *, towers: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__()
        config = from_table(CMCLConfig, options) if config is None else config
        self.kinds = plan_towers(config, towers)
        self.config, self.chunk = replace(config, modalities=self.kinds.names), config.chunk
        with weights_from(config.seed):
            self._build(config)
        self.temperature = Temperature(config.temperature, config.learn_temperature)
        self.bias = nn.Parameter(torch.tensor(-10.0)) if config.loss == "sigmoid" else None
        plain = {} if config.rebuild_weight else PLAIN
        self._crops = PairConfig.for_size(config.size, config.value_range, config.scan, scale=config.crop, **plain)

    def _build(self, config: CMCLConfig) -> None:
        self.space = JointSpace(config, self.kinds)
        towers = self.space.pyramids
        self.decoders = self.voxels = self.words = None
        if config.rebuild_weight:
            self.decoders = per_tower(towers, [lambda t=t: decoder_for(config, t) for t in towers])
        if config.local_weight and len(towers) > 1:
            self.voxels = VoxelHeads(towers, config.size, config.embed_dim)
        if config.local_weight and isinstance(self.kinds.kind, Text):
            self.words = WordHeads(towers, self.space.text.channels[0], config.size, config.embed_dim)

    @property
    def encoder(self) -> Pyramid:  # type: ignore[override]
        """The first modality's."""
        return self.space.pyramids[0]

    def check_scans(self, modality: Tensor, patient: Tensor) -> None:
        needed = 1 if self.space.text is not None else 2
        if len(modality.unique()) < needed:
            found = self.kinds.names[int(modality[0])] or "unknown"
            raise UserError(
                f"all training scans are of modality '{found}'", fix="add scans of another, or --text tokens"
            )

    # Views ----------------------------------------------------------------------------------------------------

    def region(self) -> tuple[int, ...]:
        return region_for(self._crops)

    @torch.no_grad()
    def views(self, batch: Batch, rng: Rng) -> Views:
        config, view = self.config, single_view(batch.normalised(), self._crops, rng, self.config.mirror)
        if batch.modality is None:
            raise UserError("the batch does not tell its modalities", fix="give Batch.modality")
        codes = batch.modality.tolist()  # how many samples go through which tower: the one wait for the device
        if max(codes) >= len(names := self.kinds.names):
            raise UserError(f"modality number {max(codes)} of {len(names)}", fix=f"the names are {', '.join(names)}")
        subject = batch.patient if batch.subject is None else batch.subject
        images = {"x": view.x} | ({"clean": view.clean} if config.rebuild_weight else {})
        drawn = {"codes": codes, "modality": batch.modality, "subject": subject, "patient": batch.patient}
        if self.space.text is not None:
            images["text"], said = filled(batch.text, len(batch), self.space.text, view.x.device)
            drawn["content"] = fingerprint(images["text"]) * said
        if config.positives == "label":
            drawn["label"] = _there(batch.label, "label", "label")
        if config.positives == "structure":
            mask = mask_of_view(_there(batch.mask, "structure", "mask"), view.place, config.size)
            drawn["structures"] = mask, *structures(mask)
        if self.voxels is not None:
            if batch.place is None:
                raise UserError("the local form needs the place of each region", fix="give Batch.place")
            place = batch.place @ view.place.to(batch.place)
            options = config.size, self.voxels.grids, config.anchors, rng
            drawn["meetings"] = meetings(codes, subject.tolist(), place, *options)
        return Views(images, drawn)

    # Objective ------------------------------------------------------------------------------------------------

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        """align: Σ over pairs of modalities of ½[CE(z_a z_bᵀ/τ) + CE(z_b z_aᵀ/τ)], z = unit(head(pool(f(x)))).

        + local_weight · equal positions, or words and regions + rebuild_weight · ‖D(f(x)) − clean‖².
        """
        config, levels = self.config, () if self.voxels is None else self.voxels.levels
        encodes = self.space.encodes(views["x"], views["codes"], self.chunk, levels)
        text = self.space.read(views.images.get("text"), self.chunk, words=self.words is not None)
        order = torch.cat([encoded.rows for encoded in encodes.values()])
        ids = who_is_who(views.drawn, order, len(self.kinds.names))
        at = Together([encoded.cached for encoded in encodes.values()] + ([] if text is None else [text]))
        value = self._structures(encodes, views, progress) if config.positives == "structure" else None
        yield Term(config.objective, self._global(encodes, text, ids, progress) if value is None else value, at)
        if self.voxels is not None:
            yield Term("local", config.local_weight * self._voxels(self.voxels, encodes, views, progress), at)
        if self.words is not None and text is not None:
            yield Term("words", config.local_weight * self._words(self.words, encodes, text, views["text"], ids), at)
        for code, encoded in encodes.items():
            for part, shared in encoded.cached.again():
                if self.decoders is not None:
                    rows = encoded.rows[part]
                    value = rebuild_error(self.decoders[code](shared.maps), views["clean"][rows])
                    yield Term("rebuild", config.rebuild_weight * len(rows) / len(views["x"]) * value, shared)
                yield shared
        yield from (shared for _, shared in (() if text is None else text.again()))

    def _global(self, encodes: Encodes, text: Cached | None, ids: dict[str, Tensor], progress: float) -> Tensor:
        every, tau = distributed.gather_rows(unit(self.space(encodes, text))), self.temperature(progress)
        if self.config.objective == "discriminate":
            loss = discriminate_bce if self.config.form == "bce" else discriminate_supcon
            return loss(every, ids["modality"], tau)
        told = {name: ids.get(name) for name in ("alike", "apart", "present")}
        return self._align(every, ids["modality"], ids["subject"], tau, same=[ids["patient"]], **told)

    def _structures(self, encodes: Encodes, views: Views, progress: float) -> Tensor:
        """z = unit(head(mean of the coarsest map within a structure)): one label is one subject, whoever's it is."""
        mask, sample, label = views["structures"]
        z, order = self.space.within(encodes, mask, sample, label)
        every = (distributed.gather_rows(x) for x in (unit(z), views["modality"][sample[order]], label[order]))
        return self._align(*every, self.temperature(progress))

    def _align(self, *who: Any, **told: Any) -> Tensor:
        config, bias = self.config, 0.0 if self.bias is None else self.bias
        return align(*who, form=config.loss, bias=bias, beta=config.hard_beta, hardest=config.hard_top, **told)

    def _voxels(self, heads: VoxelHeads, encodes: Encodes, views: Views, progress: float) -> Tensor:
        """Equal positions in the world, of the views of two modalities."""
        met = views["meetings"]
        query, key = heads({code: encoded.maps[heads.levels[code]] for code, encoded in encodes.items()}, met.groups)
        ids = views["subject"][met.sample], views["patient"][met.sample]
        every = (distributed.gather_rows(x) for x in (unit(query), unit(key), met.world_mm, met.shown, *ids))
        query, key, world, shown, subject, patient = every
        options = self.temperature(progress), self.config.ignore_mm, [patient]
        return voxel_infonce(query, key, world, subject, shown, *options)

    def _words(self, heads: WordHeads, encodes: Encodes, text: Cached, tokens: Tensor, ids: Any) -> Tensor:
        """What each word of a text finds in an image; the sum over image modalities."""
        words, real = distributed.gather_rows(heads(text.maps[0])), distributed.gather_rows(tokens != 0)
        related = relations(ids["subject"], [ids["patient"]], ids["alike"], ids["present"], ids.get("apart"))
        groups = [(ids["modality"] == code).nonzero()[:, 0] for code in range(len(self.kinds.names) + 1)]
        total = words.sum() * 0
        for code, rows in enumerate(groups[:-1]):
            coarsest = encodes[code].coarsest if code in encodes else None
            regions = distributed.gather_rows(heads.regions(code, coarsest, words))
            positive, negative = (matrix[rows][:, groups[-1]] for matrix in related)
            total = total + word_infonce(regions, words, real, positive, negative)
        return total

    # Update ---------------------------------------------------------------------------------------------------

    def after_step(self, progress: float) -> None:
        """1/τ stays at most 100."""
        self.temperature.bound()

    def measures(self, progress: float) -> dict[str, float]:
        """What a line of the log says beside the terms."""
        return {"temperature": float(torch.as_tensor(self.temperature(progress)).detach())}


def _there(told: Tensor | None, positives: str, name: str) -> Tensor:
    if told is None:
        raise UserError(f"positives={positives} reads what the batch does not tell", fix=f"give Batch.{name}")
    return told
