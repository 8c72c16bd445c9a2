"""Nested subsets of labelled patients, and what they refuse."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.subset import draw_subset, order_patients, rarest_class
from medssl.errors import UserError


def frame(splits: dict[str, str], images: int = 1) -> pl.DataFrame:
    rows = [(patient, split, f"{patient}-{k}") for patient, split in splits.items() for k in range(images)]
    return pl.DataFrame(rows, schema=["patient", "split", "hash"], orient="row")


def cohort(n: int = 60, rare: int = 6, images: int = 1) -> tuple[pl.DataFrame, list[str]]:
    """n labelled patients, of which the first ``rare`` are of the rare class; every fifth is a test patient."""
    splits = {f"p{i:03d}": "test" if i % 5 == 4 else "val" if i % 5 == 3 else "train" for i in range(n)}
    items = frame(splits, images)
    return items, ["rare" if int(p[1:]) < rare else "usual" for p in items["patient"]]


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.sampled_from("xyz"), min_size=1), st.integers(0, 9)
)
def test_the_order_holds_every_patient_once_and_roles_do_not_depend_on_n(kinds: dict[str, str], seed: int) -> None:
    order = order_patients(kinds, seed)
    assert sorted(order) == sorted(kinds)
    for name in set(kinds.values()):
        roles = [validates for patient, validates in order.items() if kinds[patient] == name]
        assert roles == [i % 5 == 2 for i in range(len(roles))]


def test_subsets_of_one_seed_are_nested_in_training_and_in_validation() -> None:
    items, strata = cohort()
    small, large = (draw_subset(items, strata, n, seed=3) for n in (10, 30))
    assert set(small.train) < set(large.train)
    assert set(small.val) < set(large.val)
    assert small.test == large.test


def test_another_seed_draws_other_patients_and_the_same_test_patients() -> None:
    items, strata = cohort()
    a, b = (draw_subset(items, strata, 10, seed) for seed in (0, 1))
    assert set(a.train) != set(b.train)
    assert a.test == b.test == [i for i in range(60) if i % 5 == 4]


@pytest.mark.parametrize("n", [4, 10, 17, 30, 48])
def test_n_counts_all_patients_once_and_keeps_their_images_together(n: int) -> None:
    items, strata = cohort(images=3)
    subset = draw_subset(items, strata, n, seed=0)
    patients = items["patient"].to_numpy()
    train, val = set(patients[subset.train]), set(patients[subset.val])
    assert len(train | val) == n == subset.patients
    assert not train & val
    assert len(subset.train) == 3 * len(train)
    assert not (train | val) & set(patients[subset.test])


def test_a_rare_class_is_in_every_small_subset_and_keeps_its_share_in_large_ones() -> None:
    items, strata = cohort(n=100, rare=10)
    for n, least, most in ((4, 2, 2), (10, 2, 2), (40, 3, 5), (80, 8, 8)):
        subset = draw_subset(items, strata, n, seed=5)
        rare = sum(strata[i] == "rare" for i in subset.train + subset.val)
        assert least <= rare <= most


def test_about_a_fifth_validates_and_nobody_where_there_are_two_of_a_class() -> None:
    items, strata = cohort(n=200, rare=60)
    shares = {n: len(draw_subset(items, strata, n, seed=0).val) for n in (4, 10, 30, 100)}
    assert shares[4] == 0
    assert 1 <= shares[10] <= 3
    assert 0.15 <= shares[30] / 30 <= 0.25
    assert 0.17 <= shares[100] / 100 <= 0.23


def test_without_n_the_split_of_the_index_decides() -> None:
    items, strata = cohort()
    subset = draw_subset(items, strata, None, seed=0)
    assert subset.val == [i for i in range(60) if i % 5 == 3]
    assert len(subset.train) == 36


def test_unlabelled_items_take_no_part() -> None:
    items, strata = cohort()
    some = [s if i % 2 else None for i, s in enumerate(strata)]
    subset = draw_subset(items, some, None, seed=0)
    assert all(some[i] is not None for i in subset.train + subset.val + subset.test)


def test_the_rarest_true_class_balances_a_patient_with_several() -> None:
    matrix = np.array([[1, 1, 0], [1, 0, 0], [1, np.nan, 0], [0, 0, 0], [np.nan] * 3])
    assert rarest_class(matrix, ("a", "b", "c")) == ["b", "a", "a", "", None]


@pytest.mark.parametrize(
    ("n", "told"), [(49, "48 labelled patients outside the test split, 49 asked for"), (0, "0 labelled patients")]
)
def test_an_impossible_number_is_told(n: int, told: str) -> None:
    items, strata = cohort()
    with pytest.raises(UserError, match=told) as caught:
        draw_subset(items, strata, n, seed=0)
    assert caught.value.where == "--n-labels"


def test_missing_test_patients_are_told() -> None:
    with pytest.raises(UserError, match="no labelled test patients"):
        draw_subset(frame({"a": "train", "b": "val"}), ["x", "y"], None, seed=0)


def test_missing_training_patients_are_told() -> None:
    with pytest.raises(UserError, match="no labelled patients outside the test split"):
        draw_subset(frame({"a": "test", "b": "train"}), ["x", None], None, seed=0)


def test_another_salt_of_the_ids_gives_the_same_subset() -> None:
    items, strata = cohort()
    names = items["patient"].unique(maintain_order=True).to_list()
    other = items.with_columns(pl.col("patient").replace_strict(names, [f"q{n[::-1]}" for n in names]))
    assert draw_subset(items, strata, 10, seed=1) == draw_subset(other, strata, 10, seed=1)
