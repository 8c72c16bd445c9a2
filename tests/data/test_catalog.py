"""Lists of problems: sorted by file, each told once, counted as told."""

import csv
from pathlib import Path

from medssl.data.catalog import write_problems
from medssl.data.item import Fault, place_of


def test_problems_are_sorted_told_once_and_counted(tmp_path: Path) -> None:
    faults = [
        Fault("b.png", "cut off", "copy it again"),
        Fault("a,1.png", "flat"),
        Fault("b.png", "cut off", "copy it again"),
    ]
    assert write_problems(tmp_path / "told.csv", faults) == 2
    with (tmp_path / "told.csv").open() as handle:
        assert list(csv.reader(handle)) == [
            ["file", "what", "how_to_fix"],
            ["a,1.png", "flat", ""],
            ["b.png", "cut off", "copy it again"],
        ]
    assert write_problems(tmp_path / "told.csv", []) == 0
    assert (tmp_path / "told.csv").read_text() == "file,what,how_to_fix\n"


def test_a_row_of_an_archive_is_named_by_its_number() -> None:
    assert place_of({"path": "a.npz", "member": 0}) == "a.npz[0]"
    assert place_of({"path": "a.png", "member": None}) == "a.png"
