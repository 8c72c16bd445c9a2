"""The arms of a study, and the single fine-tunings that they are compared by."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medssl.stages.options.train import Pretrain


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to begin. Exactly one of ``method`` (pre-trained here) and ``run`` (given) is set, or none: scratch."""

    name: str
    method: str | None = None
    run: Path | None = None
    options: Pretrain | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """Options of the method alone."""
    pretrainings: int = 1
    """How often it is pre-trained, each time from another seed; of scratch, from how many of their first weights."""

    @property
    def scratch(self) -> bool:
        """True for the arm that nothing was trained for."""
        return self.run is None and self.options is None

    def start(self, pretraining: int) -> str:
        """Name of what a run begins with. The first is the arm's own, so that more of them extend a study."""
        return self.name if pretraining == 1 else f"{self.name}-p{pretraining}"

    def pretrain(self, pretraining: int) -> Pretrain:
        """The options of that pre-training."""
        assert self.options is not None
        model = replace(self.options.model, seed=first_seed(self.options.model.seed, pretraining))
        return replace(self.options, model=model)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One fine-tuning of a study."""

    arm: Arm
    pretraining: int
    """Which one of the arm it begins with, counted from 1."""
    n_labels: int | None
    """None: all labelled patients."""
    seed: int
    folder: Path

    @property
    def start(self) -> str:
        """Name of what it begins with."""
        return self.arm.start(self.pretraining)


def first_seed(seed: int, pretraining: int) -> int:
    """The seed of a study's pre-training of that number; its scratch draws the encoder's first weights from it, too."""
    return seed + pretraining - 1
