"""Scans, reports and options that a comparison of modalities cannot use: told in a sentence, through the commands."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medssl.cli import main
from medssl.stages import paired
from paired_scans import cohort, paired_store

TINY = "--steps 1 --batch 6 --patch 32 32 32 --width 4 --workers 0 --precision 32 --device cpu --embed-dim 8"
Said = Callable[..., str]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CT and MR of three phantoms with their reports; the table is the test's own."""
    folder = tmp_path_factory.mktemp("phantom") / "scans"
    words = f"phantom {folder} --patients 3 --size 32 --modalities CT MR-T1"
    assert main(words.split()) == 0
    return folder


@pytest.fixture
def rows(scans: Path) -> list[dict[str, str]]:
    with (scans / "labels.csv").open() as handle:
        return [{**row, "split": "train"} for row in csv.DictReader(handle)]


@pytest.fixture
def pretrained(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """Index, prepare and pre-train from a table; what is said on the way, after the exit code that was expected."""

    def go(rows: list[dict[str, str]], *options: str, code: int = 0) -> str:
        table, data, run = tmp_path / "table.csv", tmp_path / "data", tmp_path / "run"
        with table.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        capsys.readouterr()
        assert main(f"index {scans} --out {data} --workers 1 --table {table}".split()) == 0
        assert main(f"prepare {data} --workers 1".split()) == 0
        assert main([*f"pretrain cmcl --data {data} --out {run} {TINY}".split(), *options]) == code
        problems = (data / "problems.csv").read_text()
        told = "\n".join([*capsys.readouterr(), problems])
        assert "Traceback" not in told
        return told

    return go


def test_reports_that_are_empty_long_twofold_or_shared(rows, pretrained) -> None:
    texts = ["", "A small nodule of the left upper lobe, no effusion.", "Normal.", "Normal.", "Normal.", "None."]
    for row, text in zip(rows, [*texts, *["Normal."] * len(rows)], strict=False):
        row["text"] = text
    rows[0]["text"], first = "-", [row for row in rows if row["study_id"] == rows[2]["study_id"]]
    first[0]["text"] = "Another reading."
    told = pretrained(rows, "--text", "tokens", "--text-length", "3")
    assert "its report holds no word: taken as none" in told  # empty
    assert "its study has 2 different reports: each scan keeps its own" in told
    assert " were cut to 3 tokens (--text-length)" in told
    assert "read as another patient's does; equal ones are not each other's negatives" in told


def test_no_report_at_all(rows, pretrained) -> None:
    told = pretrained([row | {"text": ""} for row in rows], "--text", "tokens", code=2)
    assert "no training scan has a report" in told and "index again with reports, or leave out --text" in told


def test_a_modality_that_one_subject_has(rows, pretrained) -> None:
    alone = next(row["study_id"] for row in rows)
    told = pretrained([row | {"modality": "PT" if row["modality"] != "CT" and row["study_id"] == alone
                              else row["modality"]} for row in rows])  # fmt: skip
    assert "warning: modality 'PT' appears in one subject only, so nothing tells its subjects apart: add" in told


def test_pairs_that_do_not_overlap(tmp_path: Path, refused: Said) -> None:
    moved = [(p, s, kind, shape, (900, 0, 0) if kind == "MR" else at) for p, s, kind, shape, at in cohort(3)]
    store = paired_store(tmp_path / "data", moved)
    told = refused("pretrain", "cmcl", "--data", store.data, "--out", tmp_path / "run", *TINY.split())
    assert "none of the 3 pairs of scans overlaps in world space" in told
    assert f"`medssl prepare {store.data} --register` aligns them" in told


WRONG = {
    "cmcl --batch 2": "a batch of 2 holds no two samples of one modality (2 in all) (--batch): give 3",
    "cmcl --batch 1 --patch 64 32 32": "a batch of 1 holds no two samples of one modality",
    "dae --cmcl align --batch 2": "a batch of 2 holds no two samples of one modality",
    "cmcl --temperature 0": "temperature is 0.0",
    "cmcl --temperature 0.1 -0.1": "temperature is (0.1, -0.1)",
    "dae --temperature 0": "temperature is 0.0",
    "simclr --temperature -1": "temperature is -1.0",
    "moco --temperature 0": "temperature is 0.0",
    "pcrl --temperature 0": "temperature is 0.0",
    "cmcl --patch 33 32 32": "patch (33, 32, 32) is no multiple of 32×32×32: choose (32, 32, 32)",
    "dae --encoder swin --patch 32 40 32": "patch (32, 40, 32) is no multiple of 32×32×32",
    "pcrlv2 --patch 32 32 33": "patch (32, 32, 33) is no multiple of",
    "cmcl --objective discriminate": "discriminate needs share=all",
    "cmcl --label kind": "label is 'kind', which nothing reads: add --positives label",
    "cmcl --positives label": "the data has no label columns",
    "cmcl --positives structure": "no scan has a mask (--positives structure): index again with mask_path",
    "cmcl --positives organ": "invalid choice 'organ'",
    "pcrlv2 --batch 1": "a batch of 1 (--batch): give 2 or more",
}  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paired_store(tmp_path_factory.mktemp("two") / "data", cohort(3)).data


@pytest.mark.parametrize("command", WRONG)
def test_options_that_cannot_be(two: Path, tmp_path: Path, refused: Said, command: str) -> None:
    method, *words = command.split()
    plain = TINY.replace("--embed-dim 8", "").split()
    assert WRONG[command] in refused("pretrain", method, "--data", two, "--out", tmp_path / "run", *plain, *words)
    assert not (tmp_path / "run" / "encoder.safetensors").exists()


def test_equal_reports_are_counted_by_patient() -> None:
    tokens = np.array([[1, 2], [1, 2], [3, 0], [3, 0], [0, 0], [0, 0]])
    told = paired._about_reports(tokens, 0, np.array([0, 1, 2, 2, 3, 4]))
    assert told[0] == "reports: 4 of 6 scans have one" and told[1].startswith("reports: 2 read as another patient's")
    assert len(paired._about_reports(tokens[2:], 1, np.array([2, 2, 3, 4]))) == 1
