"""What a person can say about evidence: study, report, demo. No heavy imports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Study:
    """Answer with numbers whether pre-training helps: the same patients, labels and seeds for every arm."""

    data: Path | None = None
    """Folder that `medssl prepare` filled."""
    out: Path
    """Folder of the study. The same command again does what is missing."""
    config: Path | None = None
    """Recipe (TOML) with these options and tables [pretrain], [pretrain.ARM] and [finetune]; options given here win."""
    task: Literal["classify", "segment"] = "classify"
    """Downstream task."""
    target: str | None = None
    """Label column (classify)."""
    arms: tuple[str, ...] = ("scratch", "pcrl")
    """scratch, a method's name (pre-trained once here), or NAME=RUN for a finished run or an encoder file."""
    n_labels: tuple[int, ...] = (10, 30, 100)
    """Labelled patients, validation included."""
    seeds: int = 5
    """Label subsets and initialisations."""
    margin: float = 0.01
    """Differences inside ± this are called no help."""
    pretrain_steps: int = 2000
    """Steps of each pre-training."""
    finetune_steps: int = 400
    """Steps of each fine-tuning."""
    batch: int = 16
    """Samples a step."""
    transductive: bool = False
    """Let pre-training see the images of test patients; the report flags it."""
    jobs: int = 1
    """Fine-tunings at once."""
    cluster: str | None = None
    """Address of a Dask scheduler (tcp://…)."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    seed: int = 0
    """Seed of pre-training and of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write report.html of a run or a study anew from its files."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of a run or a study."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Generate phantoms and run the main job on them: index, prepare, pretrain, study, report."""

    out: Path = Path("demo")
    """Folder to write."""
    task: Literal["segment", "classify"] = "segment"
    """Downstream task of the study."""
    dims: Literal[2, 3] = 3
    """Volumes or images."""
    patients: int = 48
    """Patients to generate."""
    steps: int = 0
    """Pre-training steps; 0 takes what fits six minutes on two cores."""
    seed: int = 0
    """Seed of phantoms and training."""
    short: bool = False
    """The same way with a tenth of the steps, to see that everything works; its verdict means nothing."""
