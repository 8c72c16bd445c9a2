"""A report comes from the table or from the file beside the scan; what cannot be one is told in a sentence."""

from pathlib import Path
from typing import Any

import pytest

from medssl.data.reports import LONGEST_BYTES, summary, with_reports


def row(*files: str, text: str | None = None, study: str = "s", patient: str = "p", member: int | None = None) -> Any:
    named = {"files": list(files), "path": files[0], "member": member, "patient": patient, "study": study}
    return named | {"text": text, "warnings": []}


def attach(folder: Path, rows: list[Any]) -> tuple[list[str | None], dict[str, str], list[list[str]]]:
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    made, faults, looked_at = with_reports(rows, files, folder)
    assert all(fault.file in looked_at and fault.how_to_fix for fault in faults)
    return [r["text"] for r in made], {f.file: f.what for f in faults}, [r["warnings"] for r in made]


def test_a_text_of_the_same_name_is_the_report(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffNo nodule.\r\n".encode())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.TXT").write_text("Übersicht unauffällig.")
    (tmp_path / "series.txt").write_text("Effusion.")
    (tmp_path / "readme.txt").write_text("not about a scan")
    rows = [
        row("a.nii.gz"),
        row("sub/b.png"),
        row("series/1.dcm", "series/2.dcm"),
        row("series/alone.nii"),
        row("c.nii"),
    ]
    texts, faults, _ = attach(tmp_path, rows)
    assert texts == ["No nodule.", "Übersicht unauffällig.", "Effusion.", None, None] and not faults
    assert with_reports(rows, ["readme.txt"], tmp_path)[2] == set()  # left to whoever tells of files that are no scans
    assert attach(tmp_path, [row("a.npz", member=3)])[0] == [None]


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "an empty report"),
        (b" \n-- \n", "an empty report"),
        (b"\xff\xfe\x00N", "not UTF-8"),
        (b"a" * (LONGEST_BYTES + 1), "too long for a report"),
    ],
)
def test_what_is_no_report_is_told(tmp_path: Path, raw: bytes, what: str) -> None:
    (tmp_path / "a.txt").write_bytes(raw)
    texts, faults, _ = attach(tmp_path, [row("a.nii")])
    assert texts == [None] and list(faults) == ["a.txt"] and what in faults["a.txt"]


def test_the_table_goes_before_the_file_and_a_difference_is_told(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("No\nnodule.")
    texts, faults, _ = attach(tmp_path, [row("a.nii", text="Nodule."), row("b.nii", text="No nodule.")])
    assert texts == ["Nodule.", "No nodule."]
    assert faults == {"a.txt": "not used: the table has another report for a.nii"}


def test_a_cell_without_a_word_is_no_report(tmp_path: Path) -> None:
    texts, _, warnings = attach(tmp_path, [row("a.nii", text="-"), row("b.nii", text="N/A"), row("c.nii")])
    assert texts == [None] * 3 and warnings == [["its report holds no word: taken as none"]] * 2 + [[]]


def test_two_reports_of_one_study_are_told_and_kept(tmp_path: Path) -> None:
    rows = [row("a.nii", text="Nodule."), row("b.nii", text="No nodule."), row("c.nii", text="x", study="other")]
    rows += [row("d.nii", text="y", patient="q"), row("e.nii", text="u", study=""), row("f.nii", text="v", study="")]
    texts, _, warnings = attach(tmp_path, rows)
    assert texts == [r["text"] for r in rows]
    assert warnings == [["its study has 2 different reports: each scan keeps its own"]] * 2 + [[]] * 4
    assert attach(tmp_path, [row("a.nii", text="One."), row("b.nii", text=" One. ")])[2] == [[], []]


def test_how_many_have_one_is_said_in_a_sentence() -> None:
    assert summary([row("a")]) == ""
    assert summary([row("a", text="x")]) == "reports: 1 of 1 scans have one"
    assert summary([row("a", text="x"), row("b")]).endswith(
        "1 of 2 scans have one; the others take part as images alone"
    )
