"""`python -m benchmarks.result_tables`: tables and plots from recorded runs; the pages show what the rows say."""

import re

import numpy as np
import polars as pl
import pytest
from benchmarks import change_table
from benchmarks.recorded import Asked, judge, scored
from benchmarks.result_tables import FOLDER, MARK, by_pretraining, filled, ranks, table, words

from medssl.report.ledger import Ledger, read

GAINS = {"scratch": 0.0, "good": 0.2, "bad": -0.2}


@pytest.fixture
def recorded(tmp_path):
    """A study of three arms, 12 test patients, three subsets and two pre-trainings each; folder of its page."""
    rng, found = np.random.default_rng(0), Ledger()
    for arm, gain in GAINS.items():
        for draw in (1, 2):
            for n in (5, 10):
                for seed in range(3):
                    luck = 0.05 * draw  # of first weights, which scratch shares
                    dice = 0.3 + luck + gain + 0.02 * draw * (arm == "good") + 0.01 * rng.standard_normal(12)
                    key = f"{arm}{draw}-x-{n}-{seed}"
                    row = {"key": key, "arm": arm, "pretraining": draw, "n_labels": n, "seed": seed, "metric": "dice"}
                    row |= {"value": float(dice.mean()), "metrics": {}, "test_hash": "t", "seconds": 60.0}
                    patients = [f"{i}" for i in range(12)]
                    told = pl.DataFrame({"item": patients, "patient": patients, "dice.1": dice})
                    found.add(row | {"pretrain": {} if arm == "scratch" else {"seconds": 3600.0}}, told)
    found.write(tmp_path / "data/mine")
    return tmp_path


def test_a_page_shows_means_differences_words_and_plots(recorded):
    before = "# Mine\n\n<!-- results mine; pairs good:bad -->\nold\n<!-- end -->\n\nafter\n"
    after = filled(before, "page", recorded)
    assert "old" not in after and after.startswith("# Mine") and after.endswith("after\n")
    assert filled(after, "page", recorded) == after
    assert "| **.6" in after and "**helped**" in after and "**harmed**" in after
    assert "good to bad +.4" in after and "Mean ranks: good 1.0, scratch 2.0, bad 3.0" in after
    assert "3 label subsets, 4 pre-trainings (4.0 hours), 36 fine-tunings (36 minutes)" in after
    for kind in ("scores", "differences"):
        svg = (recorded / f"plots/page-1-{kind}.svg").read_text()
        assert svg.startswith("<svg") and "var(" not in svg and f"plots/page-1-{kind}.svg" in after


def test_ranks_are_means_over_studies_and_numbers_of_labels(recorded):
    found, turned = read(recorded / "data/mine"), {"good": "bad", "bad": "good", "scratch": "scratch"}
    Ledger([row | {"arm": turned[row["arm"]]} for row in found.rows], found.predictions).write(recorded / "data/other")
    after = filled("<!-- ranks mine other; arms scratch bad good; labels 10 -->\n<!-- end -->\n", "page", recorded)
    assert "| arm | mine | other | all |" in after and "| good | 1.0 | 3.0 | 2.00 |" in after
    assert "| bad | 3.0 | 1.0 | 2.00 |" in after and "| scratch | 2.0 | 2.0 | 2.00 |" in after


def test_differences_of_each_pretraining_are_to_the_scratch_that_began_alike(recorded):
    rows = read(recorded / "data/mine").rows
    assert by_pretraining(rows, "good", 5) == pytest.approx([0.22, 0.24], abs=0.01)
    assert by_pretraining(rows, "scratch", 5) == [0.0, 0.0]


def test_a_table_holds_two_numbers_of_labels(recorded):
    found = read(recorded / "data/mine")
    for row in list(found.rows):
        for n in (20, 40):
            key = f"{row['key']}-{n}"
            if row["n_labels"] == 5 and (row["arm"], n) != ("bad", 40):
                found.add(row | {"n_labels": n, "key": key}, found.predictions[row["key"]])
    found.write(recorded / "data/mine")
    first, second = table(*judge(Asked.of("mine"), recorded / "data")).split("\n\n")
    assert "5 labels" in first and "10 labels" in first and "20 labels" in second and "40 labels" in second
    assert [line.split(" | ")[0] for line in first.splitlines()] == [
        line.split(" | ")[0] for line in second.splitlines()
    ]
    assert shown_means(second)["bad", 40] == "" != shown_means(second)["bad", 20]


def test_arms_and_labels_that_are_named_are_all(recorded):
    rows, judged = judge(Asked.of("mine; arms scratch bad; labels 10"), recorded / "data")
    shown = table(rows, judged)
    assert {row["arm"] for row in rows} == {"scratch", "bad"} and "5 labels" not in shown and "good" not in shown
    assert "by pre-training" in shown and "Mean ranks" not in words(rows, judged)


def test_changes_are_beside_their_base_with_what_the_recipe_says(recorded, monkeypatch):
    recipe = "[pretrain.good]\nwidth = 4\n[pretrain.bad]\nmethod = 'good'\nwidth = 4\nqueue = 64\nskips = 'none'\n"
    (recorded / "mine.toml").write_text(recipe)
    monkeypatch.setattr(change_table, "RECIPES", recorded)
    found = read(recorded / "data/mine")
    probed = [row | {"pretrain": {"probe.b": 0.5, "probe.a": 0.25, "seconds": 60.0}} for row in found.rows]
    Ledger(probed, found.predictions).write(recorded / "data/mine")
    after = filled("<!-- changes mine; labels 10; base good -->\n<!-- end -->\n", "page", recorded)
    assert "| arm | setting | mine: Dice to good, 10 labels | a, b | s |" in after
    base, other = re.findall(r"^\| (.*(?:good|bad).*) \|$", after, re.MULTILINE)[1:]
    assert re.match(r"\*\*good\*\*, to scratch \|  \| \+\.2.* \*\*helped\*\* \| \.250, \.500 \| 60", base)
    assert re.match(r"bad \| `queue = 64`, `skips = \"none\"` \| −\.4.* \*\*worse\*\* \| \.250, \.500 \| 60", other)


@pytest.mark.parametrize(
    ("asked", "said"),
    [("mine; arm good", "asks for arm"), ("mine; arms better", "no rows of better"), ("none", "no rows of what")],
)
def test_a_marker_that_cannot_be_filled_is_told(recorded, asked, said):
    with pytest.raises(SystemExit, match=said):
        judge(Asked.of(asked), recorded / "data")


def shown_means(text):
    """What the tables show by arm and number of labels; an empty string where an arm has none."""
    shown = {}
    for lines in re.findall(r"(?:^\| .* \|$\n?)+", text, re.MULTILINE):
        head, _, *rows = (line.strip("| \n").split(" | ") for line in lines.splitlines(keepends=True))
        for at, name in enumerate(head):
            if (n := name.partition(", ")[2].removesuffix(" labels")).isdigit():
                shown |= {(row[0], int(n)): row[at].strip("* ") if at < len(row) else "" for row in rows}
    return shown


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda path: path.stem)
def test_pages_show_the_means_of_the_committed_rows(page):
    """Means and ranks alone: intervals take seconds a study, and `python -m benchmarks.result_tables` makes both."""
    for mark in MARK.finditer(page.read_text(encoding="utf-8")):
        asked = Asked.of(mark["asked"])
        if mark["kind"] == "ranks":
            assert ranks(asked, FOLDER / "data") in mark[0]
            continue
        if mark["kind"] == "changes":
            assert_changes(asked, mark[0])
            continue
        rows, _ = scored(asked, FOLDER / "data")
        shown = shown_means(mark[0])
        assert {arm for arm, _ in shown} == {row["arm"] for row in rows}
        assert {n for _, n in shown} == {row["n_labels"] for row in rows}
        for (arm, n), cell in shown.items():
            values = [row["value"] for row in rows if (row["arm"], row["n_labels"]) == (arm, n)]
            if cell:
                assert float(cell) == pytest.approx(np.mean(values), abs=0.0006)
            else:
                assert not values


def assert_changes(asked: Asked, shown: str) -> None:
    head, _, *lines = [line.split(" | ") for line in re.findall(r"^\| (.*) \|$", shown, re.MULTILINE)]
    for study in asked.study.split():
        rows, _ = scored(Asked(study), FOLDER / "data")
        of = {arm: [row["value"] for row in rows if row["arm"] == arm] for arm in {row["arm"] for row in rows}}
        (column,) = (i for i, name in enumerate(head) if name.startswith(f"{study}:"))
        found = {line[0]: line[column] for line in lines if line[column] != "–"}
        assert len(found) == len(of) - 1
        for name, cell in found.items():
            arm, against = (asked.base, "scratch") if "to scratch" in name else (name, asked.base)
            gain = float(cell.split(" ")[0].replace("−", "-"))
            assert gain == pytest.approx(np.mean(of[arm]) - np.mean(of[against]), abs=0.0006)
