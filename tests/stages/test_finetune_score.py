"""Which validation wins."""

import math

from medssl.stages.finetune_score import Score


def score(value: float, loss: float = 0.0) -> Score:
    return Score({}, value, loss)


def test_the_metric_decides_then_the_loss_then_the_earlier_step() -> None:
    assert score(0.8, 9.0).better_than(score(0.7, 0.1))
    assert score(0.8, 0.1).better_than(score(0.8, 0.2))
    assert not score(0.8, 0.2).better_than(score(0.8, 0.2))


def test_a_metric_that_cannot_be_told_is_the_worst_and_leaves_it_to_the_loss() -> None:
    assert not score(math.nan, 0.0).better_than(score(0.1, 9.0))
    assert score(0.0, 9.0).better_than(score(math.nan, 0.1))
    assert score(math.nan, 0.1).better_than(score(math.nan, 0.2))
