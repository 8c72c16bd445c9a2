"""The correlation of probe and result: by hand, against scipy, under no relation; the page holds what the rows give."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import probe_correlation as found
from benchmarks.probe_correlation import Arm, correlation
from scipy.stats import spearmanr

ROOT = Path(__file__).parents[1]


def rows_of(arm, key, values, probes=None, n=10):
    """A row each seed."""
    return [
        {"key": f"{key}-t-{seed}", "arm": arm, "pretraining": 1, "n_labels": n, "seed": seed, "value": value,
         "metric": "auc", "metrics": {"auc": value}, "pretrain": probes or {}}
        for seed, value in enumerate(values)
    ]  # fmt: skip


def written(folder: Path, rows) -> Path:
    folder.mkdir(parents=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder.parent


def test_a_point_is_an_arm_with_its_mean_paired_difference(tmp_path):
    probes = {"probe.knn": 0.5, "probe.linear": 0.7, "effective_rank": 9.0, "hardware": "cpu"}
    rows = [
        *rows_of("scratch", "s", [0.5, 0.7, None]), *rows_of("scratch", "s", [0.8], n=30),
        *rows_of("pcrl", "p1", [0.6, 0.6, 0.9, 0.9], probes), *rows_of("pcrl", "p1", [0.7], probes, n=30),
        *rows_of("twin", "p1", [0.6, 0.6], probes),  # the same pre-training under another name
        *rows_of("moco", "p2", [0.8], probes | {"probe.knn": 0.6}), *rows_of("given", "g", [0.1]),
    ]  # fmt: skip
    one, two = found.gathered(written(tmp_path / "data" / "xray", rows))
    assert one.study == two.study == "xray"
    assert one.probes == pytest.approx({"probe.knn": 0.5, "probe.linear": 0.7, "mean": 0.6, "effective_rank": 9.0})
    assert one.gains == pytest.approx({10: 0.0, 30: -0.1}) and two.gains == pytest.approx({10: 0.3})


def test_a_segmentation_is_not_asked_of_labels_of_whole_scans(tmp_path):
    probes = {"probe.knn": 0.5, "probe.linear": 0.7, "probe.voxel": 0.9, "effective_rank": 9.0}
    rows = [row | {"metric": "dice"} for row in (*rows_of("scratch", "s", [0.5]), *rows_of("mae", "m", [0.6], probes))]
    (arm,) = found.gathered(written(tmp_path / "data" / "organs", rows))
    assert arm.probes == {"probe.voxel": 0.9, "mean": 0.9, "effective_rank": 9.0}


def test_pre_trainings_of_an_arm_are_one_point_and_count_once(tmp_path):
    def second(rows):
        return [row | {"pretraining": 2} for row in rows]

    rows = [
        *rows_of("scratch", "s", [0.5, 0.7]), *second(rows_of("scratch", "s2", [0.6, 0.6])),
        *rows_of("pcrl", "p1", [0.6, 0.8], {"probe.knn": 0.5}),
        *second(rows_of("pcrl", "p2", [0.9, 0.9], {"probe.knn": 0.7})),
    ]  # fmt: skip
    written(tmp_path / "data" / "a", rows)
    written(tmp_path / "data" / "b", rows[:6])  # a study that knew the first pre-training
    (arm,) = found.gathered(tmp_path / "data")
    assert arm.study == "a" and arm.probes["probe.knn"] == pytest.approx(0.6) and arm.gains[10] == pytest.approx(0.2)


def test_it_is_spearmans_within_each_study(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 6)).round(1)
    assert correlation([(x, y)]).rho == pytest.approx(spearmanr(x, y)[0])
    a, b = (x[:4], y[:4]), (x, -x + 100)
    both = correlation([a, b, (x[:2], y[:2])])  # two points have no order
    assert both.rho == pytest.approx((3 * spearmanr(*a)[0] - 5) / 8) and both.n == 10
    assert correlation([(x, np.zeros(6))]) is None and correlation([(x[:2], y[:2])]) is None


@pytest.mark.parametrize(("n", "p"), [(3, 2 / 6), (4, 2 / 24), (5, 2 / 120)])
def test_small_studies_go_through_all_orders(n, p):
    perfect = correlation([(np.arange(n), np.arange(n) ** 3)])
    assert perfect.rho == pytest.approx(1) and perfect.p == pytest.approx(p)
    assert n > 3 or perfect.chance == pytest.approx(1)


def test_drawn_orders_agree_with_all_of_them(monkeypatch):
    x, y = np.random.default_rng(3).normal(size=(2, 6))
    exact = correlation([(x, y)])
    monkeypatch.setattr(found, "EXACT", 0)
    drawn = correlation([(x, y)])
    assert drawn.p == pytest.approx(exact.p, abs=0.02) and drawn.chance == pytest.approx(exact.chance, abs=0.06)


def test_where_nothing_relates_one_in_twenty_is_called_so(monkeypatch):
    monkeypatch.setattr(found, "DRAWS", 500)
    rng = np.random.default_rng(1)
    p = [correlation([tuple(rng.normal(size=(2, n))) for n in (6, 4, 8)]).p for _ in range(200)]
    assert 0.01 < np.mean(np.array(p) < 0.05) < 0.10  # 200 trials: 0.05 ± 0.031 at two standard errors


def test_levels_of_studies_and_of_label_counts_do_not_enter():
    easy = [Arm("a", {"mean": 0.9 + 0.01 * i}, {10: 0.3 - 0.01 * i, 30: 0.5 - 0.01 * i}) for i in range(4)]
    hard = [Arm("b", {"mean": 0.1 + 0.01 * i}, {10: -0.3 - 0.01 * i}) for i in range(4)]
    x, y = found.over_counts([*easy, *hard], "a", "mean")
    assert x == pytest.approx([-0.015, -0.005, 0.005, 0.015]) and y == pytest.approx([0.015, 0.005, -0.005, -0.015])
    groups = [found.over_counts([*easy, *hard], study, "mean") for study in "ab"]
    assert correlation(groups).rho == pytest.approx(-1)  # though the study with the better probes gains more


def test_the_table_says_what_there_is(tmp_path):
    points = [Arm("a", {"probe.knn": 0.5 + 0.1 * i, "mean": 0.5 + 0.1 * i}, {10: 0.01 * i}) for i in range(8)]
    text = found.table([*points, Arm("b", {"effective_rank": 9.0}, {30: 0.1})])
    assert "| study | labels | n | nearest neighbours | mean of these | effective rank |" in text
    assert "| a | 10 | 8 | +1.00 (p < .001) | +1.00 (p < .001) | – |" in text
    assert (
        "| b | 30 | < 3 | – | – | – |" in text
        and "- nearest neighbours: **foretells it**. ρ = +1.00 over 8 arms;" in text
    )
    page = f"before\n{found.BEGIN}\nold\n{found.END}\nafter"
    again = found.filled(page, text)
    assert text in again and "old" not in again and found.filled(again, text) == again
    found.figure(points, tmp_path / "a.svg")
    assert "nearest neighbours probe" in (tmp_path / "a.svg").read_text()


def test_the_page_holds_what_the_committed_rows_give():
    """If this fails, rows were added: `python -m benchmarks.probe_correlation` writes page and figure anew."""
    text = found.table(found.gathered(ROOT / "docs/results/data"))
    assert text in (ROOT / "docs/explanation/probe.md").read_text(encoding="utf-8")
