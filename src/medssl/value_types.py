"""Whether a value read from TOML or JSON is what a field asks for."""

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from medssl.errors import UserError

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from a file has the type of a field."""
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, kind) for kind in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        kinds = get_args(hint)
        if not isinstance(value, (list, tuple)):
            return False
        return all(fits(v, kinds[0]) for v in value) and (kinds[-1] is Ellipsis or len(kinds) == len(value))
    if origin in (dict, list):
        return isinstance(value, origin)
    if origin is not None:  # Annotated[kind, …]
        return fits(value, get_args(hint)[0])
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, (str, Path) if hint is Path else hint)


def misfit(value: Any, hint: Any, place: str = "") -> str | None:
    """Where, as in 'labels[0].mean', a value from a file is not what ``hint`` asks for; None where all of it is.

    ``hint`` may be a TypedDict, a dict or a list of such; keys that a TypedDict does not name are let pass.
    """
    origin, kinds = get_origin(hint), get_args(hint)
    dot = f"{place}." if place else ""
    inner: list[tuple[Any, Any, str]] = []
    if is_typeddict(hint):
        if not isinstance(value, dict):
            return place
        hints = get_type_hints(hint)
        lacking = sorted(hint.__required_keys__ - value.keys())
        if lacking:
            return dot + lacking[0]
        inner = [(value[key], kind, dot + key) for key, kind in hints.items() if key in value]
    elif not fits(value, hint):
        return place
    elif origin is dict:
        inner = [(each, kinds[1], f"{dot}{key}") for key, each in value.items()]
    elif origin is list:
        inner = [(each, kinds[0], f"{place}[{i}]") for i, each in enumerate(value)]
    return next((found for part in inner if (found := misfit(*part)) is not None), None)


def wrong_type(key: str, value: Any, hint: Any, where: object) -> UserError:
    """The mistake of a value that does not fit."""
    return UserError(f"{key} is {value!r}", None if where is None else str(where), f"give {_words(hint)}")


def _words(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(kind) for kind in inner if kind is not NoneType)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        some = "" if inner[-1] is Ellipsis else f"{len(inner)} "
        return f"a list of {some}{_words(inner[0]).split()[-1]}s"
    if origin is dict:
        return "a table"
    return _words(inner[0]) if origin is not None else WORDS.get(hint, "another value")
