"""A study from the command line, with real training: verdict, report, resumption, and mistakes told in a sentence."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from medssl.cli import main
from medssl.data.store import Store
from medssl.files import read_json, read_toml, write_toml

FAST = {"steps": 3, "workers": 0, "patch": [32, 32], "log_every": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Prepared radiographs of 12 generated patients."""
    folder = tmp_path_factory.mktemp("study")
    assert main(["phantom", str(folder / "scans"), "--patients", "12", "--dims", "2", "--size", "32"]) == 0
    index = ["index", str(folder / "scans"), "--out", str(folder / "data"), "--workers", "1"]
    assert main([*index, "--fractions", "0.5", "0.1", "0.4"]) == 0
    assert main(["prepare", str(folder / "data"), "--workers", "1"]) == 0
    return folder / "data"


@pytest.fixture(scope="module")
def recipe(data) -> Path:
    """Scratch, PCRL, and PCRL without its reconstruction; tiny."""
    path = data.parent / "recipe.toml"
    arms = {"contrast_only": {"method": "pcrl", "rebuild_weight": 0.0}}
    table = {"data": str(data), "task": "segment", "arms": ["scratch", "pcrl", "contrast_only"], "n_labels": [3]}
    table |= {"seeds": 2, "width": 8, "batch": 4, "pretrain": FAST | arms, "finetune": {"steps": 3, "patch": [32, 32]}}
    write_toml(path, table)
    return path


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    """The study of that recipe."""
    out = tmp_path_factory.mktemp("out") / "study"
    assert main(["study", "--config", str(recipe), "--out", str(out)]) == 0
    return out


def test_the_folder_describes_itself(finished):
    verdict = read_json(finished / "verdict.json")
    comparisons = verdict["labels"][0]["comparisons"]
    assert [c["arm"] for c in comparisons] == ["pcrl", "contrast_only"] and verdict["metric"] == "dice"
    rows = [json.loads(line) for line in (finished / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and len({row["test_hash"] for row in rows}) == 1
    watched = {"probe.linear", "probe.knn", "probe.voxel", "effective_rank", "feature_std"}
    for row in rows:
        assert row["seconds"] > 0 and row["hardware"].count(", ") == 3
        assert watched <= row["pretrain"].keys() if row["arm"] != "scratch" else row["pretrain"] == {}
    last = json.loads((finished / "pretrain/pcrl/metrics.jsonl").read_text().splitlines()[-1])
    assert rows[-3]["pretrain"]["effective_rank"] == last["effective_rank"]
    terms = {arm: read_terms(finished / "pretrain" / arm) for arm in ("pcrl", "contrast_only")}
    assert "rebuild_hybrid" in terms["pcrl"] and "rebuild_hybrid" not in terms["contrast_only"]
    page = (finished / "report.html").read_text()
    assert verdict["sentence"] in page and "Reconstructions by pcrl" in page


def read_terms(run: Path) -> set[str]:
    return set(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]))


def test_arms_of_one_seed_begin_with_the_same_patients(finished):
    results = {run.name: read_json(run / "result.json") for run in (finished / "runs").iterdir()}
    for seed in (0, 1):
        mine = [r for name, r in results.items() if name.endswith(f"-s{seed}")]
        assert len({(r["n_train"], r["n_val"], r["n_test"], r["n_labels"], r["subset_seed"]) for r in mine}) == 1


def test_the_same_command_again_touches_no_run(finished, recipe):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/*/*")}
    assert main(["study", "--config", str(recipe), "--out", str(finished)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in finished.glob("*/*/*")}


def test_what_is_recorded_needs_no_folder_and_no_training(finished, recipe, tmp_path, capsys):
    for name in ("results.jsonl", "predictions.parquet"):
        shutil.copy(finished / name, tmp_path)
    out = tmp_path / "study"
    assert main(["study", "--config", str(recipe), "--out", str(out), "--known", str(tmp_path)]) == 0
    assert f"6 of 6 runs are known from {tmp_path}" in capsys.readouterr().err
    assert not (out / "runs").exists() and not (out / "pretrain").exists()
    assert read_json(out / "verdict.json") == read_json(finished / "verdict.json")
    ids = {*Store(read_toml(recipe)["data"]).items["item"], *Store(read_toml(recipe)["data"]).items["patient"]}
    table = pl.read_parquet(out / "predictions.parquet")
    assert ids.isdisjoint(table["item"]) and ids.isdisjoint(table["patient"])


def test_a_finished_run_can_be_an_arm_and_runs_go_side_by_side(finished, data, tmp_path):
    run = finished / "pretrain/pcrl"
    table = {"finetune": {"steps": 2, "patch": [32, 32]}}
    write_toml(tmp_path / "recipe.toml", table)
    words = ["study", "--config", str(tmp_path / "recipe.toml"), "--data", str(data), "--out", str(tmp_path / "study")]
    words += ["--task", "segment", "--arms", "scratch", f"mine={run}", "--n-labels", "3", "--seeds", "1"]
    assert main([*words, "--width", "8", "--jobs", "2"]) == 0
    verdict = read_json(tmp_path / "study/verdict.json")
    assert verdict["labels"][0]["comparisons"][0]["verdict"] == "cannot tell"  # one seed
    assert not (tmp_path / "study/pretrain").exists()
    check = read_json(tmp_path / "study/data.json")["checks"][-1]
    assert "mine" in check["check"] and check["ok"] is True
    assert check["detail"] in (tmp_path / "study/report.html").read_text()


def test_an_arm_that_learnt_from_the_test_patients_is_told(finished, data, tmp_path):
    run, tiny = tmp_path / "run", ["--steps", "1", "--batch", "4", "--width", "8", "--patch", "32", "32"]
    words = ["pretrain", "pcrl", "--data", str(data), "--out", str(run), *tiny, "--workers", "0", "--transductive"]
    assert main(words) == 0
    write_toml(tmp_path / "recipe.toml", {"finetune": {"steps": 1, "patch": [32, 32]}})
    words = ["study", "--config", str(tmp_path / "recipe.toml"), "--data", str(data), "--out", str(tmp_path / "study")]
    words += ["--task", "segment", "--arms", "scratch", f"mine={run}", "--n-labels", "3", "--seeds", "1"]
    assert main([*words, "--width", "8"]) == 0
    check = read_json(tmp_path / "study/data.json")["checks"][-1]
    test = len(set(Store(data).items.filter(pl.col("split") == "test")["hash"]))
    assert (check["ok"], check["detail"]) == (False, f"{test} test images")
    assert (
        f"Test images in the pre-training of mine: {test} test images." in (tmp_path / "study/report.html").read_text()
    )


def test_mistakes_are_sentences(finished, recipe, data, tmp_path, capsys):
    commands = {
        "no data named": ["--out", str(tmp_path / "a")],
        "nothing prepared here": ["--out", str(tmp_path / "b"), "--data", str(tmp_path)],
        "seeds: 2 → 1": ["--config", str(recipe), "--out", str(finished), "--seeds", "1"],
        "file not found": ["--config", str(tmp_path / "none.toml"), "--out", str(tmp_path / "c")],
        "mask": ["--config", str(recipe), "--out", str(tmp_path / "d"), "--target", "9"],
    }
    for said, words in commands.items():
        assert main(["study", *words]) == 2
        told = capsys.readouterr().err
        assert said in told and "Traceback" not in told


def test_reports_are_written_anew_from_files(finished, tmp_path, capsys):
    page = (finished / "report.html").read_text()
    (finished / "report.html").unlink()
    assert main(["report", str(finished)]) == 0
    assert (finished / "report.html").read_text() == page
    run = finished / "runs/pcrl-n3-s0"
    assert main(["report", str(run)]) == 0 and "Dice" in (run / "report.html").read_text()
    assert main(["report", str(tmp_path)]) == 2 and "no run and no study" in capsys.readouterr().err
