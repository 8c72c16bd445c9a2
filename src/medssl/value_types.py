"""Whether a value read from TOML or JSON is what a field asks for."""

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

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
    if origin is dict:
        return isinstance(value, dict)
    if origin is not None:  # Annotated[kind, …]
        return fits(value, get_args(hint)[0])
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, (str, Path) if hint is Path else hint)


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
