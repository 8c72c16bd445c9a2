"""The interval is right as often as it promises, its variances and its power are those of the simulation."""

from dataclasses import replace

import numpy as np
import pytest

from medssl.evaluate.interval import estimate, joint, quantiles, resample


def simulated(rng, seeds, patients, sd_seed, sd_patient, sd_rest, *, more=1, sd_more=0.0, sd_mixed=0.0, skewed=False):
    """Differences (pretrainings, seeds, patients) with a true mean of zero."""
    of_patient = rng.standard_exponential(patients) - 1 if skewed else rng.standard_normal(patients)
    return (
        sd_more * rng.standard_normal((more, 1, 1))
        + sd_seed * rng.standard_normal((1, seeds, 1))
        + sd_mixed * rng.standard_normal((more, seeds, 1))
        + sd_patient * of_patient
        + sd_rest * rng.standard_normal((more, seeds, patients))
    )


def estimated(differences, rng, n=400):
    needed = np.ones((differences.shape[-1], 1))
    weights = resample(needed, rng, n)
    again = np.einsum("np,qsp->nqs", weights, differences) / len(needed)
    return estimate(differences.mean(-1), again, needed, rng)


def coverage(trials, rng, **size):
    """How often the interval holds the true difference, zero."""
    ends = np.array([estimated(simulated(rng, **size), rng).interval() for _ in range(trials)])
    return np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0))


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
    names = ("sd_seed", "sd_patient", "sd_rest")
    size = {"seeds": seeds, "patients": patients, "skewed": skewed} | dict(zip(names, spreads, strict=True))
    assert 0.90 <= coverage(300, np.random.default_rng(seeds * patients), **size) <= 0.985


@pytest.mark.parametrize(
    ("more", "sd_more", "sd_mixed"), [(2, 0.2, 0.3), (3, 0.5, 0.2), (3, 0.0, 0.0), (3, 1.0, 0.0), (5, 0.3, 0.3)]
)
def test_the_interval_of_several_pre_trainings_covers_the_truth_of_all_of_them(more, sd_more, sd_mixed):
    size = {"seeds": 5, "patients": 30, "sd_seed": 0.3, "sd_patient": 0.5, "sd_rest": 1.0}
    size |= {"more": more, "sd_more": sd_more, "sd_mixed": sd_mixed}
    assert 0.90 <= coverage(300, np.random.default_rng(more), **size) <= 0.985


def test_an_interval_of_one_pre_training_does_not_cover_the_truth_of_all_of_them():
    rng = np.random.default_rng(1)
    size = {"seeds": 5, "patients": 30, "sd_seed": 0.2, "sd_patient": 0.3, "sd_rest": 0.5}
    assert coverage(200, rng, **size, more=1, sd_more=0.5) < 0.75


def test_a_bootstrap_over_few_seeds_alone_would_not_cover_it():
    rng = np.random.default_rng(3)
    plain = ours = 0
    for _ in range(300):
        d = simulated(rng, 3, 30, 1.0, 0.3, 0.3)
        drawn = d[0].mean(1)[rng.integers(0, 3, (800, 3))].mean(1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        plain += low <= 0 <= high
        low, high = estimated(d, rng).interval()
        ours += low <= 0 <= high
    assert plain / 300 < 0.85 < 0.90 < ours / 300


def test_variances_are_told_apart():
    rng = np.random.default_rng(0)
    size = {"seeds": 20, "patients": 60, "sd_seed": 0.7, "sd_patient": 0.4, "sd_rest": 1.1}
    found = [estimated(simulated(rng, **size), rng).spread for _ in range(40)]
    np.testing.assert_allclose(np.sqrt(np.mean([[s.seed, s.patient, s.rest] for s in found], 0)), [0.7, 0.4, 1.1], 0.12)
    size |= {"more": 20, "sd_more": 0.9, "sd_rest": 2.0}
    found = [estimated(simulated(rng, **size), rng).spread for _ in range(20)]
    np.testing.assert_allclose(np.sqrt(np.mean([[s.seed, s.pretraining] for s in found], 0)), [0.7, 0.9], 0.12)


def test_p_is_below_alpha_just_where_the_interval_excludes_zero():
    rng = np.random.default_rng(2)
    for shift in np.linspace(-1, 1, 25):
        found = estimated(shift + simulated(rng, 5, 20, 0.3, 0.3, 0.5), rng)
        for level in (0.8, 0.95, 0.99):
            low, high = found.interval(level)
            assert (found.p() < 1 - level) == (low > 0 or high < 0)


def test_equal_arms_have_a_p_of_one_and_no_p_is_finer_than_the_draws():
    rng = np.random.default_rng(2)
    zero = replace(estimated(simulated(rng, 5, 20, 0.3, 0.3, 0.5), rng), draws=np.zeros(4000))
    assert zero.p() == 1
    assert replace(zero, draws=np.ones(4000)).p() == pytest.approx(2 / 4001)


def test_no_p_below_one_without_a_second_seed_or_patient():
    rng = np.random.default_rng(2)
    assert estimated(9 + simulated(rng, 1, 20, 0.3, 0.3, 0.5), rng).p() == 1
    assert estimated(9 + simulated(rng, 5, 1, 0.3, 0.3, 0.5), rng).p() == 1
    assert np.isinf(estimated(9 + simulated(rng, 1, 20, 0.3, 0.3, 0.5), rng).detectable())


@pytest.mark.parametrize("size", [{"seeds": 5, "patients": 30}, {"seeds": 8, "patients": 15}])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_a_difference_of_the_detectable_size_is_seen_in_four_of_five_studies(size, level):
    rng = np.random.default_rng(5)
    spreads = {"sd_seed": 0.3, "sd_patient": 0.6, "sd_rest": 1.0}
    known = np.median([estimated(simulated(rng, **size, **spreads), rng).detectable(level) for _ in range(200)])
    seen = [estimated(known + simulated(rng, **size, **spreads), rng).interval(level)[0] > 0 for _ in range(300)]
    assert 0.7 < np.mean(seen) < 0.9


def test_several_scores_at_once_agree_with_each_alone_and_keep_their_correlation():
    rng = np.random.default_rng(6)
    first = simulated(rng, 6, 40, 0.4, 0.5, 0.6, more=3, sd_more=0.3)
    both = np.stack([first, 2 * first + simulated(rng, 6, 40, 0.1, 0.1, 0.1, more=3)], axis=-1)
    needed = np.ones((40, 1))
    weights = resample(needed, rng, 4000)
    again = np.einsum("np,qspk->nqsk", weights, both) / 40
    draws, _ = joint(both.mean(2), again, needed, rng)
    for k in (0, 1):
        alone = estimate(both.mean(2)[..., k], again[..., k], needed, rng)
        np.testing.assert_allclose(quantiles(draws[:, k]), alone.interval(), atol=0.1 * np.ptp(alone.interval()))
    assert np.corrcoef(draws.T)[0, 1] > 0.9


def test_the_variance_of_seeds_and_pre_trainings_is_that_of_a_two_way_table():
    """Against the textbook's mean squares, where patients play no part."""
    table = np.random.default_rng(7).standard_normal((3, 4))
    needed, nothing = np.ones((10, 1)), np.repeat(table[None], 50, 0)
    found = estimate(table, nothing, needed, np.random.default_rng(0))
    rows, columns = table.mean(1), table.mean(0)
    left = sum((table[i, j] - rows[i] - columns[j] + table.mean()) ** 2 for i in range(3) for j in range(4)) / 6
    assert found.spread.pretraining == pytest.approx(rows.var(ddof=1))
    assert found.spread.seed == pytest.approx(max(0, columns.var(ddof=1) - left / 3))
    assert found.spread.patient == pytest.approx(0) and found.mean == pytest.approx(table.mean())
