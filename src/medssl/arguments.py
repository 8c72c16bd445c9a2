"""Arguments to dataclasses, through tyro; what is wrong with them becomes one sentence."""

import ast
import contextlib
import difflib
import inspect
import io
import itertools
import re
import textwrap
from collections.abc import Sequence
from dataclasses import field, fields, make_dataclass
from typing import Annotated, Any

import tyro

from medssl.errors import UserError

STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)


def parse_options(kind: type, args: Sequence[str], command: str) -> Any:
    """An instance of the dataclass ``kind``; ``--help`` prints and exits with 0."""
    with _one_sentence(command):
        return tyro.cli(kind, args=list(args), prog=command, config=STYLE)


def parse_method(kind: type, args: Sequence[str], command: str) -> tuple[Any, dict[str, Any]]:
    """Options of ``kind``, then those of the method it names: only these need the method's imports."""
    asks_help = any(a in ("-h", "--help") for a in args)
    named = [a for a in args[:1] if not a.startswith("-")]
    if asks_help and not named:
        return parse_options(kind, args, command), {}
    if asks_help:
        with contextlib.suppress(SystemExit):
            tyro.cli(kind, args=["--help"], prog=command, config=STYLE)
        return _method_settings(named[0], ["--help"], f"{command} {named[0]}"), {}
    with _one_sentence(command):
        options: Any
        options, rest = tyro.cli(kind, args=list(args), prog=command, config=STYLE, return_unknown_args=True)
    return options, _method_settings(options.method, rest, f"{command} {options.method}")


def _method_settings(name: str, args: Sequence[str], command: str) -> dict[str, Any]:
    from medssl.methods import METHODS, resolve

    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        fix = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(METHODS)}"
        raise UserError(f"no method '{name}'", fix=fix)
    if not args:
        return {}
    own = own_fields(resolve(name)[0])
    with _one_sentence(command):
        values: Any = tyro.cli(
            own, args=list(args), prog=command, config=STYLE, description=f"Options of {name} alone."
        )
    return {f.name: getattr(values, f.name) for f in fields(values) if getattr(values, f.name) != f.default}


def own_fields(config: type) -> type:
    """A dataclass of the fields that the method adds to those of every method."""
    from medssl.config import ModelConfig

    common = {f.name for f in fields(ModelConfig)}
    docs = field_docs(config)
    own = [
        (
            f.name,
            Annotated[f.type, tyro.conf.arg(help=docs.get(f.name, ""))],
            field(default=f.default, kw_only=True),
        )
        for f in fields(config)
        if f.name not in common and f.metadata.get("from") != "data"
    ]
    return make_dataclass(f"{config.__name__}Options", own, frozen=True)


def field_docs(kind: type) -> dict[str, str]:
    """The docstring below each field of a dataclass and of its bases."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for node, below in itertools.pairwise(body):
            said = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and said:
                docs[node.target.id] = inspect.cleandoc(str(below.value.value))  # type: ignore[attr-defined]
    return docs


@contextlib.contextmanager
def _one_sentence(command: str) -> Any:
    """tyro prints a box and exits; keep what it says, as a UserError."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_sentence(said.getvalue()), fix=f"`{command} --help` explains every option") from None


def _sentence(box: str) -> str:
    # tyro draws a box whose title is in its frame, or plain rules below a title where the terminal has no frames.
    sections: list[list[str]] = [[]]
    for line in (line.strip("│| ") for line in box.splitlines()):
        if re.fullmatch(r"[-─]{5,}", line):
            sections.append([])
        elif line and not line.startswith(("╭", "╰")):
            sections[-1].append(line)
    sections = [s for s in sections if s][0 if "╭" in box else 1 :]
    first = " ".join(sections[0]) if sections else "the options are not understood"
    if first.startswith("Missing from"):
        wanted = [re.sub(r"^(--[\w-]+).*", r"\1", line) for line in sections[0][1:] if re.match(r"--|[A-Z]+$", line)]
        return f"missing: {', '.join(wanted) or first}"
    first = first[0].lower() + first[1:].rstrip(".")
    near = next((s[1].split()[0] for s in sections if s[0].startswith("Perhaps") and len(s) > 1), None)
    return f"{first}; perhaps you meant {near}" if near else first
