"""``medssl.load_finetuned(RUN)``: a classifier or segmenter of `medssl finetune` that prepares its scans itself."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from medssl.config import from_table
from medssl.data.adapt import Adapted
from medssl.data.plan import Plan
from medssl.data.whole import whole
from medssl.errors import UserError
from medssl.loading import Scan, as_volume, card_at, read_weights
from medssl.networks.weights import load_state
from medssl.tasks.classify import Classify, ClassifyConfig
from medssl.tasks.segment import Segment, SegmentConfig
from medssl.volume import Volume

WEIGHTS, CARD = "model.safetensors", "model.json"
T = TypeVar("T", Classify, Segment)


@dataclass(frozen=True)
class FineTuned(Generic[T]):
    """A network with its preprocessing; ``card`` is model.json. ``task.to(device)`` moves it.

    A scan is what an encoder takes (``medssl.load``): a path, a ``medssl.volume.Volume``, or an array with
    ``spacing_mm`` or ``affine``.
    """

    task: T
    plan: Plan
    card: dict[str, Any]

    def _adapted(self, scan: Scan, how: dict[str, Any]) -> Adapted:
        several = self.task.config.modalities
        if len(several) > 1:
            what = f"the network takes {' and '.join(several)} of a patient together"
            raise UserError(what, fix="use `medssl predict`, which brings them together")
        return self.plan.prepare(as_volume(scan, self.plan, *several, **how))

    def _present(self) -> torch.Tensor | None:
        """(1,) bool for a network with an encoder for its one modality."""
        return torch.ones(1, dtype=torch.bool, device=self.device) if self.task.config.modalities else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.task.parameters()).device


class Classifier(FineTuned[Classify]):
    """``classifier(scan)`` is the probability of each class, by its name."""

    def __call__(self, scan: Scan, **how: Any) -> dict[str, float]:
        """``how`` as for ``Encoder.prepared``: spacing_mm, affine, modality."""
        found, config = self._adapted(scan, how), self.task.config
        image = whole(found.image, config.size, float(found.fill)).float() * found.gain + found.bias
        present = self._present()
        seen = image.clamp(*config.value_range)[None].to(self.device)
        prob = self.task.predict(seen, None if present is None else present[None])[0]
        return dict(zip(config.classes, prob.tolist(), strict=True))


class Segmenter(FineTuned[Segment]):
    """``segmenter(scan)`` is the mask, a Volume (1, *spatial) of mask values on the voxels of the scan as it came."""

    def __call__(self, scan: Scan, **how: Any) -> Volume:
        """``how`` as for ``Encoder.prepared``: spacing_mm, affine, modality."""
        found, config = self._adapted(scan, how), self.task.config
        image = torch.from_numpy(found.normalised(config.value_range)).to(self.device)
        fill = float(np.clip(found.fill * found.gain + found.bias, *config.value_range))
        return found.grid.back(as_mask(self.task.predict(image, fill, self._present()).cpu().numpy()))


def as_mask(values: np.ndarray) -> np.ndarray:
    """Mask values in the smallest type that holds them, of those that pictures have too."""
    return values.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16)


def load_finetuned(run: str | Path) -> Classifier | Segmenter:
    """The network of a finished `medssl finetune`: its folder, or a model.safetensors with its model.json beside it."""
    weights = _find(Path(run))
    where = weights.with_name(CARD)
    if not where.exists() and (weights.parent / "run.toml").exists():
        raise UserError(
            f"no {CARD}", weights.parent, "an older medssl wrote none: run the same `medssl finetune` again"
        )
    card = card_at(where, ("network", "preprocessing"))
    plan = Plan.from_contract(card["preprocessing"])
    if card.get("task") == "classify":
        classifier = Classify(from_table(ClassifyConfig, card["network"], where))
        load_state(classifier, read_weights(weights), weights)
        return Classifier(classifier.eval(), plan, card)
    if card.get("task") == "segment":
        segmenter = Segment(from_table(SegmentConfig, card["network"], where))
        load_state(segmenter, read_weights(weights), weights)
        return Segmenter(segmenter.eval(), plan, card)
    raise UserError(f"no task '{card.get('task')}'", where, "copy it again from the run that wrote the weights")


def stamp(run: str | Path) -> str:
    """A name for these weights: the same wherever they lie."""
    return hashlib.blake2b(_find(Path(run)).read_bytes(), digest_size=8).hexdigest()


def _find(path: Path) -> Path:
    weights = path / WEIGHTS if path.is_dir() else path
    if weights.is_file():
        return weights
    if (path / "encoder.safetensors").is_file():
        raise UserError("a run of pre-training has no task yet", path, "run `medssl finetune --init` with it first")
    fix = f"give a finished run of `medssl finetune`, or its {WEIGHTS} with {CARD} beside it"
    raise UserError(f"no {WEIGHTS}" if path.is_dir() else "no such network", path, fix)
