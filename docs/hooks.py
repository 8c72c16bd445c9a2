"""mkdocs hook: writes the command-line reference from the option classes, so that it cannot be out of date."""

import importlib
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args

import tyro

from medssl.arguments import field_docs
from medssl.cli import VERBS


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill the reference page; leave every other page alone."""
    if page.file.src_uri != "reference/command-line.md":
        return markdown
    return markdown + "\n".join(_verb(verb, *line) for verb, line in VERBS.items())


def _verb(verb: str, module: str, kind: str, _: str, summary: str) -> str:
    options = getattr(importlib.import_module(f"medssl.stages.options.{module}"), kind)
    rows = "\n".join(f"| `{name}` | {default} | {doc} |" for name, default, doc in _rows(options))
    return f"\n## medssl {verb}\n\n{summary.capitalize()}.\n\n| option | default | meaning |\n|---|---|---|\n{rows}\n"


def _rows(options: type) -> list[tuple[str, str, str]]:
    docs, rows = field_docs(options), []
    for f in fields(options):
        inner = next(
            (
                a
                for a in get_args(f.type)
                if isinstance(a, type) and is_dataclass(a) and a.__module__.startswith("medssl")
            ),
            None,
        )
        if inner is not None:
            rows += _rows(inner)
            continue
        positional = any(a is tyro.conf.Positional for a in get_args(f.type))
        name = f.name.upper() if positional else f"--{f.name.replace('_', '-')}"
        value = getattr(importlib.import_module(options.__module__), "DEFAULTS", {}).get(f.name, f.default)
        default = "required" if value is MISSING else "" if value in (None, (), "") else f"`{value}`"
        told = next((a.help for a in get_args(f.type) if getattr(a, "help", None)), docs.get(f.name, ""))
        rows.append((name, default, told.replace("\n", " ").replace("|", "\\|")))
    return rows
