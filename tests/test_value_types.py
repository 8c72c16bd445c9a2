"""A value from a file has the type of its field, or the sentence says which it should have."""

from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from medssl.value_types import fits, misfit, wrong_type


@pytest.mark.parametrize(
    ("value", "hint", "good"),
    [
        (1, int, True), (1, float, True), (True, int, False), (1.5, int, False), ("no", bool, False),
        (None, int | None, True), ([1, 2], tuple[int, ...], True), ([1, "a"], tuple[int, ...], False),
        ([0.0, 1], tuple[float, float], True), ([3, 0, 1], tuple[float, float], False),
        ("a", Literal["a", "b"], True), ("c", Literal["a", "b"], False), ("x", Path, True),
        ({"a": 1}, dict[str, Any], True), ([], dict[str, Any], False), (1, Annotated[int, "note"], True),
    ],
)  # fmt: skip
def test_fits(value: Any, hint: Any, good: bool) -> None:
    assert fits(value, hint) is good


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "a whole number"),
        (float | None, "a number"),
        (tuple[float, ...] | None, "a list of numbers"),
        (tuple[float, float], "a list of 2 numbers"),
        (Literal["a", "b"], "one of a, b"),
        (dict[str, Any], "a table"),
    ],
)
def test_the_sentence_is_for_a_person(hint: Any, words: str) -> None:
    assert str(wrong_type("size", "x", hint, "plan.toml")) == f"size is 'x' (plan.toml): give {words}"


class Band(TypedDict):
    mean: float
    name: NotRequired[str]


class Level(TypedDict):
    arms: dict[str, Band]
    seen: list[int]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"arms": {"a": {"mean": 1}}, "seen": [1, 2], "more": object()}, None),
        ({"arms": {}, "seen": []}, None),
        ({"arms": {"a": {"mean": "high"}}, "seen": []}, "arms.a.mean"),
        ({"arms": {"a": {"mean": 1.0, "name": 3}}, "seen": []}, "arms.a.name"),
        ({"arms": {"a": {}}, "seen": []}, "arms.a.mean"),
        ({"arms": {"a": []}, "seen": []}, "arms.a"),
        ({"arms": [], "seen": []}, "arms"),
        ({"arms": {}, "seen": [1, "two"]}, "seen[1]"),
        ({"arms": {}}, "seen"),
        ([], ""),
    ],
)
def test_what_does_not_fit_is_named_by_its_place(value: Any, place: str | None) -> None:
    assert misfit(value, Level) == place
