"""DAE through the command line: with modalities to tell apart, and without."""

from pathlib import Path

import pytest

from medssl import files
from medssl.cli import main
from medssl.engine import log
from scans import two_modalities


def pretrained(data: Path, *more: str) -> int:
    words = f"pretrain dae --data {data} --out {data.parent / 'run'} --steps 4 --batch 4 --width 6 --patch 32 32"
    words += " --encoder swin --log-every 1 --workers 0 --threads 1 --device cpu --precision 32"
    return main([*words.split(), *more])


def test_a_run_tells_its_terms_and_what_brightness_alone_knows(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = two_modalities(tmp_path, [("CR", "PT")[i % 2] for i in range(16)])
    assert pretrained(data, "--cmcl", "discriminate") == 0
    rows = log.read(tmp_path / "run")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["modality.by_mean"] == 1.0
    assert all(row["rebuild"] > 0 and row["cmcl"] >= 0 for row in rows[1:])
    assert "mean intensity alone tells the modalities (CR, PT) apart" in capsys.readouterr().err
    card = files.read_json(tmp_path / "run" / "encoder.json")
    assert (card["method"], card["encoder"]["encoder"]) == ("dae", "swin")


def test_modalities_are_compared_where_there_are_two(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = two_modalities(tmp_path, ["CR"] * 8)
    assert pretrained(data, "--cmcl", "discriminate") == 2
    said = capsys.readouterr().err.strip()
    assert "cmcl is discriminate, but all scans are of one modality" in said and "\n" not in said
    assert pretrained(data) == 0  # without it DAE needs one modality only


def test_scans_of_one_patient_are_drawn_together_to_be_aligned(tmp_path: Path) -> None:
    data = two_modalities(tmp_path, ["CR", "PT"] * 8, patients=8)
    assert pretrained(data, "--cmcl", "align", "--cmcl-weight", "1") == 0
    rows = log.read(tmp_path / "run")
    assert all(row["cmcl"] > 0 for row in rows[1:]) and "modality.by_mean" not in rows[0]
