"""Chance is a pure function of (seed, purpose, step, position)."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medssl.rng import Rng, key, stream


@given(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6))
def test_a_rank_draws_what_its_samples_would_draw_on_one_machine(seed, step, first, second):
    whole = Rng(seed, step)
    for draw in ("uniform", "normal"):
        both = getattr(whole, draw)("crop", first + second, 2, 3)
        here = getattr(Rng(seed, step), draw)("crop", first, 2, 3)
        there = getattr(Rng(seed, step, start=first), draw)("crop", second, 2, 3)
        assert np.array_equal(both, np.concatenate([here, there]))


def test_one_sample_keeps_its_generator_whatever_the_rank():
    assert Rng(1, 2, start=3).sample("noise", 1).random() == Rng(1, 2).sample("noise", 4).random()


def test_streams_differ_by_seed_purpose_and_step():
    draws = [stream(*words).random() for words in [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 2)]]
    assert len(set(draws)) == len(draws)


def test_words_are_kept_apart():
    assert key(0, "ab", "c") != key(0, "a", "bc")


def test_numbers_do_not_depend_on_the_process():
    # A stored value: a change of the scheme would silently change every resumed run.
    assert stream(0, "views", 7).integers(0, 1000, 4).tolist() == [279, 955, 877, 109]
