"""What a person can say about evaluating a space of several modalities. No heavy imports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Test what a run of several modalities has learnt, on test patients that it never saw."""

    kind: Annotated[Literal["retrieval", "zeroshot"], tyro.conf.Positional]
    """retrieval: does a scan find its partner in another modality? zeroshot: are classes told apart by their names?"""
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a finished `medssl pretrain cmcl`."""
    data: Path
    """Folder that `medssl prepare` filled."""
    out: Path | None = None
    """Folder to write retrieval.json or zeroshot.json; by default RUN, whose report then shows them."""
    pair_by: str | None = None
    """retrieval: column of the index, or label, that tells which scans match; by default patient and study."""
    target: str | None = None
    """zeroshot: label column that holds the true classes."""
    prompts: Path | None = None
    """zeroshot: TOML with a list of texts for each class; by default the class's name in a few templates."""
    batch: int = 16
    """Scans or patches at once."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    seed: int = 0
    """Seed of the bootstrap."""
