"""The one error a person may cause: it says what, where and how to fix it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class UserError(Exception):
    """A mistake in the input, told in one sentence; the command line prints it and exits with 2.

    ``what`` names the fault, ``where`` the file, folder or option, ``fix`` the next thing to do.
    """

    what: str
    where: str | Path | None = None
    fix: str | None = None

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where is not None else ""
        remedy = f": {self.fix}" if self.fix else ""
        return f"{self.what}{place}{remedy}"


class UserErrors(UserError):
    """Several mistakes, told at once, a line each."""

    def __init__(self, errors: list[UserError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = errors


def raise_all(errors: Iterable[UserError]) -> None:
    """Raise every mistake found so far in one exception; return where there is none."""
    found = list(errors)
    if len(found) == 1:
        raise found[0]
    if found:
        raise UserErrors(found)


def problems_of(checks: Iterable[Callable[[], object]]) -> list[UserError]:
    """Every mistake that these checks raise, each told once."""
    found: dict[str, UserError] = {}
    for check in checks:
        try:
            check()
        except UserError as error:
            found |= {str(one): one for one in (error.errors if isinstance(error, UserErrors) else [error])}
    return list(found.values())
