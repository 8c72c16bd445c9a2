"""Holm's correction is the closed test of Bonferroni's, and intervals at its levels say the same."""

from itertools import combinations

import numpy as np
import pytest

from medssl.evaluate.holm import holm


def closed(p: list[float]) -> list[float]:
    """Every set of hypotheses is tested by Bonferroni; one is rejected where all sets that hold it are."""
    sets = [s for k in range(1, len(p) + 1) for s in combinations(range(len(p)), k)]
    return [max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))]


@pytest.mark.parametrize("m", [1, 2, 5, 7])
def test_corrected_p_values_are_those_of_the_closed_test(m):
    rng = np.random.default_rng(m)
    for _ in range(20):
        p = (rng.random(m) ** 3).tolist()
        np.testing.assert_allclose(holm(p)[0], closed(p), rtol=1e-12)


def test_the_textbook_example():
    corrected, levels = holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(corrected, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(levels, [1 - 0.05 / 3, 1 - 0.05 / 2, 1 - 0.05 / 2, 1 - 0.05 / 4])


def test_levels_decide_as_the_corrected_p_values_do():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = (rng.random(6) ** 4).tolist()
        corrected, levels = holm(p)
        assert [each < 1 - level for each, level in zip(p, levels, strict=True)] == [each < 0.05 for each in corrected]


def test_order_does_not_matter_and_one_is_left_alone():
    p = [0.2, 0.001, 0.03]
    for order in ([2, 0, 1], [1, 2, 0]):
        assert holm([p[i] for i in order])[0] == [holm(p)[0][i] for i in order]
    assert holm([0.03]) == ([0.03], [0.95]) and holm([]) == ([], [])


def test_false_findings_among_many_equal_arms_are_rare():
    p = np.random.default_rng(1).random((2000, 8))
    assert np.mean([min(holm(row)[0]) < 0.05 for row in p]) < 0.06 < np.mean(p.min(1) < 0.05)
