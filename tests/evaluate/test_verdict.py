"""The verdict is right as often as it promises, its metrics are the textbook's, its words follow its numbers."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from medssl.errors import UserError
from medssl.evaluate.interval import MacroAuc, PatientMean, estimate, resample, score_all, scorer
from medssl.evaluate.verdict import ScoredRun, judge, verdict, what_it_takes


def two_way(rng, seeds, patients, sd_seed, sd_patient, sd_rest, skewed=False):
    """Differences (seeds, patients) with a true mean of zero."""
    of_patient = rng.standard_exponential(patients) - 1 if skewed else rng.standard_normal(patients)
    return (
        sd_seed * rng.standard_normal(seeds)[:, None]
        + sd_patient * of_patient
        + sd_rest * rng.standard_normal((seeds, patients))
    )


def estimated(differences, rng, n=800):
    patients = differences.shape[1]
    runs = [PatientMean(row[:, None], range(patients), patients) for row in differences]
    weights = resample(runs[0].needed, rng, n)
    return estimate(*score_all(runs, weights), runs[0].needed, rng)


@pytest.mark.parametrize(
    ("seeds", "patients", "spreads", "skewed"),
    [
        (5, 10, (0.5, 0.5, 1.0), False),
        (5, 40, (0.0, 0.2, 1.0), False),
        (5, 10, (1.0, 0.3, 0.3), False),
        (3, 30, (0.5, 0.0, 0.5), False),
        (8, 12, (0.1, 1.0, 2.0), False),
        (5, 20, (0.3, 1.0, 1.0), True),
    ],
)
def test_the_interval_covers_the_truth_as_promised(seeds, patients, spreads, skewed):
    rng = np.random.default_rng(seeds * patients)
    trials = 400
    covered = 0
    for _ in range(trials):
        low, high = estimated(two_way(rng, seeds, patients, *spreads, skewed), rng).interval()
        covered += low <= 0 <= high
    assert 0.90 <= covered / trials <= 0.985


@pytest.mark.parametrize("kind", ["auc", "dice"])
def test_a_single_test_patient_gives_scores_without_an_interval(kind):
    metric = {"auc": MacroAuc(np.eye(2), np.eye(2), [0, 0], 1), "dice": PatientMean(np.ones((2, 1)), [0, 0], 1)}[kind]
    full, again = score_all([metric] * 2, resample(metric.needed, np.random.default_rng(0)))
    assert full.tolist() == [1.0, 1.0] and again.shape == (0, 2)
    assert estimate(full, again, metric.needed, np.random.default_rng(0)).interval() == (-np.inf, np.inf)


def test_a_bootstrap_over_few_seeds_alone_would_not_cover_it():
    rng = np.random.default_rng(3)
    plain = ours = 0
    for _ in range(300):
        d = two_way(rng, 3, 30, 1.0, 0.3, 0.3)
        drawn = d.mean(1)[rng.integers(0, 3, (800, 3))].mean(1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        plain += low <= 0 <= high
        low, high = estimated(d, rng, 400).interval()
        ours += low <= 0 <= high
    assert plain / 300 < 0.85 < 0.90 < ours / 300


def test_variances_are_told_apart():
    rng = np.random.default_rng(0)
    spreads = [estimated(two_way(rng, 30, 80, 0.7, 0.4, 1.1), rng, 400).spread for _ in range(30)]
    found = np.sqrt([[s.seed, s.patient, s.rest] for s in spreads]).mean(0)
    np.testing.assert_allclose(found, [0.7, 0.4, 1.1], rtol=0.12)


def test_auc_with_weights_is_that_of_repeated_items():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 12, 60)
    truth = (rng.random((60, 3)) < 0.4).astype(float)
    truth[rng.random((60, 3)) < 0.1] = np.nan
    prob = rng.integers(0, 12, (60, 3)) / 12  # ties on purpose
    ours = MacroAuc(prob, truth, codes, 12)
    weights = resample(ours.needed, rng, 20)
    for w, value in zip(weights, ours(weights), strict=True):
        repeated = np.repeat(np.arange(60), w[codes].astype(int))
        naive = []
        for c in range(3):
            known = repeated[np.isfinite(truth[repeated, c])]
            naive.append(roc_auc_score(truth[known, c], prob[known, c]))
        assert value == pytest.approx(np.mean(naive), abs=1e-6)


def test_chunks_do_not_change_the_auc(monkeypatch):
    rng = np.random.default_rng(2)
    truth, prob = (rng.random((40, 1)) < 0.5).astype(float), rng.random((40, 1))
    ours = MacroAuc(prob, truth, range(40), 40)
    weights = resample(ours.needed, rng, 50)
    whole = ours(weights)
    monkeypatch.setattr("medssl.evaluate.interval._CHUNK", 3 * 40)
    np.testing.assert_array_equal(whole, ours(weights))


def test_resamples_never_lack_a_class():
    truth = np.zeros((20, 1))
    truth[:2] = 1  # a third of the resamples would have no positive
    ours = MacroAuc(np.random.default_rng(0).random((20, 1)), truth, range(20), 20)
    weights = resample(ours.needed, np.random.default_rng(1), 500)
    assert weights.shape == (500, 20) and (weights.sum(1) == 20).all()
    assert (weights[:, :2].sum(1) > 0).all() and np.isfinite(ours(weights)).all()


def test_a_class_without_positives_is_left_out_and_one_class_alone_has_no_auc():
    rng = np.random.default_rng(0)
    truth = np.stack([rng.random(20) < 0.5, np.zeros(20)], 1).astype(float)
    prob = rng.random((20, 2))
    both, one = MacroAuc(prob, truth, range(20), 20), MacroAuc(prob[:, :1], truth[:, :1], range(20), 20)
    everyone = np.ones((1, 20))
    assert both(everyone) == one(everyone)
    none = MacroAuc(prob[:, 1:], truth[:, 1:], range(20), 20)
    assert np.isnan(none(everyone)).all() and not len(resample(none.needed, rng, 10))


def test_dice_is_the_mean_over_patients_of_their_means():
    frame = pl.DataFrame(
        {
            "item": ["a", "b", "c"],
            "patient": ["p", "p", "q"],
            "dice.liver": [0.8, 0.6, 0.5],
            "dice.lesion": [None, 0.4, 0.1],
            "hd95.liver": [1.0, 2.0, 3.0],
        }
    )
    ours = scorer(frame, "dice", ["p", "q"])
    assert ours(np.ones((1, 2)))[0] == pytest.approx(((0.8 + 0.6 + 0.4) / 3 + 0.3) / 2)
    assert ours(np.array([[0.0, 2.0]]))[0] == pytest.approx(0.3)


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
    rng = np.random.default_rng(4)
    unsure = estimated(0.02 + two_way(rng, 5, 20, 0.05, 0.001, 0.01), rng)
    told = what_it_takes(unsure, 0.01)
    seeds = int(re.match(r"About (\d+) seeds", told)[1])
    goal = max(abs(unsure.mean), 0.01 - abs(unsure.mean)) * 1.96 / 2.8
    assert unsure.spread.half_width(seeds, 20) <= goal < unsure.spread.half_width(seeds / 1.2, 20)
    patients_decide = estimated(0.02 + two_way(rng, 5, 20, 0.001, 0.1, 0.01), rng)
    assert re.match(r"About \d+ test patients \(now 5 and 20\)", what_it_takes(patients_decide, 0.01))
    hopeless = estimated(two_way(rng, 5, 20, 50.0, 50.0, 50.0), rng)
    hopeless = replace(hopeless, mean=0.0)
    assert "within reach" in what_it_takes(hopeless, 1e-3)


def write_study(
    folder: Path, effect: dict[tuple[str, int], float], seeds=5, patients=24, noise=0.02
) -> list[ScoredRun]:
    """Runs of a segmentation whose Dice differs from scratch by what `effect` says of (arm, labels)."""
    rng = np.random.default_rng(7)
    names = [f"p{i:02d}" for i in range(patients)]
    ease = rng.normal(0.6, 0.1, patients)  # hard patients are hard for every arm
    runs = []
    for (arm, n), gain in effect.items():
        for s in range(seeds):
            dice = ease + gain + rng.normal(0, noise) / 4 + rng.normal(0, noise, patients)
            path = folder / f"{arm}-n{n}-s{s}" / "predictions.parquet"
            path.parent.mkdir(parents=True)
            pl.DataFrame({"item": names, "patient": names, "dice.liver": dice}).write_parquet(path)
            runs.append(ScoredRun(arm, n, s, path))
    return runs


def test_the_verdict_finds_what_was_put_in(tmp_path):
    effect = {("scratch", 4): 0.0, ("pcrl", 4): 0.08, ("mine", 4): -0.08, ("scratch", 16): 0.0, ("pcrl", 16): 0.0}
    runs = write_study(tmp_path, effect)
    found = verdict(runs, task="segment", margin=0.05)
    words = {(c["arm"], at["n_labels"]): c["verdict"] for at in found["labels"] for c in at["comparisons"]}
    assert words == {("pcrl", 4): "helped", ("mine", 4): "harmed", ("pcrl", 16): "did not help"}
    helped = found["labels"][0]["comparisons"][0]
    low, high = helped["interval"]
    assert low < 0.08 < high and helped["holds_for_all"] and "pcrl helped: Dice +0.0" in helped["sentence"]
    assert found["test_patients"] == 24 and "3 comparisons" in found["note"]
    assert "helped with 4" in found["sentence"] and "did not help with 16" in found["sentence"]
    assert verdict(runs, task="segment", margin=0.05) == found  # no chance of its own


def test_pairs_are_seeds_that_both_arms_finished(tmp_path):
    runs = write_study(tmp_path, {("scratch", 4): 0.0, ("pcrl", 4): 0.08})
    left = [r for r in runs if (r.arm, r.seed) not in {("scratch", 1), ("pcrl", 3)}]
    comparison = verdict(left, task="segment")["labels"][0]["comparisons"][0]
    assert comparison["seeds"] == 3
    one = [r for r in runs if r.seed == 0]
    lonely = verdict(one, task="segment")["labels"][0]["comparisons"][0]
    assert lonely["verdict"] == "cannot tell" and "at least 3" in lonely["sentence"]


def test_labels_to_reach_lies_between_counts(tmp_path):
    effect = {("scratch", 4): 0.0, ("pcrl", 4): 0.05, ("scratch", 16): 0.1, ("pcrl", 16): 0.15}
    (reach,) = verdict(write_study(tmp_path, effect, noise=0.001), task="segment")["reach"]
    assert reach["of"] == 16 and reach["labels"] == pytest.approx(8, rel=0.1)  # halfway on a logarithmic axis


def test_a_single_test_patient_cannot_tell(tmp_path):
    found = verdict(write_study(tmp_path, {("scratch", 4): 0.0, ("pcrl", 4): 0.5}, patients=1), task="segment")
    comparison = found["labels"][0]["comparisons"][0]
    assert comparison["verdict"] == "cannot tell" and "too few patients" in comparison["sentence"]


def test_runs_on_other_scans_are_refused(tmp_path):
    runs = write_study(tmp_path / "a", {("scratch", 4): 0.0}) + write_study(
        tmp_path / "b", {("pcrl", 4): 0.0}, patients=23
    )
    with pytest.raises(UserError, match="different scans"):
        verdict(runs, task="segment")
    with pytest.raises(UserError, match="no finished runs"):
        verdict([], task="segment")
