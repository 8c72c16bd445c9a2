"""What a page is made of, and how it becomes one HTML file that needs nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import jinja2
from markupsafe import Markup


@dataclass(frozen=True)
class Figure:
    """A plot as inline SVG."""

    svg: Markup
    caption: str = ""
    wide: bool = False
    """Two stand side by side on a wide page instead of three."""
    full: bool = False
    """It takes the whole width."""
    kind: str = "figure"


@dataclass(frozen=True)
class Grid:
    """Pictures in rows: ``columns`` head them; a picture is a data address with what it shows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: Sequence[str] = ()
    """A word before each row."""
    legend: Sequence[tuple[str, str]] = ()
    """(CSS colour, what it marks)."""
    caption: str = ""
    kind: str = "grid"


@dataclass(frozen=True)
class Table:
    """Rows of cells; a cell is text or a number that is written already."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    words: int = 1
    """So many columns hold words, at the left; the others hold numbers."""
    kind: str = "table"

    def align(self, column: int) -> Markup:
        """The attribute of cells in a column, counted from 1."""
        return Markup(' class="number"') if column > self.words else Markup("")


@dataclass(frozen=True)
class Facts:
    """Names and values, in a fold that is closed at first if ``fold`` says what it holds."""

    items: Sequence[tuple[str, Any]]
    fold: str = ""
    kind: str = "facts"


@dataclass(frozen=True)
class Note:
    """A sentence: ``plain``, or a ``warning`` that must not be overlooked."""

    text: str
    tone: str = "plain"
    kind: str = "note"


Block = Figure | Grid | Table | Facts | Note


@dataclass(frozen=True)
class Section:
    """A headed part of the page. Without blocks it says why it is empty: nothing is left out silently."""

    title: str
    blocks: Sequence[Block]
    intro: str = ""
    missing: str = ""

    @property
    def anchor(self) -> str:
        """The name that the page's table of contents links to."""
        return "-".join(self.title.lower().split())


@dataclass(frozen=True)
class Card:
    """One result at the top: a word, what it is about, the number, its interval."""

    word: str
    tone: str
    about: str
    number: str
    interval: str


@dataclass(frozen=True)
class Page:
    """A whole report."""

    kind: str
    subject: str
    headline: str
    sections: Sequence[Section]
    cards: Sequence[Card] = ()
    notes: Sequence[Note] = ()
    figures: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """(value, what it counts): the row of key figures below the headline."""
    version: str = ""

    def html(self) -> str:
        """One file: styles within, plots as SVG, pictures as data; nothing is fetched, nothing is run."""
        loader = jinja2.PackageLoader("medssl.report", "templates")
        undefined = jinja2.StrictUndefined
        environment = jinja2.Environment(
            loader=loader, autoescape=True, undefined=undefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["by_kind"] = _by_kind
        return environment.get_template("page.html").render(page=self)


def _by_kind(blocks: Sequence[Block]) -> list[list[Block]]:
    """Neighbours of one kind together, so that figures stand side by side."""
    return [list(group) for _, group in groupby(blocks, key=lambda block: block.kind)]
