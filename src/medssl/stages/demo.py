"""`medssl demo`: the whole way on generated patients, from a folder of scans to a verdict, in minutes."""

from dataclasses import dataclass
from pathlib import Path

from medssl.files import write_toml
from medssl.stages import index, phantom, prepare, study
from medssl.stages.options.data import Index, Phantom, Prepare
from medssl.stages.options.study import Demo, Study

SMOKE = "A short run, made to see that everything works: its verdict means nothing."


@dataclass(frozen=True)
class Budget:
    """What fits the time: measured on two cores, 3D."""

    patients: int
    size: int
    pretrain_steps: int
    finetune_steps: int
    n_labels: tuple[int, ...]
    seeds: int
    width: int
    patch: tuple[int, ...]
    batch: int


FULL = {
    3: Budget(48, 48, 300, 100, (4, 12), 3, 16, (32, 32, 32), 8),
    2: Budget(48, 96, 400, 100, (6, 24), 5, 16, (96, 96), 16),
}
SHORT = {3: Budget(12, 32, 4, 4, (4,), 2, 8, (32, 32, 32), 4), 2: Budget(12, 64, 4, 4, (6,), 2, 8, (64, 64), 8)}


def run(options: Demo) -> Path:
    """Run all stages into ``out``; what is there already is kept. Returns the folder of the study."""
    out, budget = options.out, (SHORT if options.short else FULL)[options.dims]
    patients = min(options.patients, budget.patients) if options.short else options.patients
    scans, data = out / "scans", out / "data"
    phantom.run(Phantom(out=scans, patients=patients, dims=options.dims, seed=options.seed, size=budget.size))
    index.run(Index(scans=scans, out=data, seed=options.seed, fractions=(0.6, 0.1, 0.3)))
    prepare.run(Prepare(data=data, dims=options.dims))
    recipe = out / "recipe.toml"
    write_toml(recipe, _recipe(options, budget, data))
    return study.run(Study(out=out / "study", config=recipe), [SMOKE] if options.short else [])


def _recipe(options: Demo, budget: Budget, data: Path) -> dict[str, object]:
    """The study as a recipe, left in the folder to be changed and run again by `medssl study --config`."""
    return {
        "data": str(data),
        "task": options.task,
        "target": "lesion" if options.task == "classify" else None,
        "arms": ["scratch", "pcrl"],
        "n_labels": list(budget.n_labels),
        "seeds": budget.seeds,
        "width": budget.width,
        "batch": budget.batch,
        "seed": options.seed,
        "pretrain": {"steps": options.steps or budget.pretrain_steps, "patch": list(budget.patch)},
        "finetune": {
            "steps": budget.finetune_steps,
            "patch": list(budget.patch),
            "validate_every": max(1, budget.finetune_steps // 4),
        },
    }
