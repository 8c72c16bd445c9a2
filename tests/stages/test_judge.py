"""Any two arms of a finished study can be compared, and arms ranked over several studies."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medssl.cli import main
from medssl.errors import UserError
from medssl.files import read_json, write_json, write_toml
from medssl.report.ledger import Ledger
from medssl.stages.judge import judged, read_pairs, show


def write_study(folder: Path, gains: dict[str, float], seed: int = 0) -> Path:
    """A study known by its ledger alone: 30 patients, 4 seeds, 4 and 16 labels; pcrl was pre-trained twice."""
    rng, ledger = np.random.default_rng(seed), Ledger()
    names, ease = [f"p{i}" for i in range(30)], rng.normal(0, 0.1, 30)
    for arm, gain in gains.items():
        for n, base in ((4, 0.5), (16, 0.6)):
            for more in (1, 2) if arm == "pcrl" else (1,):
                for s in range(4):
                    dice = base + gain + ease + rng.normal(0, 0.01) + rng.normal(0, 0.02, 30)
                    key = f"{arm}-{n}-{more}-{s}"
                    row = {"key": key, "arm": arm, "n_labels": n, "seed": s, "metrics": {"dice": float(dice.mean())}}
                    row |= {"pretraining": more} if more > 1 else {}
                    ledger.add(row, pl.DataFrame({"item": names, "patient": names, "dice.1": dice}))
    folder.mkdir(parents=True)
    ledger.write(folder)
    found = judged(ledger, task="segment", margin=0.01, seed=0, transductive=False)
    write_json(folder / "verdict.json", found | {"warnings": ["Mind."], "failed": []})
    options = {"seeds": 4, "n_labels": [4, 16], "arms": list(gains)}
    write_toml(folder / "study.toml", {"format": 1, "options": options, "pretrain": {}, "finetune": {}})
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("a") / "study", {"scratch": 0.0, "pcrl": 0.1, "moco": 0.03})


@pytest.fixture
def study(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / "study")


def test_pre_trainings_are_told_apart_by_their_field(study):
    level = read_json(study / "verdict.json")["labels"][0]
    assert {arm: band["pretrainings"] for arm, band in level["arms"].items()} == {"scratch": 1, "pcrl": 2, "moco": 1}
    assert len(level["scores"]["pcrl"]) == 8


def test_report_compares_two_arms_and_keeps_the_rest(study, capsys):
    before = read_json(study / "verdict.json")
    assert main(["report", str(study), "--compare", "pcrl:moco", "moco:pcrl"]) == 0
    after = read_json(study / "verdict.json")
    pair, turned = after["labels"][0]["pairs"]
    scores = after["labels"][0]["scores"]
    assert (pair["arm"], pair["against"], pair["compared"]) == ("pcrl", "moco", 2)
    assert pair["difference"] == pytest.approx(np.mean(scores["pcrl"][:4]) - np.mean(scores["moco"]))
    assert turned["difference"] == pytest.approx(-pair["difference"])
    for at in after["labels"]:
        at["pairs"] = []
    assert after == before  # float32 in the file, and the same chance
    said = capsys.readouterr().out
    assert "pcrl : moco" in said and f"report: {study / 'report.html'}" in said
    assert pair["sentence"].replace("<", "&lt;") in (study / "report.html").read_text()


def test_report_ranks_arms_over_studies(study, tmp_path, capsys):
    other = write_study(tmp_path / "other", {"scratch": 0.0, "pcrl": -0.1, "mae": 0.3}, seed=1)
    assert main(["report", str(study), "--ranks", str(other)]) == 0
    said = capsys.readouterr().out
    assert "Mean rank over 4 label counts, 1 is best; not in all of them: moco, mae" in said
    assert [line.split() for line in said.splitlines() if "1.50" in line] == [["scratch", "1.50"], ["pcrl", "1.50"]]


def test_the_terminal_shows_the_table_and_the_notes(study, capsys):
    found = read_json(study / "verdict.json")
    show(found)
    said = capsys.readouterr().out
    assert all(note in said for note in found["notes"]) and "Labels saved ×" in said
    row = next(line for line in said.splitlines() if "moco" in line)
    comparison = next(c for c in found["labels"][0]["comparisons"] if c["arm"] == "moco")
    assert comparison["verdict"] in row and f"{comparison['difference']:+.3f}".replace("-", "−") in row
    assert "2 × 4" in said and "0.000" not in said.replace("0.000 ", "")


def test_wrong_pairs_are_told_at_once(study, capsys):
    assert read_pairs(["a:b"], ["a", "b"]) == [("a", "b")] and read_pairs([], ["a"]) == []
    with pytest.raises(UserError) as error:
        read_pairs(["a", "a:a", "a:c", "a:b:a"], ["a", "b"])
    for words in ("'a' names no two arms", "'a:a' names no two", "'a:c': no arm 'c'", "'a:b:a' names no two"):
        assert words in str(error.value)
    assert main(["report", str(study), "--compare", "pcrl:mine"]) == 2
    assert "no arm 'mine' (--compare): the study has scratch, pcrl, moco" in capsys.readouterr().err


def test_a_run_has_no_arms(tmp_path, capsys):
    write_toml(tmp_path / "run.toml", {"format": 1})
    assert main(["report", str(tmp_path), "--compare", "a:b"]) == 2
    assert "no arms to compare" in capsys.readouterr().err


def test_a_study_to_rank_without_a_verdict_is_told(study, tmp_path, capsys):
    assert main(["report", str(study), "--ranks", str(tmp_path / "none")]) == 2
    assert "no verdict yet" in capsys.readouterr().err
