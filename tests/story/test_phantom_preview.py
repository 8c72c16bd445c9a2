import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medssl import cli
from medssl.contract import Views
from medssl.stages.preview import pictures_of, sheet


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("dims", [2, 3])
def test_a_set_looks_like_a_users_folder_and_is_the_same_when_written_again(tmp_path, dims) -> None:
    out = tmp_path / "scans"
    command = ["phantom", str(out), "--patients", "5", "--dims", str(dims), "--size", "32", "--seed", "0"]
    kinds = {"CT", "MR-T1", "MR-T2"} if dims == 3 else {"CR"}
    assert cli.main(command) == 0
    with (out / "labels.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len({row["patient_id"] for row in rows}) == 5 < len(rows)  # some were scanned twice
    studies = {row["study_id"]: [] for row in rows}
    for row in rows:
        studies[row["study_id"]].append(row)
    for mine in studies.values():
        assert {row["modality"] for row in mine} == kinds and len(mine) == len(kinds)
        assert len({row["text"] for row in mine}) == 1 and len(mine[0]["text"]) > 15
    for row in rows:
        assert (out / row["path"]).is_file() and (out / row["mask_path"]).is_file()
        assert row["lesion"] in ("yes", "no") and row["effusion"] in ("none", "left", "right")
    written = files_of(out)
    assert len(written) == 2 * len(rows) + 1
    assert cli.main(command) == 0
    assert {k: v for k, v in files_of(out).items() if k.endswith((".csv", ".png"))} == {
        k: v for k, v in written.items() if k.endswith((".csv", ".png"))
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--patients", "0"], "give 1 or more"),
        (["--size", "4"], "give 32 to 512"),
        (["--missing", "1.5"], "--missing is 1.5: give 0 to 1"),
        (["--misregister-mm", "-2"], "--misregister-mm is -2"),
        (["--modalities", "CT", "PT"], "--modalities PT in 3D: choose among CT, MR-T1, MR-T2"),
        (["--dims", "2", "--modalities", "CT"], "--modalities CT in 2D: choose among CR"),
    ],
)
def test_wrong_numbers_are_told_and_nothing_is_written(tmp_path, capsys, arguments, words) -> None:
    assert cli.main(["phantom", str(tmp_path / "out"), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_modalities_may_be_chosen_shifted_and_missing(tmp_path) -> None:
    def rows_of(name: str, *options: str) -> list[dict[str, str]]:
        command = ["phantom", str(tmp_path / name), "--patients", "6", "--size", "32", *options]
        assert cli.main(command) == 0
        with (tmp_path / name / "labels.csv").open() as handle:
            return list(csv.DictReader(handle))

    every = rows_of("all")
    assert {r["modality"] for r in rows_of("two", "--modalities", "MR-T2", "CT")} == {"MR-T2", "CT"}
    some = rows_of("some", "--missing", "0.5")
    assert 0.3 < len(some) / len(every) < 0.8 and {r["study_id"] for r in some} == {r["study_id"] for r in every}
    assert any(not row["text"] for row in some)
    rows_of("moved", "--misregister-mm", "20")
    same = {n for n, data in files_of(tmp_path / "all").items() if files_of(tmp_path / "moved").get(n) == data}
    scans = {row["path"]: row["modality"] for row in every}
    assert {modality for path, modality in scans.items() if path in same} == {"CT"}
    assert len([p for p in scans if p in same]) == len([m for m in scans.values() if m == "CT"])


def test_a_folder_with_other_scans_is_left_alone(tmp_path, capsys) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.nii.gz").write_bytes(b"precious")
    assert cli.main(["phantom", str(tmp_path), "--patients", "1", "--size", "32"]) == 2
    assert "holds other scans" in capsys.readouterr().err
    assert files_of(tmp_path) == {"images/mine.nii.gz": b"precious"}


def test_a_file_where_the_folder_should_be_is_told(tmp_path, capsys) -> None:
    (tmp_path / "out").write_text("x")
    assert cli.main(["phantom", str(tmp_path / "out")]) == 2
    assert "not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("dims", [2, 3])
def test_preview_draws_the_views_of_prepared_phantoms(tmp_path, dims, capsys) -> None:
    scans, data = tmp_path / "scans", tmp_path / "data"
    assert cli.main(["phantom", str(scans), "--patients", "3", "--dims", str(dims), "--size", "48"]) == 0
    assert cli.main(["index", str(scans), "--out", str(data), "--workers", "1"]) == 0
    assert cli.main(["prepare", str(data), "--workers", "1"]) == 0
    assert cli.main(["preview", str(data), "--rows", "2"]) == 0
    page = np.asarray(Image.open(data / "preview-pcrl.png").convert("L")).astype(float)
    again = tmp_path / "again.png"
    assert cli.main(["preview", str(data), "--rows", "2", "--out", str(again)]) == 0
    assert again.read_bytes() == (data / "preview-pcrl.png").read_bytes()
    assert page.shape[1] > 4 * 192 and page.std() > 20
    assert cli.main(["preview", str(data), "--rows", "0"]) == 2
    assert "give 1 to 64" in capsys.readouterr().err


def test_preview_of_a_method_that_compares_draws_subject_by_subject(tmp_path) -> None:
    scans, data = tmp_path / "scans", tmp_path / "data"
    assert cli.main(["phantom", str(scans), "--patients", "2", "--size", "40", "--modalities", "CT", "MR-T1"]) == 0
    assert cli.main(["index", str(scans), "--out", str(data), "--workers", "1"]) == 0
    assert cli.main(["prepare", str(data), "--workers", "1", "--pair-by", "patient"]) == 2
    assert cli.main(["prepare", str(data), "--workers", "1"]) == 0
    assert cli.main(["preview", str(data), "--method", "cmcl", "--rows", "2"]) == 0
    page = np.asarray(Image.open(data / "preview-cmcl.png").convert("L")).astype(float)
    assert page.shape == (20 + 2 * 198 + 6, 2 * 198 + 6) and page.std() > 20


def test_the_sheet_shows_every_picture_in_its_place() -> None:
    grey = torch.zeros(2, 1, 8, 8)
    grey[1] = 2.0
    views = Views({"x1": grey, "hidden1": torch.ones(2, 8, 8, dtype=torch.bool)})
    pictures = pictures_of(views, (0.0, 2.0))
    page = np.asarray(sheet(pictures, (0.0, 2.0)))
    assert list(pictures) == ["x1", "hidden1"] and page.shape == (20 + 2 * 198 + 6, 2 * 198 + 6, 3)
    centres = page[[20 + 6 + 96, 20 + 6 + 198 + 96]][:, [6 + 96, 6 + 198 + 96]]
    assert centres[..., 0].tolist() == [[0, 255], [255, 255]]


def test_volumes_stand_with_the_front_up_and_the_right_at_the_left() -> None:
    volume = torch.zeros(1, 1, 8, 8, 4)
    volume[:, :, 7, 7] = 1.0  # right, front
    page = np.asarray(sheet({"volume": volume}, (0.0, 1.0)))[..., 0]
    assert page[20 + 6 + 4, 6 + 4] > 200 and page[20 + 6 + 188, 6 + 188] < 60
