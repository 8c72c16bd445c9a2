"""What a person can say about training: pretrain, finetune, embed. No heavy imports."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from medssl.config import ModelOptions, OptimOptions
from medssl.methods import METHODS

USUAL = tyro.conf.arg(help_behavior_hint="(default: the method's)")


@dataclass(frozen=True, kw_only=True)
class MethodOptim:
    """Optimiser and schedule; what nobody says is the method's own, see docs/explanation/optimisers.md."""

    optimizer: Annotated[Literal["adamw", "sgd"] | None, USUAL] = None
    """Optimiser; the papers of PCRL use SGD with momentum .9."""
    lr: Annotated[float | None, USUAL] = None
    """Peak learning rate."""
    weight_decay: Annotated[float | None, USUAL] = None
    """Weight decay, on weights of convolutions and linear layers only."""
    betas: Annotated[tuple[float, float] | None, USUAL] = None
    """AdamW: shares of its running means of the gradient and of its square that a step keeps."""
    warmup: Annotated[float | None, USUAL] = None
    """Share of the steps over which the learning rate rises; cosine to zero after it."""
    clip: Annotated[float | None, USUAL] = None
    """Largest gradient norm; 0 for no clipping."""


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """Length, machine and bookkeeping of a run."""

    batch: int = 16
    """Samples a step; pretrain: 0 chooses from the number of scans."""
    workers: int | None = None
    """Loader processes, by default as many as the first steps show to be needed; the result does not depend on it."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    save_every_steps: int = 0
    """Steps between checkpoints; 0 goes by time."""
    save_every_minutes: float = 5.0
    """Minutes between checkpoints."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """auto takes bf16 where the machine is fast in it. Stored in run.toml and kept on resume."""
    deterministic: bool = False
    """Bit-equal repeats on a GPU too; can be much slower there."""
    threads: int = 0
    """CPU threads of torch; 0 leaves its default."""


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Pre-train an encoder on prepared scans, without labels."""

    method: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="METHOD",
            help=f"Method: {', '.join(METHODS)}. `medssl pretrain METHOD --help` shows its own options too.",
        ),
    ]
    """Method of pre-training, by its name in METHODS."""
    data: Path
    """Folder that `medssl prepare` filled."""
    out: Path
    """Folder of the run. The same command again resumes it."""
    steps: int = 0
    """Optimiser steps; 0 chooses from the number of scans."""
    pair_by: str | None = None
    """For methods that compare modalities: column of the index, or label, that tells which scans belong together; by
    default patient and study."""
    transductive: bool = False
    """Also learn from the images of test patients; reports flag it."""
    foreground: float = 0.5
    """Share of regions cut about a foreground voxel, the rest anywhere; of no effect on scans of a region's size."""
    probe_every: int = 0
    """Steps between frozen-encoder probes and collapse checks; 0 probes ten times a run."""
    probe_target: str | None = None
    """Label column that the probe predicts (train split only); by default the first usable one."""
    patience: int | None = None
    """Keep the encoder of the best probe (the mean of all, on labels and masks of training patients), and end once so
    many probes in a row were no better. The learning rate falls over all of --steps: a run that ends early ends at a
    high rate. By default all steps are taken and the last encoder is kept."""
    sync_norm: bool = False
    """With several processes: batch norm takes its statistics over all of them, so that their number changes nothing,
    but rounding."""
    tensorboard: bool = False
    """Also write TensorBoard events."""
    explain: bool = False
    """Say what the run would be, and why each number was chosen; train nothing."""
    accumulate: int | None = None
    """Parts that the batch of a step is taken in, for less memory: their gradients add up to the same, but batch norm
    averages over a part. By default one, and more when memory runs out."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, the same gradients."""
    compile: bool = False
    """Compile encoder and decoder with torch.compile; needs a C++ compiler on a CPU."""
    cache: Literal["auto", "on", "off", "device"] = "auto"
    """Hold the training scans in memory, unpacked. auto: where the first steps wait for data and they fit. device: in
    the memory of the device that trains, which then cuts the crops itself, without loader processes."""
    preflight: bool = True
    """After the first steps say how long the run takes, what bounds it and what would help."""
    model: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    optim: tyro.conf.OmitArgPrefixes[MethodOptim] = field(default_factory=MethodOptim)
    loop: tyro.conf.OmitArgPrefixes[LoopOptions] = field(default_factory=lambda: LoopOptions(batch=0))


@dataclass(frozen=True, kw_only=True)
class Preflight(Pretrain):
    """Measure for at most two minutes what a pre-training would cost, and name better options. Nothing is written."""

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Folder that `medssl prepare` filled."""
    method: Annotated[str, tyro.conf.arg(metavar="METHOD", help=f"Method: {', '.join(METHODS)}.")]
    """Method of pre-training, by its name in METHODS."""
    out: Annotated[Path, tyro.conf.Suppress] = Path("RUN")
    """Of no use here."""
    explain: Annotated[bool, tyro.conf.Suppress] = False
    """Of no use here."""
    hours: float | None = None
    """Time there is: tells how many steps fit into it."""


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Train a classifier or a segmenter from a pre-trained encoder or from scratch, and test it."""

    task: Annotated[Literal["classify", "segment"], tyro.conf.Positional]
    """classify needs a label column, segment needs masks."""
    data: Path
    """Folder that `medssl prepare` filled."""
    out: Path
    """Folder of the run. The same command again resumes it."""
    init: str = "scratch"
    """A run folder of `medssl pretrain`, an encoder.safetensors, or scratch. A run of cmcl has an encoder for each
    modality: that of the scans is taken."""
    encoder_seed: int | None = None
    """From scratch: seed of the encoder's first weights; by default --seed, from which all else is drawn. With the seed
    of a pre-training the encoder begins where that one did."""
    modalities: tuple[str, ...] = ()
    """Modalities of each patient and study to learn from together, an encoder each, such as CT MR-T1; a patient may
    lack some. Of one, only its scans are taken. By default all scans go through one encoder."""
    test_modalities: tuple[str, ...] = ()
    """With one of --modalities: others to show the trained network on test patients, such as MR-T1. Learn from CT, test
    on MR: the report compares both on the same patients."""
    modality_dropout: float = 0.25
    """With --modalities: chance that training leaves a modality of a sample out; one always stays."""
    target: str | None = None
    """classify: label column; columns joined by + make a multi-label task; by default the only usable one.
    segment: mask values joined by +; by default all that occur."""
    n_labels: int | None = None
    """Labelled patients to use, validation included; by default all."""
    subset_seed: int = 0
    """Which subset of that size; subsets of one seed are nested."""
    steps: int = 400
    """Optimiser steps."""
    validate_every: int = 50
    """Steps between validations; the best one is kept."""
    freeze: bool = False
    """Train the head only, and keep a pre-trained encoder as it is. From scratch everything learns."""
    head_first: float = 0.0
    """Share of the steps that train the head only, before a pre-trained encoder learns with it; from scratch 0."""
    encoder_lr: float = 1.0
    """Learning rate of a pre-trained encoder, as a multiple of --lr."""
    augment: bool = True
    """Turn, shift, zoom and re-window training images a little."""
    mirror: Literal["auto", "on", "off"] = "auto"
    """Exchange left and right in augmentation. auto: not where several structures may be told apart by their side."""
    foreground: float = 0.5
    """segment: share of training patches centred on a structure."""
    predictions: bool = False
    """Also write the predicted masks as NIfTI or PNG in the geometry of the original scans."""
    model: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    # What makes scratch strongest within a few hundred steps, so that it is an honest opponent (ADR 0009).
    optim: tyro.conf.OmitArgPrefixes[OptimOptions] = field(default_factory=lambda: OptimOptions(lr=3e-3, clip=1.0))
    loop: tyro.conf.OmitArgPrefixes[LoopOptions] = field(default_factory=lambda: LoopOptions(workers=0))


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Write the features of every scan: features.parquet and features.npz."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or an encoder.safetensors. Of a run of cmcl each scan goes through its modality's encoder."""
    data: Path
    """Folder that `medssl prepare` filled."""
    out: Path
    """Folder to write."""
    batch: int = 16
    """Scans or patches at once."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Show scans to a fine-tuned network: predictions.csv, and of a segmenter a mask on the voxels of each scan's file.
    The same command again goes on with the masks that are missing."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of `medssl finetune`, or a model.safetensors with its model.json beside it."""
    data: Path
    """Folder that `medssl prepare` filled, under the plan.toml of the scans that it learnt from."""
    out: Path
    """Folder to write."""
    split: Literal["all", "train", "val", "test"] = "all"
    """Which scans. Of those it learnt from, in train, it knows more than of others."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: str = "auto"
    """32, bf16 or 16; auto: bf16 where the hardware has it."""
    threads: int = 0
    """Threads of the processor; 0 for as many as there are cores."""
