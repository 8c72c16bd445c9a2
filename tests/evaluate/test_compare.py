"""Words follow corrected numbers; runs pair by seed and pre-training."""

import re
from dataclasses import replace

import numpy as np
import pytest

from medssl.evaluate.compare import block, compare, judge, pairs, what_it_takes
from medssl.evaluate.interval import POWER_80, Estimate, Spread, estimate, resample


def estimated(mean, sd_seed, sd_patient, seeds=5, patients=20, more=1, draws=4000):
    """An estimate of just this mean, whose error is about that of the spreads."""
    rng = np.random.default_rng(0)
    shape = (more, seeds, patients)
    d = sd_seed * rng.standard_normal((1, seeds, 1)) + sd_patient * rng.standard_normal(patients)
    d = d + 0.01 * rng.standard_normal(shape)
    d += mean - d.mean()
    needed = np.ones((patients, 1))
    again = np.einsum("np,qsp->nqs", resample(needed, rng, draws), d) / patients
    return estimate(d.mean(-1), again, needed, rng)


@pytest.mark.parametrize(
    ("interval", "seeds", "word"),
    [
        ((0.001, 0.2), 5, "helped"),
        ((-0.2, -0.001), 5, "harmed"),
        ((-0.009, 0.01), 5, "did not help"),
        ((-0.02, 0.01), 5, "cannot tell"),
        ((0.1, 0.2), 1, "cannot tell"),
        ((float("-inf"), float("inf")), 5, "cannot tell"),
    ],
)
def test_words_follow_the_interval(interval, seeds, word):
    assert judge(interval, 0.01, seeds) == word


def test_what_it_takes_is_a_study_large_enough():
    unsure = estimated(0.02, 0.05, 0.001)
    seeds = int(re.match(r"About (\d+) seeds", what_it_takes(unsure, 0.01))[1])
    goal, spread = max(abs(unsure.mean), 0.01 - abs(unsure.mean)), unsure.spread
    need = [spread.half_width(n, 20) + POWER_80 * spread.error(n, 20) for n in (seeds, seeds / 1.2)]
    assert need[0] <= goal < need[1]
    stricter = int(re.match(r"About (\d+) seeds", what_it_takes(unsure, 0.01, level=0.995))[1])
    assert stricter > seeds
    assert re.match(
        r"About \d+ test patients \(now 5 seeds and 20 test patients\)",
        what_it_takes(estimated(0.02, 0.001, 0.1), 0.01),
    )
    assert "within reach" in what_it_takes(replace(estimated(0, 50, 50), mean=0.0), 1e-3)


def test_more_pre_trainings_are_what_it_takes_where_they_differ():
    spread = Spread(1e-8, 1e-8, 1e-8, 1.0, pretraining=0.0004)
    found = Estimate(0.02, np.zeros(10), spread, 5, 40, pretrainings=3)
    assert re.match(
        r"About \d+ pre-trainings \(now 3 pre-trainings, 5 seeds and 40 test patients\)", what_it_takes(found, 0.01)
    )


def test_what_is_clear_alone_need_not_be_among_many():
    reach = estimated(0.0, 0.02, 0.01).interval()[1]
    doubtful, clear = estimated(1.1 * reach, 0.02, 0.01), estimated(9 * reach, 0.02, 0.01)
    alone = compare([("pcrl", "scratch", doubtful)], 10, "dice", 0.01)[0]
    assert alone["verdict"] == "helped" and alone["corrected"] == {
        "p": alone["p"], "level": 0.95, "interval": alone["interval"],
    }  # fmt: skip
    assert "corrected" not in alone["sentence"]
    none = estimated(0.0, 0.05, 0.05)
    others = [(f"arm{i}", "scratch", none) for i in range(7)]
    many = compare([("pcrl", "scratch", doubtful), ("moco", "scratch", clear), *others], 10, "dice", 0.01)
    words = {c["arm"]: c["verdict"] for c in many}
    assert words["moco"] == "helped" and words["pcrl"] == "cannot tell"
    assert many[0]["interval"] == alone["interval"] and many[0]["interval"][0] > 0
    assert many[0]["corrected"]["interval"][0] < 0 < 0.05 < many[0]["corrected"]["p"]
    assert "corrected for 9 comparisons" in many[0]["sentence"] and many[0]["compared"] == 9


def test_two_arms_are_better_worse_or_no_different():
    found = compare([("pcrl", "moco", estimated(0.2, 0.02, 0.01))], 10, "dice", 0.01)[0]
    assert found["verdict"] == "better" and "pcrl is better than moco: Dice +0.200" in found["sentence"]
    worse = compare([("pcrl", "moco", estimated(-0.2, 0.02, 0.01))], 10, "dice", 0.01)[0]
    assert worse["verdict"] == "worse" and "pcrl is worse than moco" in worse["sentence"]
    same = compare([("pcrl", "moco", estimated(0.0, 0.0001, 0.0001))], 10, "dice", 0.05)[0]
    assert "pcrl is no different from moco" in same["sentence"] and "within ±0.05." in same["sentence"]
    open_ = compare([("pcrl", "moco", estimated(0.0, 0.05, 0.05))], 10, "dice", 0.01)[0]
    assert "cannot tell whether pcrl is better than moco" in open_["sentence"]


def column(value):
    return np.array([float(value)]), np.full((2, 1), float(value))


def test_a_block_holds_every_pre_training_with_every_seed():
    cells = {(q, s): column(10 * q + s) for q in (1, 2, 3) for s in range(4)}
    full, again = block(cells)
    assert full[..., 0].tolist() == [[10, 11, 12, 13], [20, 21, 22, 23], [30, 31, 32, 33]]
    assert again.shape == (2, 3, 4, 1) and (again[0] == full).all()
    begun = {key: c for key, c in cells.items() if key[0] < 3 or key[1] == 0}  # the third has one seed so far
    assert block(begun)[0].shape == (2, 4, 1)
    del begun[2, 1]
    assert block(begun)[0][..., 0].tolist() == [[10, 12, 13], [20, 22, 23]]
    assert block({}) is None


def test_runs_pair_by_seed_and_by_pre_training_where_both_arms_have_it():
    columns = [("scratch", 1, s) for s in (0, 1)] + [("a", q, s) for q in (1, 2) for s in (0, 1, 2)] + [("b", 3, 0)]
    found = pairs(columns, "a", "scratch")  # the second pre-training began with other first weights
    assert found == {(1, s): (("a", 1, s), ("scratch", 1, s)) for s in (0, 1)}
    assert pairs(columns, "a", "b") == {(q, 0): (("a", q, 0), ("b", 3, 0)) for q in (1, 2)}  # one that stands alone
    assert pairs(columns, "b", "a").keys() == pairs(columns, "a", "b").keys()
    both = [("a", q, 0) for q in (1, 2, 3)] + [("b", q, 0) for q in (2, 3, 4)]
    assert sorted(pairs(both, "a", "b")) == [(2, 0), (3, 0)]
    assert pairs(both, "a", "c") == {}
