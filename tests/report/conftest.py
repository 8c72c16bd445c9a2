"""Folders of runs and studies as medssl writes them, with made-up numbers and small pictures."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medssl.evaluate.verdict import ScoredRun, verdict
from medssl.files import write_json, write_toml
from medssl.report.facts import fingerprint

VERSIONS = {"python": "3.12.0", "medssl": "0.1.0", "torch": "2.13.0"}


def scan(rng: np.random.Generator, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A slice (size, size) in [0, 1] and its mask."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    cx, cy = rng.uniform(-0.15, 0.15, 2)
    body = (x**2 / 0.16 + y**2 / 0.2) < 1
    organ, lesion = (x - cx) ** 2 + (y - cy) ** 2 < 0.02, (x - cx - 0.05) ** 2 + (y - cy) ** 2 < 0.002
    image = 0.45 * body + 0.25 * organ + 0.2 * lesion + rng.normal(0, 0.03, (size, size))
    return image.clip(0, 1).astype(np.float16), organ.astype(np.uint8) + lesion


def write_pretraining(run: Path, rng: np.random.Generator) -> None:
    """A finished pre-training of 400 steps."""
    run.mkdir(parents=True)
    rows = [{"step": 0, "effective_rank": 3.0, "feature_std": 0.3, "probe.linear": 0.52}]
    for step in range(10, 401, 10):
        fall = np.exp(-step / 120)
        row = {"step": step, "contrast": 2.5 * fall + 1 + rng.normal(0, 0.05), "rebuild.hybrid": 0.2 * fall + 0.02}
        row |= {"lr": 1e-3 * fall, "samples_per_s": 120.0, "data_wait": 0.01, "eta_s": 3.0}
        if step % 80 == 0:
            row |= {"effective_rank": 3 + step / 60, "feature_std": 0.5, "probe.linear": 0.52 + step / 2000}
        rows.append(row)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 41')
    views = np.stack([scan(rng)[0][None] for _ in range(4)])
    gates = {"gate_rebuilt": views, "gate_target": views}
    names = np.array(["as it is", "flip x", "turn 90°", "turn 180°"])
    np.savez(run / "samples.npz", view=views, target=views, rebuilt=views, **gates, gate_names=names)
    np.savez(
        run / "embedding.npz",
        features=rng.normal(size=(40, 16)),
        label=np.array(["no", "yes"] * 20),
        split=np.array(["train"] * 40),
    )
    contract = {"axes": "C,X,Y,Z", "spacing_mm": [1.0, 1.0, 2.0], "value_range": [0.0, 1.0]}
    contract["modality"] = {"CT": {"normalise": "window"}}
    card = {"format": 1, "encoder": {"encoder": "resnet18"}, "preprocessing": contract, "data_hash": "ab" * 16}
    write_json(run / "encoder.json", card | {"method": "pcrl", "steps": 400, "transductive": False})
    options = {"steps": 400, "data": "/home/someone/DATA"}
    record = {"method": "pcrl", "options": options, "data": {"hash": "ab", "images": 60, "patients": 40}}
    write_toml(run / "run.toml", {"format": 1, **record, "versions": VERSIONS})


def write_finetuning(run: Path, rng: np.random.Generator, n: int, seed: int, dice: np.ndarray, init: str) -> None:
    """A finished segmentation run whose test patients score ``dice``."""
    run.mkdir(parents=True)
    names = [f"secret-patient-{i}" for i in range(len(dice))]
    pl.DataFrame({"item": names, "patient": names, "dice.1": dice, "hd95.1": 10 - 5 * dice}).write_parquet(
        run / "predictions.parquet"
    )
    samples, draw = {}, np.random.default_rng(3)
    for i in range(3):
        image, mask = scan(draw)
        shift = rng.integers(0, 4)
        samples |= {f"image.{i}": image, f"truth.{i}": mask, f"prediction.{i}": np.roll(mask, shift, 0)}
    np.savez(run / "samples.npz", **samples)
    value = float(dice.mean())
    result = {"task": "segment", "target": "mask", "metric": "dice", "value": value, "structures": ["1", "2"]}
    result["metrics"] = {"dice": value, "hd95": 4.0, "dice.1": 0.5}
    result |= {"n_labels": n, "n_train": n - 1, "n_val": 1, "n_test": len(dice), "subset_seed": seed, "init": init}
    result["test_hash"] = "cd" * 16
    write_json(run / "result.json", result)
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": s, "dice": 1 / s, "lr": 0.1}) + "\n" for s in range(1, 30))
    )
    write_toml(run / "run.toml", {"format": 1, "options": {"steps": 100}, "versions": VERSIONS})


def store_rows(rng: np.random.Generator, patients: int = 60) -> pl.DataFrame:
    """Rows of a store."""
    split = np.where(np.arange(patients) < 36, "train", np.where(np.arange(patients) < 42, "val", "test"))
    return pl.DataFrame({
        "item": [f"i{i}" for i in range(patients)], "patient": [f"secret-patient-{i}" for i in range(patients)],
        "hash": [f"h{i}" for i in range(patients)], "split": split, "modality": ["CT"] * patients,
        "shape": [[64, 64, 32]] * patients, "spacing_mm": [[1.0, 1.0, 2.0]] * patients, "has_mask": [True] * patients,
        "label.lesion": list(rng.choice(["no", "yes"], patients)),
    })  # fmt: skip


@pytest.fixture
def items() -> pl.DataFrame:
    """Rows of a store of 60 patients, 18 of them for testing."""
    return store_rows(np.random.default_rng(0))


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of scratch, pcrl and a user's arm, with 4, 8 and 16 labels and 4 seeds."""
    folder, rng = tmp_path_factory.mktemp("study"), np.random.default_rng(0)
    write_pretraining(folder / "pretrain" / "pcrl", rng)
    ease, runs, rows = rng.normal(0, 0.08, 18), [], []
    for arm, gains in {"scratch": (0, 0, 0), "pcrl": (0.08, 0.04, 0.005), "mine": (0.01, 0.0, -0.05)}.items():
        for n, gain, base in zip((4, 8, 16), gains, (0.45, 0.58, 0.68), strict=True):
            for seed in range(4):
                dice = (base + gain + ease + rng.normal(0, 0.012) + rng.normal(0, 0.02, 18)).clip(0, 1)
                run = folder / "runs" / f"{arm}-n{n}-s{seed}"
                write_finetuning(run, rng, n, seed, dice, "scratch" if arm == "scratch" else "pretrained")
                runs.append(ScoredRun(arm, n, seed, run / "predictions.parquet"))
                result = json.loads((run / "result.json").read_text())
                rows.append(
                    {"arm": arm, "n_labels": n, "seed": seed, "run": f"runs/{run.name}"}
                    | {k: result[k] for k in ("metric", "value", "metrics", "test_hash")}
                )
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(folder / "verdict.json", verdict(runs, task="segment"))
    write_json(
        folder / "data.json",
        fingerprint(store_rows(rng), {"spacing_mm": [1.0, 1.0, 2.0], "axes": "C,X,Y,Z"}, "ab" * 16),
    )
    options = {"task": "segment", "seeds": 4, "pretrain_steps": 400, "finetune_steps": 100, "n_labels": [4, 8, 16],
               "data": "/home/someone/DATA", "arms": ["scratch", "pcrl", "mine=/home/someone/RUN"]}  # fmt: skip
    tables = {"options": options, "pretrain": {"pcrl": {"lr": 0.001}}, "finetune": {"lr": 0.001}, "versions": VERSIONS}
    write_toml(folder / "study.toml", {"format": 1, **tables})
    return folder
