"""Whether a value read from TOML is what an option asks for."""

import re
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from medssl.errors import UserError


def fits(value: Any, hint: Any) -> bool:
    """Whether a TOML value has the type an option asks for."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(fits(value, kind) for kind in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        kinds = get_args(hint)
        if not isinstance(value, (list, tuple)):
            return False
        return all(fits(v, kinds[0]) for v in value) and (kinds[-1] is Ellipsis or len(kinds) == len(value))
    if origin is not None:  # Annotated[kind, …]
        return fits(value, get_args(hint)[0])
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, (str, Path) if hint is Path else hint)


def wrong_type(key: str, value: Any, hint: Any, where: object) -> UserError:
    """The mistake of a value that does not fit."""
    if get_origin(hint) is Literal:
        return UserError(f"{key} is {value!r}", str(where), f"choose one of {', '.join(map(str, get_args(hint)))}")
    name = getattr(hint, "__name__", None) if get_origin(hint) is None else None
    kind = name or re.sub(r"(typing|pathlib|medssl[\w.]*)\.", "", str(hint))
    return UserError(f"{key} is {value!r}", str(where), f"give {kind}")
