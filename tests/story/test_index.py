"""`medssl index` as a user meets it: a mixed folder, a table, a second run, privacy, the real odd files."""

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import SimpleITK as sitk
from PIL import Image

from medssl.cli import main
from medssl.data.catalog import label_columns, load_index
from medssl.errors import UserError
from medssl.files import read_toml
from scan_files import index, noise, problems, write_nifti, write_series, write_slice, write_table


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """DICOM of one patient split over folders, NIfTI with masks, X-ray PNG, a table."""
    scans = tmp_path / "scans"
    paths = write_series(scans / "dicom" / "one", noise(0, 10, 12, 12))
    (scans / "dicom" / "two").mkdir()
    for path in paths[::2]:
        path.rename(scans / "dicom" / "two" / path.name)
    write_slice(scans / "dicom" / "scout", noise(1, 12, 12), SeriesInstanceUID="9", ImageType=["ORIGINAL", "LOCALIZER"])
    rows = []
    for k in range(20):
        name, values = f"mr/{k:02d}.nii.gz", noise(10 + k, 9, 10, 11)
        write_nifti(scans / name, np.abs(values), np.diag([1, 1, 3, 1.0]))
        write_nifti(scans / f"mr/{k:02d}_seg.nii.gz", (values > 800).astype(np.uint8), np.diag([1, 1, 3, 1.0]))
        rows.append(
            {
                "path": name,
                "patient_id": f"P{k // 2}",
                "modality": "MRI-t1" if k == 3 else "MRI",
                "grade": "ab"[k // 10],
            }
        )
        rows[-1] |= {"mask_path": f"mr/{k:02d}_seg.nii.gz", "text": "no finding"}
    Image.fromarray((noise(99, 30, 20) % 256).astype(np.uint8)).save(scans / "x.png")
    write_table(scans / "labels.csv", rows)
    return scans


def test_a_mixed_folder_becomes_an_index(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["index", str(mixed), "--out", str(tmp_path / "out"), "--workers", "2"]) == 0
    frame = load_index(tmp_path / "out")
    assert label_columns(frame) == ["grade"]
    assert frame["modality"].to_list() == ["CT", *["MR"] * 3, "MR-T1", *["MR"] * 16, ""]
    ct, mr, png = frame.row(0, named=True), frame.row(1, named=True), frame.row(21, named=True)
    assert len(ct["files"]) == 10
    assert {Path(file).parent.name for file in ct["files"]} == {"one", "two"}
    assert (mr["label.grade"], mr["text"], mr["mask_path"]) == ("a", "no finding", "mr/00_seg.nii.gz")
    assert "its own patient" in png["problems"]
    assert list(problems(tmp_path / "out")) == ["dicom/scout"]
    assert frame.group_by("patient").agg(pl.col("split").n_unique())["split"].max() == 1
    assert (tmp_path / "out" / "sheet.png").stat().st_size > 5000
    assert "22 scans of 12 patients" in capsys.readouterr().out


def test_grey_saved_as_colour_has_one_channel(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    colour = (noise(0, 30, 20, 3) % 256).astype(np.uint8)
    for name, pixels in {"grey": np.repeat(colour[..., :1], 3, axis=2), "red": colour}.items():
        Image.fromarray(pixels).save(tmp_path / f"scans/{name}.png")
    frame, _ = index(tmp_path / "scans", tmp_path / "out")
    assert dict(zip(frame["path"], frame["channels"], strict=True)) == {"grey.png": 1, "red.png": 3}


def test_ids_are_hashed_unless_they_are_to_be_kept(mixed: Path, tmp_path: Path) -> None:
    index(mixed, tmp_path / "out")
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    frames = [pl.read_parquet(path) for path in (tmp_path / "out").glob("*.parquet")]
    text = written + "".join(frame.write_json() for frame in frames).encode()
    for name in (b"Ann Example", b"1.2.3.4", b'"P3"'):
        assert name not in text
    assert (tmp_path / "out" / "salt").stat().st_mode & 0o777 == 0o600
    kept, _ = index(mixed, tmp_path / "kept", keep_ids=True)
    assert {"Ann Example", "P3"} <= set(kept["patient"])
    hashed = load_index(tmp_path / "out")
    assert (kept["patient"].to_list() == hashed["patient"].to_list()) is False
    assert kept["split"].to_list() == hashed["split"].to_list()  # no salt decides who is tested


def test_a_second_run_reads_what_is_new_and_moves_nobody(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before, _ = index(mixed, tmp_path / "out")
    capsys.readouterr()
    again, _ = index(mixed, tmp_path / "out")
    assert again.equals(before)
    assert "(0 read now)" in capsys.readouterr().out
    for k in range(12):
        write_nifti(mixed / "mr" / f"{k:02d}b.nii", np.abs(noise(50 + k, 9, 9, 9)))
    (mixed / "x.png").unlink()
    after, _ = index(mixed, tmp_path / "out", patient_regex=r"(\d\d)b")
    assert "(12 read now)" in capsys.readouterr().out
    assert len(after) == 33
    both = before.join(after, on="item")
    assert both["split"].to_list() == both["split_right"].to_list()
    assert len(both) == 21


def test_no_path_sets_a_modality(tmp_path: Path) -> None:
    """Folders and names that speak of sequences, machines or numbers: only header, table, --modality or HU tell."""
    scans, named = tmp_path / "scans", ("p1/t1ce/a.nii.gz", "dataset1/MR/b_flair.nii.gz", "CT/c_t2.nii.gz", "PET/x.png")
    for k, name in enumerate(named[:3]):
        write_nifti(scans / name, np.abs(noise(k, 9, 10, 11)))
    (scans / "PET").mkdir()
    Image.fromarray((noise(9, 30, 20) % 256).astype(np.uint8)).save(scans / named[3])
    frame, _ = index(scans, tmp_path / "out")
    assert set(frame["path"]) == set(named) and set(frame["modality"]) == {""}
    write_table(scans / "labels.csv", [{"path": named[1], "modality": "CT"}])  # though its folder is called MR
    frame, _ = index(scans, tmp_path / "told")
    assert dict(zip(frame["path"], frame["modality"], strict=True)) == dict.fromkeys(named, "") | {named[1]: "CT"}
    write_nifti(scans / "MR" / "d_t1.nii.gz", noise(4, 9, 10, 11) - 100)  # a CT by its values, whatever its name
    frame, _ = index(scans, tmp_path / "values")
    told = frame.filter(pl.col("path") == "MR/d_t1.nii.gz").row(0, named=True)
    assert told["modality"] == "CT" and "no modality named; taken as CT" in told["problems"]


def test_the_table_may_name_patients_only(mixed: Path, tmp_path: Path) -> None:
    rows = [{"patient_id": "Ann Example", "outcome": "good"}, {"patient_id": "Nobody", "outcome": "bad"}]
    table = write_table(tmp_path / "t.csv", rows)
    (mixed / "labels.csv").unlink()
    frame, found = index(mixed, tmp_path / "out", table=table)
    assert frame.filter(pl.col("reader") == "dicom")["label.outcome"].to_list() == ["good"]
    assert found["t.csv, row 3"] == "no scan for 'Nobody'"


def test_reports_beside_the_scans_are_indexed(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (mixed / "labels.csv").unlink()
    (mixed / "mr" / "00.txt").write_text("Normal.")
    (mixed / "mr" / "01.txt").write_text("")
    (mixed / "notes.txt").write_text("of no scan")
    frame, found = index(mixed, tmp_path / "out")
    assert frame.filter(pl.col("text").is_not_null())["path"].to_list() == ["mr/00.nii.gz"]
    assert "mr/00.txt" not in found and found["mr/01.txt"] == "an empty report" and "no scan" in found["notes.txt"]
    assert f"reports: 1 of {len(frame)} scans" in capsys.readouterr().out


def test_a_split_of_the_user_is_kept(mixed: Path, tmp_path: Path) -> None:
    sides = ["train"] * 12 + ["val"] * 2 + ["test"] * 6
    rows = [{"path": f"mr/{k:02d}.nii.gz", "patient_id": f"P{k // 2}", "split": s} for k, s in enumerate(sides)]
    table = write_table(tmp_path / "t.csv", rows)
    frame, _ = index(mixed, tmp_path / "out", table=table)
    named = frame.filter(pl.col("path").str.contains(r"^mr/\d\d.nii.gz$"))
    assert named["split"].to_list() == sides


def test_stratified_by_the_label(mixed: Path, tmp_path: Path) -> None:
    frame, _ = index(mixed, tmp_path / "out", fractions=(0.6, 0.0, 0.4), stratify="grade")
    table = (
        frame.drop_nulls("label.grade").group_by("label.grade", "split").agg(pl.col("patient").n_unique().alias("n"))
    )
    assert sorted(table["n"].to_list()) == [2, 2, 3, 3]
    with pytest.raises(UserError, match="no label column 'colour'"):
        index(mixed, tmp_path / "other", stratify="colour")


@pytest.mark.parametrize("folder", ["dicom", "series", "nifti", "png"])
def test_of_the_odd_files_nothing_vanishes(shared_data: Path, tmp_path: Path, folder: str) -> None:
    scans = shared_data / "dicom_odd" / folder
    frame, faults = index(scans, tmp_path / "out")
    used = {file for files in frame["files"].to_list() for file in files}
    everything = {path.relative_to(scans).as_posix() for path in scans.rglob("*") if path.is_file()}
    assert used | set(faults) >= everything
    assert not used & set(faults)
    for row in _expected(shared_data, folder):
        if row["expected"] == "must_fail_cleanly":
            assert Path(row["path"]).relative_to(folder).as_posix() in faults
    assert read_toml(tmp_path / "out" / "index.toml")["format"] == 1


def _expected(shared_data: Path, folder: str) -> list[dict[str, str]]:
    with (shared_data / "dicom_odd" / "index.csv").open() as handle:
        return [row for row in csv.DictReader(handle) if row["path"].startswith(folder + "/")]


# Justified: no image for learning, or nothing to learn from.
NOT_USED = ("SEG:", "RTDOSE:", "localiser", "too small", "constant", "4-D", "5-D", "RTPLAN:")


@pytest.mark.parametrize("folder", ["dicom", "nifti", "png"])
def test_odd_files_that_hold_an_image_are_used(shared_data: Path, folder: str) -> None:
    """Each alone, since some are copies of each other."""
    from medssl.data.dicom.headers import Slice
    from medssl.data.dicom.stacks import stack_up
    from medssl.data.find import read_headers
    from medssl.data.item import Item
    from medssl.data.measure import measure

    unread, root = {}, shared_data / "dicom_odd"
    for row in _expected(shared_data, folder):
        if row["expected"] not in ("image_ok", "needs_force"):
            continue
        told = read_headers((str(root), [row["path"]]))[row["path"]]
        items = [Item(**item) for item in told.get("items", [])]
        stacked, left = stack_up(Slice(**one) for one in told.get("slices", []))
        items += stacked
        results = [measure((item.row(), str(root))) for item in items]
        whats = [result["faults"][0]["what"] for result in results if "facts" not in result]
        whats += [fault.what for fault in left] + ([told["fault"][0]] if "fault" in told else [])
        if not any("facts" in result for result in results) and not any(n in w for w in whats for n in NOT_USED):
            unread[row["path"]] = whats
    assert set(unread) <= {"dicom/pydd__JLSL_08_07_0_1F.dcm"}  # 7-bit JPEG-LS: neither GDCM nor ITK decodes it


def test_new_voxels_beside_an_old_header_are_noticed(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for k in range(2):
        sitk.WriteImage(sitk.GetImageFromArray(noise(k, 9, 10, 11)), scans / f"{k}.mhd")
    before, _ = index(scans, tmp_path / "out")
    (scans / "1.raw").write_bytes(noise(5, 9, 10, 11).tobytes())
    after, _ = index(scans, tmp_path / "out")
    assert [a == b for a, b in zip(after["hash"], before["hash"], strict=True)] == [True, False]
