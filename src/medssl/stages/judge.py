"""The verdict on what a study has recorded, and its tables in the terminal."""

from collections.abc import Collection, Sequence
from typing import Any

from medssl.errors import UserError, raise_all
from medssl.evaluate.verdict import ScoredRun, verdict
from medssl.report import scores
from medssl.report.blocks import Table
from medssl.report.ledger import Ledger

QUESTION = ("task", "margin", "seed", "transductive")
"""What a study's options say of how it is judged."""


def judged(found: Ledger, **question: Any) -> dict[str, Any]:
    """`verdict` on the runs of a ledger."""
    runs = [
        ScoredRun(row["arm"], row["n_labels"], row["seed"], found.predictions[row["key"]], row.get("pretraining", 1))
        for row in found.rows
        if row.get("key") in found.predictions
    ]
    return verdict(runs, **question)


def read_pairs(words: Sequence[str], arms: Collection[str]) -> list[tuple[str, str]]:
    """`A:B` as pairs of arms; a UserError tells all that are none."""
    pairs = [tuple(word.split(":")) for word in words]
    wrong = []
    for word, pair in zip(words, pairs, strict=True):
        unknown = [arm for arm in pair if arm not in arms]
        if len(pair) != 2 or pair[0] == pair[-1]:
            wrong.append(UserError(f"'{word}' names no two arms", "--compare", "write ARM:ARM, as in pcrl:moco"))
        elif unknown:
            fix = f"the study has {', '.join(arms)}"
            wrong.append(UserError(f"'{word}': no arm '{unknown[0]}'", "--compare", fix))
    raise_all(wrong)
    return [(first, second) for first, second in pairs]


def show(found: dict[str, Any]) -> None:
    """The tables of a verdict, and what must be known to read them, on stdout."""
    for table in (scores.scores(found), scores.pairs(found)):
        if table:
            show_table(table)
    print("\n".join([*found["notes"], ""]))


def show_table(table: Table) -> None:
    """A table on stdout, as wide as the terminal; whole where there is none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid

    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(table.columns):
        grid.add_column(name, justify="left" if position < table.words else "right")
    for row, following in zip(table.rows, [*table.rows[1:], None], strict=True):
        grid.add_row(*map(str, row), end_section=following is not None and len(row) > 2 and following[0] != row[0])
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 250
    if table.caption:
        print(table.caption)
    console.print(grid)
