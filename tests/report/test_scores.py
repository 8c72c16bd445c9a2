"""The tables of a study say what verdict.json says."""

import shutil
from pathlib import Path

from medssl.files import read_json
from medssl.report.page import write_study_report
from medssl.report.scores import pairs, ranks, scores
from medssl.wording import signed


def test_a_row_an_arm_and_label_count(study: Path):
    found = read_json(study / "verdict.json")
    table = scores(found)
    assert [(row[0], row[1]) for row in table.rows[:4]] == [(4, "scratch"), (4, "pcrl"), (4, "mine"), (8, "scratch")]
    assert {len(row) for row in table.rows} == {len(table.columns)} and "p (Holm)" in table.columns
    row, comparison = table.rows[1], found["labels"][0]["comparisons"][0]
    assert row[5] == signed(comparison["difference"]) and row[9] == comparison["verdict"] == "helped"
    assert row[8] == next(s["text"] for s in found["labels_saved"] if (s["arm"], s["n_labels"]) == ("pcrl", 4))
    assert not any("−0.000" in str(cell) or "+0.000" in str(cell) for row in table.rows for cell in row)


def test_one_arm_needs_no_correction_and_one_seed_has_no_p(study: Path):
    found = read_json(study / "verdict.json")
    for at in found["labels"]:
        at["comparisons"] = [c | {"compared": 1, "seeds": 1} for c in at["comparisons"] if c["arm"] == "pcrl"]
    table = scores(found)
    assert table.columns[7] == "p" and {row[7] for row in table.rows} == {""}


def test_pairs_and_ranks(study: Path):
    found = read_json(study / "verdict.json")
    assert pairs(found) is None
    first = found["labels"][0]
    first["pairs"] = [first["comparisons"][0] | {"arm": "pcrl", "against": "mine", "verdict": "better"}]
    (row,) = pairs(found).rows
    assert row[:3] == [4, "pcrl : mine", signed(first["pairs"][0]["difference"])] and row[-1] == "better"
    assert ranks(found["ranks"]).rows[0][0] == "pcrl"
    some = ranks({"ranks": {"a": 1.5}, "blocks": 4, "left_out": ["b"]})
    assert (
        some.rows == [["a", "1.50"]]
        and some.caption == "Mean rank over 4 label counts, 1 is best; not in all of them: b"
    )


def test_many_arms_are_a_table_and_not_cards(study: Path, tmp_path: Path):
    text = (write_study_report(study)).read_text()
    assert text.count('<li class="card') == 6
    copied = tmp_path / "study"
    shutil.copytree(study, copied)
    found = read_json(copied / "verdict.json")
    for at in found["labels"]:
        for i in range(8):
            arm = f"arm{i}"
            at["arms"][arm], at["scores"][arm] = at["arms"]["mine"], at["scores"]["mine"]
            at["comparisons"].append(at["comparisons"][1] | {"arm": arm, "sentence": f"{arm} stands."})
    from medssl.files import write_json

    write_json(copied / "verdict.json", found)
    text = write_study_report(copied).read_text()
    assert '<li class="card' not in text and "arm7 stands." not in text
    assert text.count("<td>arm7</td>") == 3 and "--series-10" in text and 'class="figures full"' in text
