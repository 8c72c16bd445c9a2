"""Metrics as functions of weights are the textbook's on repeated patients."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from medssl.evaluate.interval import estimate, resample
from medssl.evaluate.scorers import MacroAuc, PatientMean, score_all, scorer


@pytest.mark.parametrize("kind", ["auc", "dice"])
def test_a_single_test_patient_gives_scores_without_an_interval(kind):
    metric = {"auc": MacroAuc(np.eye(2), np.eye(2), [0, 0], 1), "dice": PatientMean(np.ones((2, 1)), [0, 0], 1)}[kind]
    full, again = score_all([metric] * 2, resample(metric.needed, np.random.default_rng(0)))
    assert full.tolist() == [1.0, 1.0] and again.shape == (0, 2)
    assert estimate(full, again, metric.needed, np.random.default_rng(0)).interval() == (-np.inf, np.inf)


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
    monkeypatch.setattr("medssl.evaluate.scorers._CHUNK", 3 * 40)
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
