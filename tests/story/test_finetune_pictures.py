"""Pictures in two modalities, some missing in training and in the test: both tasks to the end, by any loader."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medssl.config import ModelOptions, replace
from medssl.report.page import write_run_report
from medssl.rng import stream
from medssl.stages import finetune, index, prepare
from medssl.stages.finetune_setup import set_up
from medssl.stages.options.data import Index, Prepare
from medssl.stages.options.train import Finetune, LoopOptions
from scans import reindexed

BOTH = ("CR", "PT")
LACKING = {1: "CR", 4: "PT", 13: "CR", 16: "PT"}  # of these patients, in training and in the test
PATIENTS, SIDE = 20, 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disc, small or large, bright in CR and dark in PT, whose pictures are larger; the CR carries the mask."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "scans/masks").mkdir(parents=True)
    rows = [["path", "patient_id", "study_id", "modality", "split", "mask_path", "size"]]
    for p in range(PATIENTS):
        rng = stream(0, "patient", p)
        cx, cy, radius = *rng.uniform(0.4, 0.6, 2), 0.12 + 0.14 * (p % 2)
        for modality in BOTH:
            if LACKING.get(p) == modality:
                continue
            y, x = np.mgrid[:SIDE, :SIDE] / SIDE
            disc = np.hypot(x - cx, y - cy) < radius
            grey = 100 + (80 if modality == "CR" else -80) * disc + rng.normal(0, 8, disc.shape)
            name = f"{p:02}_{modality}.png"
            Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / "scans" / name)
            Image.fromarray(disc.astype(np.uint8)).save(folder / "scans/masks" / name)
            split = "train" if p < 10 else "val" if p < 12 else "test"
            rows.append([name, f"p{p}", "1", modality, split, f"masks/{name}", "large" if p % 2 else "small"])
    with (folder / "scans/labels.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    out = index.run(Index(scans=folder / "scans", out=folder / "data", workers=1))
    return prepare.run(Prepare(data=out, workers=1))


def options(task: Any, data: Path, out: Path, **changes: Any) -> Finetune:
    model, loop = ModelOptions(width=4, patch=(32, 32)), LoopOptions(batch=4, workers=0, threads=1, device="cpu")
    target = "size" if task == "classify" else None
    given = Finetune(task=task, data=data, out=out, target=target, steps=3, modalities=BOTH, model=model, loop=loop)
    return replace(given, **changes)


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_from_pictures_to_a_report(data: Path, tmp_path: Path, task: str) -> None:
    run = finetune.run(options(task, data, tmp_path / "run", predictions=task == "segment"))
    result = json.loads((run / "result.json").read_text())
    told = result["modalities"]
    assert result["n_test"] == 8 and {told[part]["CR"]["n"] for part in ("alone", "left_out")} == {6}
    store = set_up(options(task, data, tmp_path)).store
    split = store.items["split"]
    for name in ("train", "test"):  # some lack CR, some PT, most have both
        assert (~store.present[(split == name).to_numpy()]).sum(0).tolist() == [1, 1], name  # type: ignore[attr-defined]
    if task == "segment":
        assert len(list((run / "predictions").glob("*.png"))) == 8
    page = write_run_report(run).read_text()
    assert "<td>CR alone</td>" in page and "All on the same 6 test items of 6 patients" in page


def test_loader_processes_change_nothing(data: Path, tmp_path: Path) -> None:
    states = []
    for workers in (0, 2):
        given = options("segment", data, tmp_path / str(workers))
        run = finetune.run(replace(given, loop=replace(given.loop, workers=workers)))
        states.append(load_file(run / "model.safetensors"))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_without_a_test_patient_who_has_all_nothing_is_compared(data: Path, tmp_path: Path) -> None:
    even, is_cr = pl.col("path").str.head(2).cast(pl.Int64) % 4 < 2, pl.col("path").str.contains("CR")
    kept = (pl.col("split") != "test") | (even == is_cr)  # CR of some patients, PT of the others
    other = reindexed(data, tmp_path / "data", lambda frame: frame.filter(kept))
    run = finetune.run(options("segment", other, tmp_path / "run"))
    told = json.loads((run / "result.json").read_text())["modalities"]
    assert not told["same"] and told["alone"]["CR"]["n"] + told["alone"]["PT"]["n"] == told["all"]["n"]
    assert all("difference" not in case for part in ("alone", "left_out") for case in told[part].values())
    assert "No test item has all of CR, PT" in write_run_report(run).read_text()
