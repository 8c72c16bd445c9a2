"""`medssl demo`: the whole way on generated patients, from a folder of scans to a verdict, in minutes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medssl.data.phantom import MODALITIES
from medssl.errors import UserError
from medssl.files import write_toml
from medssl.stages import evaluate, index, phantom, prepare, study
from medssl.stages.options.data import Index, Phantom, Prepare
from medssl.stages.options.evaluate import Evaluate
from medssl.stages.options.study import Demo, Study

SMOKE = "A short run, made to see that everything works: its verdict means nothing."


@dataclass(frozen=True)
class Network:
    """What both arms train."""

    encoder: str
    width: int
    patch: tuple[int, ...]
    lr: float
    """Of pre-training."""
    batch: int = 8
    norm: str = "batch"


@dataclass(frozen=True)
class Budget:
    """What fits the time on two cores."""

    size: int
    """Voxels along the longest side of a phantom."""
    network: Network
    pretrain_steps: int
    finetune_steps: int
    n_labels: tuple[int, ...]
    seeds: int
    most_patients: int = 10_000


# The paper's own network in 3D: a ResNet leaves one position of 32³ voxels, from which no decoder can draw.
VOLUMES = Network("poolunet", 8, (32, 32, 32), lr=1e-3)
IMAGES = Network("resnet18", 16, (96, 96), lr=3e-3)
FULL = {
    3: Budget(48, VOLUMES, pretrain_steps=180, finetune_steps=120, n_labels=(4, 12), seeds=4),
    2: Budget(96, IMAGES, pretrain_steps=300, finetune_steps=100, n_labels=(6, 18), seeds=5),
}
SHORT = {
    3: Budget(32, VOLUMES, pretrain_steps=4, finetune_steps=4, n_labels=(4,), seeds=2, most_patients=12),
    2: Budget(96, IMAGES, pretrain_steps=4, finetune_steps=4, n_labels=(6,), seeds=2, most_patients=12),
}
# One encoder for CT and MR, so that one study can start from it; without batch norm, whose averages over both
# modalities are those of neither. Crops are large: retrieval compares whole scans.
BOTH = Network("resnet18", 16, (32, 32, 32), lr=1e-3, batch=16, norm="group")
PAIRED = Budget(40, BOTH, pretrain_steps=300, finetune_steps=80, n_labels=(4, 12), seeds=3)
SETTINGS: dict[str, dict[str, Any]] = {
    "pcrl": {"rebuild_weight": "balanced"},
    "cmcl": {"share": "all", "crop": [0.8, 1.0]},
}
# Liver and heart, lungs and heart: what a few dozen steps can learn. Smaller ones would be missed by some seeds and
# not by others, and nothing but that would be measured.
ORGANS = {3: "1+2", 2: "1+2"}


def run(options: Demo) -> Path:
    """Run all stages into ``out``; what is there already is kept. Returns the folder of the study."""
    if options.steps < 0:
        raise UserError(f"--steps is {options.steps}", fix="give 1 or more, or 0 for what fits")
    paired = options.method == "cmcl"
    if paired and options.dims != 3:
        raise UserError("cmcl compares volumes of CT and MR here", "--dims", "give 3")
    out, budget = options.out, _budget(options)
    patients = min(options.patients, budget.most_patients)
    kinds = MODALITIES[options.dims][: 2 if paired else 1]
    phantom.run(
        Phantom(
            out=out / "scans", patients=patients, dims=options.dims, seed=options.seed, size=budget.size,
            modalities=kinds,
        )
    )  # fmt: skip
    index.run(Index(scans=out / "scans", out=out / "data", seed=options.seed, fractions=(0.6, 0.1, 0.3)))
    prepare.run(Prepare(data=out / "data", dims=options.dims))
    write_toml(out / "recipe.toml", _recipe(options, budget))
    study.run(Study(out=out / "study", config=out / "recipe.toml"), [SMOKE] if options.short else [])
    if paired:
        evaluate.run(Evaluate(kind="retrieval", run=out / "study" / "pretrain" / "cmcl", data=out / "data"))
    return out / "study"


def _budget(options: Demo) -> Budget:
    if options.method == "cmcl":
        return replace(SHORT[3], network=BOTH) if options.short else PAIRED
    return (SHORT if options.short else FULL)[options.dims]


def _recipe(options: Demo, budget: Budget) -> dict[str, Any]:
    """The study, left in the folder to be read, changed, and run by `medssl study --config`."""
    network = budget.network
    return {
        "data": str(options.out / "data"),
        "task": options.task,
        "target": "lesion" if options.task == "classify" else ORGANS[options.dims],
        "arms": ["scratch", options.method],
        "n_labels": list(budget.n_labels),
        "seeds": budget.seeds,
        "seed": options.seed,
        "encoder": network.encoder,
        "width": network.width,
        "norm": network.norm,
        "jobs": 2,
        "pretrain": {
            "steps": options.steps or budget.pretrain_steps,
            "patch": list(network.patch),
            "batch": network.batch,
            "lr": network.lr,
            options.method: SETTINGS[options.method],
        },
        "finetune": {"steps": budget.finetune_steps, "patch": list(network.patch), "batch": 4, "lr": 5e-3},
    }
