"""`python -m benchmarks.scaling`: it measures, keeps, draws; the exponents are those of the points."""

import json

import pytest
from benchmarks import results, scaling
from benchmarks.ranks import Spent
from benchmarks.scaling_page import PANELS, Point, exponent, write

from medssl.data.jobs import cores


def test_small_sizes_from_measuring_to_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "SCANS", (2, 3))
    monkeypatch.setattr(scaling, "PATIENTS", 2)
    monkeypatch.setattr(scaling, "SIDE", {2: 32, 3: 32})
    monkeypatch.setattr(scaling, "SIDES", {2: (32, 48), 3: (32, 40)})
    monkeypatch.setattr(scaling, "SIZES", {2: [(32, 32), (64, 32)], 3: [(16, 16, 16), (32, 16, 16)]})
    monkeypatch.setattr(scaling, "WIDTH", {2: 4, 3: 4})
    monkeypatch.setattr(scaling, "seconds_a_step", lambda world, arguments: Spent(0.1 * world, 0.1))
    assert scaling.main(["--quick", "--ranks", "1", "--out", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "scaling.jsonl").read_text().splitlines()]
    assert {(line["what"], line["against"]) for line in lines} == {*PANELS, ("index_s", "voxels")}
    assert all(line["low"] <= line["value"] <= line["high"] and line["value"] > 0 for line in lines)
    kept = [line for line in lines if line["what"] == "kept_bytes" and line["against"] == "batch"]
    assert all(a["value"] < b["value"] for a, b in zip(kept[::2], kept[1::2], strict=True))
    page = (tmp_path / "scaling.md").read_text()
    assert results.name_of() in page and "too few points" in page
    assert (tmp_path / "scaling.svg").read_text().count("<svg") == 1


def test_ranks_anew_keep_other_points_and_the_clock_needs_a_core_each(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "seconds_a_step", lambda world, arguments: Spent(0.1 * world, 0.1))
    other = {**vars(Point.of("step_s", "batch", "2D", 2, [1.0])), "commit": "c", "hardware": results.name_of()}
    (tmp_path / "scaling.jsonl").write_text(json.dumps(other) + "\n")
    ask = ["--only", "ranks", "--ranks", "1", str(cores() + 1), "--out", str(tmp_path)]
    assert scaling.main(ask) == 0
    lines = [json.loads(line) for line in (tmp_path / "scaling.jsonl").read_text().splitlines()]
    assert lines[0] == other
    assert [(line["series"], line["x"]) for line in lines[1:]] == [("CPU", 1), ("clock", 1), ("CPU", cores() + 1)]


def test_the_exponent_of_a_power_is_its_own():
    points = [Point.of("step_s", "voxels", "2D", x, [3 * x**1.5]) for x in (2, 5, 7, 40)]
    assert exponent(points) == pytest.approx(1.5)
    fixed = [Point.of("step_s", "voxels", "2D", x, [10 + x]) for x in (1, 10, 100, 1000)]
    assert 0 < exponent(fixed) < exponent(fixed[-2:]) < 1


def test_a_page_without_results_says_so(tmp_path):
    write(tmp_path / "none.jsonl", tmp_path)
    assert "Nothing has been measured yet" in (tmp_path / "scaling.md").read_text()
