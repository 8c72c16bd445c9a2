"""What a person can say about evidence: study, report, demo. No heavy imports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

# What a study does where neither the command line nor the recipe says otherwise. Its options are None until someone
# says something, so that an option given on the command line wins over the recipe even if it repeats the default.
DEFAULTS: dict[str, Any] = {
    "task": "classify",
    "target": None,
    "arms": ("scratch", "pcrl"),
    "n_labels": (10, 30, 100),
    "seeds": 5,
    "pretrain_seeds": 1,
    "margin": 0.01,
    "encoder": "resnet18",
    "width": None,
    "norm": "batch",
    "pretrain_steps": None,
    "finetune_steps": 400,
    "batch": None,
    "transductive": False,
    "jobs": 1,
    "cluster": None,
    "device": "auto",
    "seed": 0,
    "known": (),
    "compare": (),
}


def _default(name: str, metavar: str) -> Any:
    value = DEFAULTS[name]
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="" if value in (None, ()) else f"(default: {shown})")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Answer with numbers whether pre-training helps: the same patients, labels and seeds for every arm."""

    data: Annotated[Path | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="(required here or there)")] = None
    """Folder that `medssl prepare` filled; given here or in the recipe."""
    out: Annotated[Path, tyro.conf.arg(metavar="STUDY")]
    """Folder of the study. The same command again does what is missing; more seeds, label counts or arms extend it."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Recipe (TOML) with these options and tables [pretrain], [pretrain.ARM] and [finetune]; options given here win."""
    task: Annotated[Literal["classify", "segment"] | None, _default("task", "{classify,segment}")] = None
    """Downstream task."""
    target: Annotated[str | None, _default("target", "COLUMN")] = None
    """classify: label column, by default the only usable one. segment: mask values joined by +, by default all."""
    arms: Annotated[tuple[str, ...] | None, _default("arms", "ARM [ARM ...]")] = None
    """scratch, a method's name (pre-trained once here), a table [pretrain.ARM] of the recipe, or NAME=RUN for a
    finished run or an encoder file."""
    n_labels: Annotated[tuple[int | Literal["all"], ...] | None, _default("n_labels", "N|all [N|all ...]")] = None
    """Labelled patients, validation included; all for every one, then with the split's own validation patients."""
    seeds: Annotated[int | None, _default("seeds", "INT")] = None
    """Label subsets, each with a head or decoder drawn anew."""
    pretrain_seeds: Annotated[int | None, _default("pretrain_seeds", "INT")] = None
    """Pre-trainings of each arm, from seed, seed + 1, …; each is fine-tuned with all --seeds, and so is scratch, from
    the first weights of each."""
    margin: Annotated[float | None, _default("margin", "FLOAT")] = None
    """Differences inside ± this are called no help."""
    encoder: Annotated[str | None, _default("encoder", "NAME")] = None
    """Encoder of every arm: resnet18, resnet34, resnet50, unet, resunet, poolunet, swin."""
    width: Annotated[int | None, _default("width", "INT")] = None
    """Channels of the first level; by default what the machine can train, as `medssl pretrain --explain` tells."""
    norm: Annotated[Literal["batch", "instance", "group"] | None, _default("norm", "{batch,instance,group}")] = None
    """Normalisation layers."""
    pretrain_steps: Annotated[int | None, _default("pretrain_steps", "INT")] = None
    """Steps of each pre-training; by default chosen from the number of scans."""
    finetune_steps: Annotated[int | None, _default("finetune_steps", "INT")] = None
    """Steps of each fine-tuning."""
    batch: Annotated[int | None, _default("batch", "INT")] = None
    """Samples a step; by default chosen from the number of scans for pre-training, 16 for fine-tuning."""
    transductive: bool = False
    """Let pre-training see the images of test patients; the report flags it."""
    jobs: Annotated[int | None, _default("jobs", "INT")] = None
    """Fine-tunings at once."""
    cluster: Annotated[str | None, _default("cluster", "tcp://…")] = None
    """Address of a Dask scheduler that runs the fine-tunings."""
    device: Annotated[str | None, _default("device", "NAME")] = None
    """auto, cpu, cuda or mps."""
    seed: Annotated[int | None, _default("seed", "INT")] = None
    """Seed of pre-training and of the bootstrap."""
    known: Annotated[tuple[Path, ...] | None, _default("known", "DIR [DIR ...]")] = None
    """Folders with results.jsonl and predictions.parquet of earlier studies: runs that are recorded there under the
    same key (settings, scans, labels, seed) are taken from there and not run again."""
    compare: Annotated[tuple[str, ...] | None, _default("compare", "A:B [A:B ...]")] = None
    """Pairs of arms to compare with each other, beside each with scratch: pcrl:moco."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write report.html of a run or a study anew from its files."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of a run or a study."""
    compare: Annotated[tuple[str, ...], tyro.conf.arg(metavar="A:B [A:B ...]", help_behavior_hint="")] = ()
    """Pairs of arms of the study to compare with each other, as in pcrl:moco."""
    ranks: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="STUDY [STUDY ...]", help_behavior_hint="")] = ()
    """More studies: print the mean rank of each arm over all label counts of all of them."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Generate phantoms and run the main job on them: index, prepare, pretrain, study, report."""

    out: Path = Path("demo")
    """Folder to write."""
    method: Literal["pcrl", "cmcl"] = "pcrl"
    """Method: pcrl on CT, or cmcl on CT beside MR of the same patients, which also tests retrieval."""
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
