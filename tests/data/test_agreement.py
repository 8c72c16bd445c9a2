"""The gain of a move, against sums over single points, and where the truth is known."""

from math import log, sqrt

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from medssl.data.agreement import _information, _mean, gain


def body(seed: int = 0) -> np.ndarray:
    return gaussian_filter(np.random.default_rng(seed).random((30, 28, 12)), 2.0)


def moved_by(x: float) -> np.ndarray:
    there = np.eye(4)
    there[0, 3] = x
    return there


def test_information_of_each_pair_by_counting() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 50).astype(float), rng.integers(0, 4, 50).astype(float)
    told = _information(a, b)
    for i in range(50):
        both = sum(a[j] == a[i] and b[j] == b[i] for j in range(50)) / 50
        alone = sum(a[j] == a[i] for j in range(50)) / 50, sum(b[j] == b[i] for j in range(50)) / 50
        assert np.isclose(told[i], log(both / (alone[0] * alone[1])), rtol=1e-12)


def test_error_of_a_mean_whose_blocks_go_together() -> None:
    values, block = np.array([1.0, 2.0, 4.0, 4.0, 0.0]), np.array([0, 0, 1, 1, 3])
    mean = 11 / 5
    apart = [(1 - mean) + (2 - mean), 2 * (4 - mean), 0 - mean]
    assert np.allclose(_mean(values, block), (mean, sqrt(sum(x * x for x in apart)) / 5))


def test_the_right_place_is_better_and_the_wrong_one_worse() -> None:
    here, dark = body(), 1 - shift(body(), (3, 0, 0), order=1, mode="nearest")
    better, error = gain(here, np.eye(4), dark, [np.eye(4), moved_by(-3)])
    assert better > 3 * error > 0
    worse, error = gain(here, np.eye(4), dark, [moved_by(-3), moved_by(-2)])
    assert worse < -3 * error


def test_nothing_is_gained_without_a_move_a_partner_or_a_common_place() -> None:
    assert gain(body(), np.eye(4), body(1), [np.eye(4), np.eye(4)]) == (0.0, 0.0)
    for seed in range(5):
        better, error = gain(body(), np.eye(4), body(seed + 1), [np.eye(4), moved_by(4)])
        assert abs(better) < 3 * error
    assert gain(body(), np.eye(4), body(), [np.eye(4), moved_by(100)]) == (0.0, np.inf)


def test_a_flat_scan_tells_nothing() -> None:
    better, _ = gain(body(), np.eye(4), np.zeros((30, 28, 12)), [np.eye(4), moved_by(2)])
    assert abs(better) < 1e-9
