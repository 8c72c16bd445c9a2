"""The recipes: each can be read, and one of them goes from a folder of real images to a verdict."""

import csv
import json
from pathlib import Path

import pytest

from medssl.cli import main
from medssl.stages.options.study import Study
from medssl.stages.recipe import read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_can_be_read(path, tmp_path):
    recipe = read_recipe(Study(config=path, data=tmp_path, out=tmp_path / "study"))
    assert recipe.arms[0].name == "scratch" and len(recipe.arms) > 1
    head = path.read_text().split("task =")[0]
    assert f"recipes/{path.name}" in head, "its first lines say the command"


def test_a_folder_of_real_images_goes_to_a_verdict_without_code(shared_data, tmp_path):
    """As the README lays a folder out: images beside a table with path, patient and a label."""
    scans = shared_data / "cxr_nih64"
    with (scans / "index.csv").open() as handle:
        rows = list(csv.DictReader(handle))[:160]
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ["path", "patient_id", "abnormal"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, "path": Path(row["path"]).name} for row in rows)
    data, out = tmp_path / "DATA", tmp_path / "STUDY"
    few = "--arms scratch pcrl --n-labels 8 --seeds 2 --pretrain-steps 3 --finetune-steps 3 --width 4 --batch 8"
    recipe = next(path for path in RECIPES if path.stem == "500_scans")
    for command in (
        f"index {scans / 'images'} --table {table} --modality CR --out {data}",
        f"prepare {data} --size 32",
        f"study --config {recipe} --data {data} --out {out} {few}",
    ):
        assert main(command.split()) == 0
    verdict = json.loads((out / "verdict.json").read_text())
    (at,) = verdict["labels"]
    assert set(at["arms"]) == {"scratch", "pcrl"} and at["n_labels"] == 8
    (compared,) = at["comparisons"]
    assert compared["arm"] == "pcrl" and compared["verdict"] in ("helped", "harmed", "did not help", "cannot tell")
    assert (out / "report.html").stat().st_size > 10_000
    assert len((out / "results.jsonl").read_text().splitlines()) == 4 and (out / "predictions.parquet").exists()
