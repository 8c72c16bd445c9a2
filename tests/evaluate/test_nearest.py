"""The nearest, against sorting all similarities."""

import numpy as np
import pytest

from medssl.evaluate import nearest as module
from medssl.evaluate.nearest import nearest


@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 1), (5, 3, 5), (63, 7, 10), (64, 7, 10), (300, 40, 7), (1000, 9, 1)])
def test_equals_a_full_sort(n, m, k, monkeypatch):
    monkeypatch.setattr(module, "SLAB", 128)
    monkeypatch.setattr(module, "GROUP", 16)
    monkeypatch.setattr(module, "ASKED", 4)
    rng = np.random.default_rng(n)
    known, asked = rng.normal(size=(n, 6)), rng.normal(size=(m, 6))
    values, rows = nearest(known, asked, k)
    every = asked @ known.T
    expected = np.argsort(-every, axis=1)[:, :k]
    assert np.array_equal(rows, expected)
    assert np.allclose(values, np.take_along_axis(every, expected, axis=1), atol=1e-12)


def test_all_of_the_best_may_lie_in_one_group(monkeypatch):
    monkeypatch.setattr(module, "SLAB", 128)
    monkeypatch.setattr(module, "GROUP", 16)
    known = -np.ones((512, 1), np.float32)
    same = 128 + 3 + 8 * np.arange(5)  # columns of one group of the second slab
    known[same, 0] = [5, 4, 3, 2, 1]
    values, rows = nearest(known, np.ones((2, 1), np.float32), 5)
    assert rows.tolist() == [same.tolist()] * 2 and values[0].tolist() == [5, 4, 3, 2, 1]
