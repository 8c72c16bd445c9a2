"""The joint space in a report: written from files alone, whole where some are missing."""

from pathlib import Path

import numpy as np

from medssl.files import write_json
from medssl.report.blocks import Figure, Note, Table
from medssl.report.modalities import _plane, fewer, sections
from medssl.rng import stream


def score(value: float, low: float | None = 0.1) -> dict:
    return {"value": value, "interval": [low, None if low is None else 0.9], "chance": 0.25}


def write(run: Path, transductive: bool = False) -> None:
    one = {"query": "CT", "gallery": "MR", "queries": 8, "patients": 6, "candidates": 8.0, "r@1": score(0.5)}
    one |= {"r@5": score(0.75), "r@10": score(1.0, None), "median_rank": score(2.0)}
    joint = {"separability": 0.9, "separability_chance": 0.5, "modalities": {"CT": {"samples": 8, "uniformity": None}}}
    joint["pairs"] = [{"modalities": ["CT", "MR"], "pairs": 8, "gap": 0.4, "pair_cosine": 0.8, "alignment": 0.4}]
    directions = [one, {"query": "MR", "gallery": "CT", "queries": 0}]
    write_json(run / "retrieval.json", {"directions": directions, "joint": joint, "transductive": transductive})
    z = stream(0, "z").normal(size=(16, 5))
    kinds = np.array(["CT", "MR"] * 8)
    np.savez(run / "joint.npz", z=z, modality=kinds, subject=np.arange(16) // 2)


def test_numbers_stand_with_interval_and_chance(tmp_path) -> None:
    write(tmp_path)
    retrieval, space = sections(tmp_path)
    (table,) = retrieval.blocks
    assert isinstance(table, Table) and len(table.columns) == len(table.rows[0]) == len(table.rows[1])
    assert table.rows[0][3:5] == ("0.50 [0.10, 0.90] (0.25)", "0.75 [0.10, 0.90] (0.25)")
    assert table.rows[0][5:] == ("1.00 (0.25)", "2.0 (0.2)") and table.rows[1][1] == "no pair"
    figure, pairs, spread, told = space.blocks
    assert isinstance(figure, Figure) and isinstance(told, Note) and "0.90 (chance 0.50)" in told.text
    assert pairs.rows == [("CT and MR", 8, "0.80", "0.40", "0.40")] and spread.rows == [("CT", 8, "–")]
    links = [part for part in figure.svg.split("<path ")[1:] if "opacity: 0.5" in part.split("/>")[0]]
    assert len(links) == 8  # a line a pair


def test_what_is_missing_says_so_and_transductive_runs_are_flagged(tmp_path) -> None:
    assert all(not s.blocks and "medssl evaluate retrieval" in s.missing for s in sections(tmp_path))
    write(tmp_path, transductive=True)
    note = sections(tmp_path)[0].blocks[0]
    assert isinstance(note, Note) and note.tone == "warning"
    (tmp_path / "joint.npz").write_bytes(b"broken")
    assert not any(isinstance(block, Figure) for block in sections(tmp_path)[1].blocks)


def test_zero_shot_is_shown_where_it_was_asked_for(tmp_path) -> None:
    auc = {"value": 0.8, "interval": [0.7, 0.9], "chance": 0.5}
    one = {"scans": 9, "patients": 7, "auc": auc, "balanced_accuracy": {"value": 0.6, "chance": 0.5}}
    none = one | {"auc": {"value": None, "interval": [None, None], "chance": 0.5}}
    found = {"target": "lesion", "prompts": {"yes": ["a"], "no": ["b"]}, "modalities": {"CT": one, "MR": none}}
    write_json(tmp_path / "zeroshot.json", found | {"transductive": False})
    (table,) = sections(tmp_path)[2].blocks
    assert table.rows[0] == ("CT", 9, 7, "0.800 [0.70, 0.90]", "0.600 (0.50)") and table.rows[1][3] == "undefined"


def test_the_plane_keeps_the_directions_of_largest_variance() -> None:
    z = stream(0, "plane").normal(size=(30, 4)) * [1, 9, 0.1, 4] + 50
    points = _plane(z)
    assert all(abs(np.corrcoef(points[:, i], z[:, axis])[0, 1]) > 0.9 for i, axis in ((0, 1), (1, 3)))
    assert _plane(z[:, :1]).shape == (30, 2)


def case(value: float | None, n: int = 6, **more: object) -> dict:
    metrics = {"dice": value, "hd95": 4.0}
    return {"n": n, "patients": n - 1, "value": value, "interval": [0.5, 0.75], "metrics": metrics} | more


def name_of(key: str) -> str:
    return {"dice": "Dice", "hd95": "HD95 (mm)"}[key]


def test_a_task_with_fewer_modalities_is_compared_on_the_same_items() -> None:
    less = case(0.6, difference=-0.2, difference_interval=[-0.3, -0.1])
    one = case(None, difference=None, difference_interval=[None, None])
    names = ["CT", "T1", "T2"]
    found = {"names": names, "same": True, "all": case(0.8)} | {
        k: dict.fromkeys(names, less) for k in ("alone", "left_out")
    }
    found["alone"]["T2"] = one
    note, table, others = fewer(found, "Dice", name_of).blocks
    assert note.text == "All on the same 6 test items of 5 patients, which have each modality."
    assert table.rows[0] == ("CT, T1, T2", 6, 5, "0.800", "0.500 to 0.750", "", "")
    assert table.rows[1] == ("CT alone", 6, 5, "0.600", "0.500 to 0.750", "−0.200", "−0.300 to −0.100")
    assert table.rows[3] == ("T2 alone", 6, 5, "undefined", "0.500 to 0.750", "", "")
    assert [row[0] for row in table.rows[4:]] == ["without CT", "without T1", "without T2"]
    assert others.columns == ("Shown", "HD95 (mm)") and others.rows[1] == ("CT alone", "4.000")
    assert len(table.columns) == len(table.rows[0])


def test_another_modality_stands_behind_an_arrow_and_unlike_items_are_told() -> None:
    found = {"names": ["CT"], "same": False, "all": case(0.8), "tested_on": {"MR": case(0.3, n=4)}}
    section = fewer(found, "Dice", name_of)
    note, table, _ = section.blocks
    assert "No test item has all of CT, MR" in note.text and "not compared" in note.text
    assert table.rows[1][:4] == ("CT → MR", 4, 3, "0.300") and "learnt from CT" in section.intro
