"""Faults of single scans are told and left out; where nothing remains, one sentence. Never a traceback."""

import csv
import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from medssl.cli import main
from medssl.data.store import Store
from medssl.files import locked
from medssl.stages import prepare
from medssl.stages.options.data import Prepare
from scan_files import index, noise, write_nifti


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three indexed CT volumes."""
    for i in range(3):
        write_nifti(tmp_path / "scans" / f"{i}.nii.gz", noise(i, 14, 12, 10))
    index(tmp_path / "scans", tmp_path / "data", modality="CT")
    return tmp_path / "data"


def told(data: Path) -> list[dict[str, str]]:
    with (data / "prepare_problems.csv").open() as handle:
        return list(csv.DictReader(handle))


def test_files_that_broke_since_the_index_are_left_out(data: Path, tmp_path: Path) -> None:
    (tmp_path / "scans" / "0.nii.gz").write_bytes(b"not a scan")
    (tmp_path / "scans" / "2.nii.gz").unlink()
    assert main(["prepare", str(data), "--workers", "1"]) == 0
    assert Store(data).items["path"].to_list() == ["1.nii.gz"]
    assert [row["file"] for row in told(data)] == ["0.nii.gz", "2.nii.gz"]
    assert all(row["what"] and row["how_to_fix"] for row in told(data))


def test_an_error_nobody_foresaw_costs_one_scan(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = prepare.prepare_item

    def flawed(row: dict[str, Any], *rest: Any) -> dict[str, Any]:
        if row["path"] == "1.nii.gz":
            raise ZeroDivisionError("division by zero")
        return real(row, *rest)

    monkeypatch.setattr(prepare, "prepare_item", flawed)
    prepare.run(Prepare(data=data, workers=1))
    [row] = told(data)
    assert (row["file"], row["what"]) == ("1.nii.gz", "ZeroDivisionError: division by zero")
    assert len(Store(data)) == 2


def test_nothing_usable_is_one_sentence(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for path in (tmp_path / "scans").iterdir():
        path.write_bytes(b"gone")
    assert main(["prepare", str(data), "--workers", "1"]) == 2
    assert "no scan could be prepared" in capsys.readouterr().err
    assert len(told(data)) == 3


@pytest.mark.parametrize("option", [["--spacing-mm", "1", "2"], ["--dims", "2"], ["--spacing-mm", "0"]])
def test_options_that_do_not_fit_are_refused(data: Path, option: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["prepare", str(data), *option]) == 2
    assert capsys.readouterr().err.startswith("medssl prepare: ")
    assert not (data / "plan.toml").exists()


def test_a_folder_that_is_no_index_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["prepare", str(tmp_path / "nowhere")]) == 2
    assert "medssl index" in capsys.readouterr().err


def test_a_folder_of_another_version_is_refused(data: Path, capsys: pytest.CaptureFixture) -> None:
    prepare.run(Prepare(data=data, workers=1))
    plan = data / "plan.toml"
    plan.write_text(plan.read_text().replace("format = 1", "format = 0"))
    assert main(["prepare", str(data)]) == 2
    assert "format 0" in capsys.readouterr().err


def test_a_disk_too_small_is_refused_before_any_work(data: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: SimpleNamespace(free=2000))
    assert main(["prepare", str(data), "--workers", "1"]) == 2
    assert "the disk has 2 kB free" in capsys.readouterr().err
    assert not (data / "store").exists()


def test_a_disk_that_fills_up_stops_the_run_and_the_next_goes_on(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from medssl.data import arrays

    real, count = arrays.write_bytes, []

    def full(path: Path, content: bytes) -> None:
        count.append(path)
        if len(count) > 1:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "write_bytes", full)
        assert main(["prepare", str(data), "--workers", "1"]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert len(list((data / "store").iterdir())) == 1
    assert main(["prepare", str(data), "--workers", "1"]) == 0
    assert "3, of which 2 to prepare" in capsys.readouterr().out
    assert len(Store(data)) == 3


def test_two_at_once_are_refused(data: Path, capsys: pytest.CaptureFixture) -> None:
    with locked(data, "DATA"):
        assert main(["prepare", str(data)]) == 2
    assert "in use by process" in capsys.readouterr().err


def test_a_mask_that_changed_is_prepared_anew_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    scans, data = tmp_path / "scans", tmp_path / "data"
    for i in range(2):
        write_nifti(scans / f"{i}.nii.gz", noise(i, 14, 12, 10))
        write_nifti(scans / "masks" / f"{i}.nii.gz", np.eye(14, 12, dtype=np.uint8)[..., None].repeat(10, 2))
    (scans / "labels.csv").write_text("path,mask_path\n0.nii.gz,masks/0.nii.gz\n1.nii.gz,masks/1.nii.gz\n")
    index(scans, data, modality="CT")
    prepare.run(Prepare(data=data, workers=1))
    assert Store(data).has_mask.all()
    write_nifti(scans / "masks" / "0.nii.gz", np.full((14, 12, 10), 2, np.uint8))
    write_nifti(scans / "masks" / "1.nii.gz", np.ones((3, 3, 3), np.uint8))
    prepare.run(Prepare(data=data, workers=1))
    store = Store(data)
    assert store.items["path"].to_list() == ["0.nii.gz"]
    assert store.items["mask_labels"][0].to_list() == [2]
    [row] = told(data)
    assert row["file"] == "1.nii.gz"
    assert "mask" in row["what"]


def test_a_damaged_table_of_prepared_scans_is_told(data: Path, capsys: pytest.CaptureFixture) -> None:
    prepare.run(Prepare(data=data, workers=1))
    (data / "prepared.parquet").write_bytes(b"PAR1")
    from medssl.errors import UserError

    with pytest.raises(UserError, match="not a readable table"):
        Store(data)
    prepare.run(Prepare(data=data, workers=1))
    assert len(Store(data)) == 3
    assert pl.read_parquet(data / "prepared.parquet").height == 3
