"""Numbers as people read them."""

import pytest

from medssl.wording import counted, listed, probability, rounded_up, score, signed, span


@pytest.mark.parametrize(
    ("x", "text"),
    [(0.0123, "+0.012"), (-0.0123, "−0.012"), (-0.0004, "0.000"), (0.0, "0.000"), (-0.0, "0.000"), (0.0006, "+0.001"),
     (None, "unknown"), (float("inf"), "unknown"), (float("nan"), "unknown")],
)  # fmt: skip
def test_differences_have_a_sign_unless_they_are_nothing(x, text):
    assert signed(x) == text


def test_scores_intervals_and_counts():
    assert score(0.81249) == "0.812" and score(-0.1) == "−0.100"
    assert span((-0.0001, 0.02), signed) == "0.000 to +0.020" and span((None, 0.5)) == "unknown to 0.500"
    assert probability(0.0004) == "p < 0.001" and probability(0.0312) == "p = 0.031" and probability(1) == "p = 1"
    assert counted(1, "seed") == "1 seed" and counted(3, "seed") == "3 seeds"
    assert listed(["a"]) == "a" and listed(["a", "b"]) == "a and b" and listed([1, 2, 3]) == "1, 2 and 3"
    assert [rounded_up(x) for x in (7.2, 99, 123, 1201)] == [8, 99, 130, 1300]
