"""The label-saving factor is the shift of a curve whose shift is known."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from medssl.evaluate.interval import resample
from medssl.evaluate.labels_saved import isotonic, labels_of, labels_saved, unknown, unreadable

COUNTS = (10, 30, 100)


def naive(counts, curve, score):
    """Walk along the curve until it reaches the score."""
    curve = IsotonicRegression().fit_transform(np.arange(len(curve)), curve)
    if score <= curve[0]:
        return counts[0]
    for i in range(1, len(counts)):
        if curve[i] >= score:
            share = (score - curve[i - 1]) / (curve[i] - curve[i - 1])
            return counts[i - 1] * (counts[i] / counts[i - 1]) ** share
    return counts[-1]


def test_labels_are_read_off_the_curve_as_by_hand():
    rng = np.random.default_rng(0)
    curves, scores = rng.normal(size=(300, 4)).cumsum(1) + np.arange(4), rng.normal(2, 3, 300)
    found = labels_of((5, 10, 40, 80), curves, scores)
    hand = [naive((5, 10, 40, 80), curve, score) for curve, score in zip(curves, scores, strict=True)]
    np.testing.assert_allclose(found, hand, rtol=1e-9)
    assert labels_of(COUNTS, np.array([[0.1, 0.5, 0.6]]), np.array([0.5])) == pytest.approx(30)


def test_curves_are_made_monotone_as_scikit_learn_does():
    curves = np.random.default_rng(1).normal(size=(50, 5))
    hand = [IsotonicRegression().fit_transform(np.arange(5), curve) for curve in curves]
    np.testing.assert_allclose(isotonic(curves), hand, atol=1e-12)


def curve(n):
    return 0.4 + 0.1 * np.log(n)


def measured(rng, factor, n, *, seeds=5, patients=30, noise=1.0, rise=1.0, more=1, draws=400):
    """A factor read off simulated runs: scratch's curve, and an arm for which n labels count as factor · n."""
    truth = np.array([*(rise * curve(np.array(COUNTS))), rise * curve(factor * n)])
    scores = (
        truth
        + noise * 0.05 * rng.standard_normal((1, 1, patients, 1))  # hard patients are hard for all
        + noise * 0.01 * rng.standard_normal((1, seeds, 1, 1))
        + noise * 0.01 * rng.standard_normal((1, seeds, 1, 4))
        + noise * 0.01 * rng.standard_normal((more, 1, 1, 1)) * np.array([0, 0, 0, more > 1])
        + noise * 0.05 * rng.standard_normal((1, seeds, patients, 4))
    )
    needed = np.ones((patients, 1))
    again = np.einsum("np,qspk->nqsk", resample(needed, rng, draws), scores) / patients
    full = scores.mean(2)
    why = unreadable(full[..., :-1], again[..., :-1], needed, COUNTS, rng)
    return unknown(why) if why else labels_saved(full, again, needed, COUNTS, n, rng)


@pytest.mark.parametrize(("factor", "n", "more"), [(2.0, 10, 1), (3.0, 30, 1), (1.0, 30, 1), (2.0, 10, 3)])
def test_its_interval_covers_a_known_factor(factor, n, more):
    rng = np.random.default_rng(int(10 * factor) + n + more)
    ends = [measured(rng, factor, n, more=more)["interval"] for _ in range(200)]
    covered = np.mean([low - 1e-9 <= factor <= high + 1e-9 for low, high in ends])
    assert 0.90 <= covered <= 0.995  # wide rather than narrow: few seeds say little of how four scores vary together


def test_without_noise_it_is_the_factor_itself():
    found = measured(np.random.default_rng(0), 2.0, 10, noise=1e-6)
    assert found["factor"] == pytest.approx(2, rel=1e-3) and found["text"] == "2.0"
    np.testing.assert_allclose(found["interval"], [2, 2], rtol=1e-2)


def test_beyond_the_curve_it_says_at_least_and_at_most():
    rng = np.random.default_rng(0)
    ahead, behind = measured(rng, 5.0, 100, noise=0.1), measured(rng, 0.2, 10, noise=0.1)
    assert ahead["text"] == "≥ 1.0" and ahead["factor"] == ahead["range"][1] == 1
    assert behind["text"] == "≤ 1.0" and behind["factor"] == behind["range"][0] == 1
    assert measured(rng, 9.0, 30, noise=0.1)["text"] == "≥ 3.3"


def test_a_curve_that_is_flat_within_its_noise_saves_no_one_labels():
    rng = np.random.default_rng(0)
    flat = [measured(rng, 2.0, 10, rise=0.0) for _ in range(100)]
    unknown = [found for found in flat if found["factor"] is None]
    assert len(unknown) > 90 and "within its noise" in unknown[0]["why"] and unknown[0]["text"] == "unknown"


def test_what_shows_no_error_gives_no_factor():
    rng = np.random.default_rng(0)
    assert "one seed" in measured(rng, 2.0, 10, seeds=1)["why"]
    assert "too few test patients" in measured(rng, 2.0, 10, patients=1)["why"]
    assert "one label count" in unreadable(np.ones((1, 5, 1)), np.ones((20, 1, 5, 1)), np.ones((9, 1)), (10,), rng)
