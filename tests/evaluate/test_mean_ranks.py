"""Mean ranks over label counts and studies."""

import numpy as np
import pytest

from medssl.evaluate.ranks import mean_ranks, of_verdicts


def test_ranks_by_hand():
    found = mean_ranks([{"a": 0.9, "b": 0.8, "c": 0.7}, {"a": 0.1, "b": 0.3, "c": 0.2}, {"a": 5, "b": 5, "c": 1}])
    assert found.ranks == pytest.approx({"b": (2 + 1 + 1.5) / 3, "a": (1 + 3 + 1.5) / 3, "c": (3 + 2 + 3) / 3})
    assert list(found.ranks) == ["b", "a", "c"] and found.blocks == 3 and found.left_out == ()


def test_ranks_do_not_depend_on_scale_or_order():
    rng = np.random.default_rng(0)
    blocks = [dict(zip("abcd", rng.random(4), strict=True)) for _ in range(5)]
    whole = mean_ranks(blocks).ranks
    scaled = [{arm: 3 * x + i for arm, x in reversed(block.items())} for i, block in enumerate(blocks)]
    assert mean_ranks(scaled[::-1]).ranks == pytest.approx(whole)
    assert sum(whole.values()) == pytest.approx(1 + 2 + 3 + 4)


def test_arms_that_a_study_lacks_are_left_out_and_said():
    one = {"labels": [{"arms": {"scratch": {"mean": 0.5}, "a": {"mean": 0.6}, "b": {"mean": 0.7}}}]}
    two = {"labels": [{"arms": {"scratch": {"mean": 0.5}, "b": {"mean": 0.4}}}] * 2}
    found = of_verdicts([one, two])
    assert found.ranks == pytest.approx({"scratch": 4 / 3, "b": 5 / 3})
    assert found.left_out == ("a",) and found.blocks == 3
    assert mean_ranks([]).ranks == {}
