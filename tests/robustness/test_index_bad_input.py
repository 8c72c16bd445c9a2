"""Bad input to `medssl index`: one bad file never stops the rest, and nothing vanishes."""

import csv
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from medssl.cli import main
from medssl.errors import UserError
from scan_files import index, noise, problems, write_nifti, write_series, write_slice, write_table


def nan(path: Path, share: float) -> None:
    array = noise(1, 10, 10, 10).astype(np.float32)
    array.ravel()[: int(share * array.size)] = np.nan
    write_nifti(path, array)


def flat(path: Path) -> None:
    write_nifti(path, noise(5, 9, 9, 9))
    raw = bytearray(path.read_bytes())
    raw[312:328] = bytes(16)  # srow_z: slices without a distance
    path.write_bytes(raw)


def cut(path: Path, write: Callable[[Path], object], keep: float = 0.6) -> None:
    write(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw))])


def png(path: Path, kind: str | None = None) -> None:
    Image.fromarray((noise(2, 40, 40) % 256).astype(np.uint8)).save(path, kind)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.nii": (lambda p: p.touch(), "an empty file"),
    "noise.nii.gz": (lambda p: p.write_bytes(gzip.compress(b"x" * 999)), "not a NIfTI file"),
    "nogzip.nii.gz": (lambda p: p.write_bytes(b"\x1f\x8b" + b"x" * 999), "broken gzip"),
    "short.nii": (lambda p: cut(p, lambda q: write_nifti(q, noise(3, 9, 9, 9))), "truncated"),
    "short.nii.gz": (lambda p: cut(p, lambda q: write_nifti(q, noise(3, 9, 9, 9))), "truncated"),
    "short.png": (lambda p: cut(p, png), "broken pixels"),
    "short.dcm": (lambda p: cut(p, lambda q: write_slice(q, noise(4, 20, 20))), "broken pixel data"),
    "text.dcm": (lambda p: p.write_text("Not an image. " * 50), "text, named as DICOM"),
    "picture.dcm": (lambda p: png(p, "PNG"), "a PNG, named as DICOM"),
    "notes.txt": (lambda p: p.write_text("hello"), "not a format"),
    "archive.zip": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(99)), "a ZIP archive"),
    "nan.nii": (lambda p: nan(p, 0.9), "90% of the voxels are NaN"),
    "constant.nii": (lambda p: write_nifti(p, np.full((9, 9, 9), 7, np.int16)), "a constant image"),
    "zero.nii": (lambda p: flat(p), "implausible voxel size"),
    "absurd.nii": (lambda p: write_nifti(p, noise(6, 9, 9, 9), np.diag([1.0, 1, 400, 1])), "implausible voxel size"),
    "four.nii": (lambda p: write_nifti(p, noise(7, 9, 9, 9, 4)), "a 4-D image"),
    "tiny.png": (lambda p: Image.new("L", (3, 3)).save(p), "too small"),
    "arrays.npz": (lambda p: np.savez(p, x=np.zeros(3)), "arrays x"),
    "objects.npz": (lambda p: np.savez(p, train_images=np.array([{}])), "Python objects"),
    "broken.npz": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(99)), "not an .npz"),
    "broken.mha": (lambda p: p.write_text("ObjectType = Image\nNDims = 3\n"), "unreadable header"),
    "broken.nrrd": (lambda p: p.write_text("NRRD0004\n"), "unreadable header"),
    "case_mask.nii": (lambda p: write_nifti(p, (noise(8, 9, 9, 9) > 0).astype(np.uint8)), "looks like a mask"),
    ".hidden.nii": (lambda p: write_nifti(p, noise(9, 9, 9, 9)), "hidden"),
}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder with good scans of four patients."""
    for k in range(4):
        write_nifti(tmp_path / "scans" / f"good{k}.nii.gz", noise(100 + k, 10, 11, 12))
    return tmp_path / "scans"


def test_every_fault_is_named_and_the_good_scans_stay(scans: Path, tmp_path: Path) -> None:
    for name, (write, _) in BAD.items():
        write(scans / name)
    assert main(["index", str(scans), "--out", str(tmp_path / "out")]) == 0
    found = problems(tmp_path / "out")
    wrong = {name: found.get(name) for name, (_, what) in BAD.items() if what not in found.get(name, "")}
    assert wrong == {}
    frame = pl.read_parquet(tmp_path / "out" / "index.parquet")
    assert frame["path"].to_list() == [f"good{k}.nii.gz" for k in range(4)]
    with (tmp_path / "out" / "problems.csv").open() as handle:
        assert all(row["how_to_fix"] for row in csv.DictReader(handle))


def test_some_nan_is_a_warning_and_becomes_the_minimum(scans: Path, tmp_path: Path) -> None:
    nan(scans / "some.nii", 0.1)
    frame, found = index(scans, tmp_path / "out")
    row = frame.filter(pl.col("path") == "some.nii").to_dicts()[0]
    assert "100 voxels NaN" in row["problems"]
    assert np.isfinite([row["min"], row["mean"], row["std"]]).all()
    assert found == {}


def test_slices_that_cannot_be_read_are_left_out_of_their_series(scans: Path, tmp_path: Path) -> None:
    paths = write_series(scans / "ct", noise(1, 12, 16, 16))
    paths[5].write_bytes(paths[5].read_bytes()[:-100])
    frame, found = index(scans, tmp_path / "out")
    row = frame.filter(pl.col("reader") == "dicom").to_dicts()[0]
    assert len(row["files"]) == 11
    assert row["shape"] == [16, 16, 12]
    assert "left out" in row["problems"]
    assert list(found) == [paths[5].relative_to(scans).as_posix()]


def test_a_mask_of_another_shape_is_a_problem_its_image_is_not(scans: Path, tmp_path: Path) -> None:
    write_nifti(scans / "m0.nii", np.ones((10, 11, 12), np.uint8))
    write_nifti(scans / "m1.nii", np.ones((10, 11, 13), np.uint8))
    rows = [{"path": f"good{k}.nii.gz", "mask_path": f"m{k}.nii"} for k in range(3)]
    write_table(scans / "labels.csv", rows)
    frame, found = index(scans, tmp_path / "out")
    assert frame["mask_path"].to_list() == ["m0.nii", None, None, None]
    assert "image of shape 10×11×12" in found["m1.nii"]
    assert "mask not found" in found["m2.nii"]


def test_labels_for_unknown_scans_are_listed(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_table(scans / "labels.csv", [{"path": "good0.nii.gz", "label": "a"}, {"path": "lost.nii.gz", "label": "b"}])
    frame, found = index(scans, tmp_path / "out")
    assert frame["label.label"].to_list() == ["a", None, None, None]
    assert found == {"labels.csv, row 3": "no scan for 'lost.nii.gz'"}
    assert "warning: 1 of 2 rows of labels.csv fit no scan, so their labels are not used" in capsys.readouterr().out


def _one_patient_in_all(scans: Path) -> None:
    write_table(scans / "labels.csv", [{"path": f"good{k}.nii.gz", "patient_id": "one"} for k in range(4)])


def test_patients_that_are_named_late_draw_the_split_anew_while_nothing_is_prepared(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before, _ = index(scans, tmp_path / "out")
    assert before["split"].n_unique() > 1
    _one_patient_in_all(scans)
    after, found = index(scans, tmp_path / "out")
    assert after["split"].to_list() == ["train"] * 4
    assert not found
    assert capsys.readouterr().out.count("the split was drawn anew") == 1
    assert index(scans, tmp_path / "out")[0].equals(after)
    assert "drawn anew" not in capsys.readouterr().out


def test_once_prepared_a_scan_refused_for_its_side_stays_refused(scans: Path, tmp_path: Path) -> None:
    index(scans, tmp_path / "out")
    (tmp_path / "out" / "prepared.parquet").touch()  # something may have learnt from this split
    _one_patient_in_all(scans)
    after, found = index(scans, tmp_path / "out")
    assert after["split"].n_unique() == 1
    assert set(found.values()) == {"the same image or patient is on two sides of the split"}
    again, still = index(scans, tmp_path / "out")
    assert again.equals(after)
    assert still == found


def test_one_class_and_few_patients_are_warned_about(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [{"path": f"good{k}.nii.gz", "patient_id": "one", "label": "a"} for k in range(4)]
    write_table(scans / "labels.csv", rows)
    frame, _ = index(scans, tmp_path / "out")
    assert frame["split"].to_list() == ["train"] * 4
    told = capsys.readouterr().out
    assert "label 'label' has one class only" in told
    assert "no patient is in val or test" in told


def test_classes_of_a_label_are_counted(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table = [("a", "1.5"), ("b", "2.5"), ("b", "")]
    rows = [{"path": f"good{k}.nii.gz", "finding": f, "age": age} for k, (f, age) in enumerate(table)]
    write_table(scans / "labels.csv", rows)
    index(scans, tmp_path / "out")
    told = capsys.readouterr().out
    assert "label 'finding': b (2), a (1); none for 1 scan\n" in told
    assert "label 'age': 1.5 (1), 2.5 (1); none for 2 scans\n" in told


@pytest.mark.parametrize("content", ["nothing", "text"])
def test_a_folder_without_scans_exits_with_one_sentence(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "scans").mkdir()
    if content == "text":
        (tmp_path / "scans" / "a.txt").write_text("no scan")
    assert main(["index", str(tmp_path / "scans"), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert ("no files" if content == "nothing" else "no usable scan among 1 files") in told
    assert not (tmp_path / "out" / "index.parquet").exists()
    assert (tmp_path / "out" / "problems.csv").exists() == (content == "text")


def test_a_wrong_command_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--out", str(tmp_path / "out"), "--table", "none.csv", "--fractions", "1", "1", "1"]
    assert main(["index", str(tmp_path / "none"), *arguments]) == 2
    told = capsys.readouterr().err
    for what in ("no such folder", "no such table", "--fractions 1.0 1.0 1.0"):
        assert what in told
    assert not (tmp_path / "out").exists()


def test_a_split_that_leaks_is_refused(scans: Path, tmp_path: Path) -> None:
    rows = [{"path": f"good{k}.nii.gz", "patient_id": "p", "split": s} for k, s in enumerate(["train", "test"])]
    write_table(scans / "labels.csv", rows)
    with pytest.raises(UserError, match="1 patients on two sides"):
        index(scans, tmp_path / "out")
    assert not (tmp_path / "out" / "index.parquet").exists()


def test_folders_of_other_scans_or_versions_are_refused(scans: Path, tmp_path: Path) -> None:
    index(scans, tmp_path / "out")
    write_nifti(tmp_path / "more" / "a.nii", noise(0, 9, 9, 9))
    with pytest.raises(UserError, match="made from"):
        index(tmp_path / "more", tmp_path / "out")
    about = tmp_path / "out" / "index.toml"
    about.write_text(about.read_text().replace("format = 1", "format = 99"))
    with pytest.raises(UserError, match="format 99"):
        index(scans, tmp_path / "out")


def test_a_damaged_cache_is_only_slower(scans: Path, tmp_path: Path) -> None:
    before, _ = index(scans, tmp_path / "out")
    (tmp_path / "out" / "cache.parquet").write_bytes(b"damaged")
    after, _ = index(scans, tmp_path / "out")
    assert after.equals(before)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_a_problem(scans: Path, tmp_path: Path) -> None:
    (scans / "good0.nii.gz").chmod(0)
    _, found = index(scans, tmp_path / "out")
    assert "no permission" in found["good0.nii.gz"]


def test_links_that_lead_nowhere_or_in_circles(scans: Path, tmp_path: Path) -> None:
    (scans / "dangling.nii").symlink_to(scans / "gone.nii")
    (scans / "circle").symlink_to(scans)
    frame, found = index(scans, tmp_path / "out")
    assert len(frame) == 4
    assert list(found) == ["dangling.nii"]
