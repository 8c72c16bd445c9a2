"""The table: what it says of which scan, and its faults all at once."""

from pathlib import Path

import pytest

from medssl.data.table import read_table
from medssl.errors import UserError
from scan_files import write_table


def test_columns_by_file_folder_and_bare_name(tmp_path: Path) -> None:
    rows = [
        {"path": "a.nii.gz", "patient_id": "1", "grade": "x", "split": "Training"},
        {"path": "series", "patient_id": "2", "grade": "", "split": ""},
        {"path": "sub/b", "patient_id": "3", "grade": "z", "split": "dev"},
    ]
    table = read_table(write_table(tmp_path / "labels.csv", rows), tmp_path)
    assert table.labels == ["grade"]
    assert table.row(["a.nii.gz"])["split"] == "train"
    assert table.row(["series/1.dcm", "series/2.dcm"]) == {"#": "3", "path": "series", "patient_id": "2"}
    assert table.row(["sub/b.png"])["split"] == "val"
    assert table.row(["c.png"]) == {}


def test_paths_count_from_the_table_or_from_the_scans(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    (scans / "sub").mkdir(parents=True)
    (scans / "sub" / "a.png").touch()
    rows = [
        {"path": "scans/sub/b.png", "mask_path": "masks/b.png"},
        {"path": "sub/a.png", "mask_path": "scans/sub/m.png"},
    ]
    table = read_table(write_table(tmp_path / "t.csv", rows), scans)
    assert set(table.by_path) == {"sub/a.png", "sub/b.png"}
    assert table.masks() == {str(tmp_path / "masks/b.png"), "sub/m.png"}


def test_semicolons_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("\ufeffpath;label\na.png;ü\n".encode())
    assert read_table(tmp_path / "t.csv", tmp_path).row(["a.png"])["label"] == "ü"


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    rows = [{"path": p, "split": s} for p, s in [("a", "trian"), ("b", "test"), ("", "val"), ("b", "train")]]
    with pytest.raises(UserError) as error:
        read_table(write_table(tmp_path / "t.csv", rows), tmp_path)
    text = str(error.value)
    assert "split 'trian'" in text and "row 2" in text
    assert "no path" in text and "row 4" in text
    assert "'b' again, with other values" in text and "row 3" in text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"file,label\na,1\n", "no column path"),
        (b"", "no rows"),
        (b"path,label\n", "no rows"),
        (b"path,label,label\na,1,2\n", "two columns named label"),
        (b"path,label\na,1,2\n", "more values than columns"),
        (b"path,label\na,\xff\n", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=what) as error:
        read_table(tmp_path / "t.csv", tmp_path)
    assert error.value.fix


def test_rows_about_nothing_are_listed(tmp_path: Path) -> None:
    table = read_table(write_table(tmp_path / "t.csv", [{"path": "a.png"}, {"path": "gone"}]), tmp_path)
    (fault,) = table.unknown({"a.png"}, set(), str)
    assert (fault.file, fault.what) == ("t.csv, row 3", "no scan for 'gone'")
    table = read_table(write_table(tmp_path / "t.csv", [{"patient_id": "1"}, {"patient_id": "2"}]), tmp_path)
    assert [fault.file for fault in table.unknown(set(), {"1"}, str)] == ["t.csv, row 3"]


def test_known_columns_are_found_however_they_are_capitalised(tmp_path: Path) -> None:
    table = read_table(
        write_table(tmp_path / "t.csv", [{"Path": "a.png", "Patient_ID": "1", "Lesion": "yes"}]), tmp_path
    )
    assert table.labels == ["Lesion"]
    assert table.row(["a.png"])["patient_id"] == "1"


def test_columns_without_a_name_and_rows_without_a_value_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "pandas.csv").write_text(",path,label\n0,a.png,x\n1,b.png,y\n")
    table = read_table(tmp_path / "pandas.csv", tmp_path)
    assert (table.labels, table.row(["b.png"])["label"]) == (["label"], "y")
    (tmp_path / "sheet.csv").write_bytes(b"path;label;;\r\na.png;x;;\r\n;;;\r\n;;;;;\r\n")
    table = read_table(tmp_path / "sheet.csv", tmp_path)
    assert (table.labels, list(table.by_path)) == (["label"], ["a.png"])
    (tmp_path / "more.csv").write_text("path;label\na.png;x;z\n")
    with pytest.raises(UserError, match="more values than columns"):
        read_table(tmp_path / "more.csv", tmp_path)
