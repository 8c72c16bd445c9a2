"""Label columns as truth: classes, findings, missing cells, and mistakes told in one sentence."""

import numpy as np
import polars as pl
import pytest

from medssl.data.target import read_target
from medssl.errors import UserError

nan = np.nan


def items(**columns: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame({f"label.{name}": cells for name, cells in columns.items()})


def test_two_words_make_a_binary_choice_with_the_positive_one_last() -> None:
    found = read_target(items(tumour=["yes", "no", None, "yes"]), "tumour")
    assert (found.kind, found.classes) == ("one", ("no", "yes"))
    np.testing.assert_array_equal(found.matrix, [[0, 1], [1, 0], [nan, nan], [0, 1]])
    assert found.known.tolist() == [True, True, False, True]


def test_normal_comes_first_though_the_alphabet_says_otherwise() -> None:
    assert read_target(items(finding=["pneumonia", "normal", "covid"]), None).classes == (
        "covid",
        "normal",
        "pneumonia",
    )
    assert read_target(items(finding=["normal", "covid"]), None).classes == ("normal", "covid")


def test_numbers_are_ordered_by_value() -> None:
    assert read_target(items(grade=["10", "9", "2"]), "grade").classes == ("2", "9", "10")


@pytest.mark.parametrize("cell", ["", "NA", "n/a", "NaN", "unknown", "?", "  "])
def test_words_for_missing_are_missing(cell: str) -> None:
    found = read_target(items(side=["a", cell, "b"]), "side")
    assert found.classes == ("a", "b")
    assert np.isnan(found.matrix[1]).all()


def test_bars_make_findings_of_which_several_are_true() -> None:
    found = read_target(items(seen=["mass|effusion", "effusion", None, "none"]), "seen")
    assert (found.kind, found.classes) == ("many", ("effusion", "mass", "none"))
    np.testing.assert_array_equal(found.matrix, [[1, 1, 0], [1, 0, 0], [nan] * 3, [0, 0, 1]])


def test_columns_joined_by_plus_are_findings_each_missing_on_its_own() -> None:
    found = read_target(items(a=["1", "0", None], sex=["M", None, "F"]), "a+sex")
    assert (found.kind, found.classes, found.name) == ("many", ("a", "sex=M"), "a+sex")
    np.testing.assert_array_equal(found.matrix, [[1, 1], [0, nan], [nan, 0]])


def test_a_joined_column_of_more_values_gives_a_finding_for_each() -> None:
    found = read_target(items(a=["yes", "no", "no"], b=["x|y", None, "z"]), "a+b")
    assert found.classes == ("a", "b=x", "b=y", "b=z")
    np.testing.assert_array_equal(found.matrix, [[1, 1, 1, 0], [0, nan, nan, nan], [0, 0, 0, 1]])


def test_a_column_whose_name_holds_a_plus_is_one_column() -> None:
    assert read_target(items(**{"pd-l1+": ["yes", "no"]}), "pd-l1+").kind == "one"


def test_the_only_usable_column_needs_no_name() -> None:
    found = read_target(items(site=["x", "x", None], tumour=["yes", "no", "no"]), None)
    assert found.name == "tumour"


@pytest.mark.parametrize(
    ("columns", "target", "told"),
    [
        ({"tumour": ["yes", "no"]}, "tumor", "did you mean 'tumour'"),
        ({"tumour": ["yes", "no"], "side": ["l", "r"]}, None, "choose one of tumour, side"),
        ({"tumour": ["yes", "yes", None]}, "tumour", "all labels of 'tumour' are 'yes'"),
        ({"tumour": [None, ""]}, "tumour", "no item has a label"),
        ({"size": [str(i / 7) for i in range(200)]}, "size", "holds 200 different values"),
        ({}, "tumour", "no label columns"),
    ],
)
def test_an_unusable_target_is_told(columns: dict, target: str | None, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_target(items(**columns), target)
