"""mkdocs hook: writes the command-line reference from the option classes, so that it cannot be out of date."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_args

import tyro

from medssl.arguments import field_docs, own_fields
from medssl.cli import VERBS
from medssl.methods import METHODS, resolve

Row = tuple[str, str, str]  # option, default, meaning


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill the reference page; leave every other page alone."""
    if page.file.src_uri != "reference/command-line.md":
        return markdown
    return markdown + "\n".join([*map(_verb, VERBS), *map(_method, METHODS)])


def verb_rows(verb: str) -> list[Row]:
    """The options of a verb, as its ``--help`` lists them."""
    module, kind = VERBS[verb][:2]
    found = importlib.import_module(f"medssl.stages.options.{module}")
    # A study's options are None until someone says something; what happens then stands beside them.
    return list(_rows(getattr(found, kind), getattr(found, "DEFAULTS", {})))


def method_rows(method: str) -> list[Row]:
    """The options that a method adds to those of pretrain and preflight."""
    config = resolve(method)[0]
    return list(_rows(own_fields(config), {}, docs=field_docs(config)))


def _verb(verb: str) -> str:
    summary = VERBS[verb][3]
    end = "" if summary.endswith("?") else "."
    return _section(f"medssl {verb}", f"{summary[0].upper()}{summary[1:]}{end}", verb_rows(verb))


def _method(method: str) -> str:
    told = (
        f"Options that `{method}` adds to those of `medssl pretrain`, `preflight` and the table of an arm in a recipe."
    )
    return _section(f"medssl pretrain {method}", told, method_rows(method))


def _section(title: str, summary: str, rows: list[Row]) -> str:
    table = "\n".join(f"| `{name}` | {default} | {doc} |" for name, default, doc in rows)
    return f"\n## {title}\n\n{summary}\n\n| option | default | meaning |\n|---|---|---|\n{table}\n"


def _rows(
    options: type, unsaid: Mapping[str, Any], docs: Mapping[str, str] | None = None, given: Any = None
) -> Iterator[Row]:
    """A row an option; ``given``: the group of options as its owner makes it, whose values are the defaults."""
    docs = field_docs(options) if docs is None else docs
    for f in fields(options):
        notes = get_args(f.type)
        if tyro.conf.Suppress in notes:
            continue
        value = _value(f) if given is None else getattr(given, f.name)
        if is_dataclass(value):
            yield from _rows(type(value), {}, given=value)
            continue
        value = unsaid.get(f.name) if value is None else value
        told = next((note.help for note in notes if getattr(note, "help", None)), docs.get(f.name, ""))
        yield _name(f, value), _shown(f, value), told.replace("\n", " ").replace("|", "\\|")


def _value(f: Field) -> Any:
    return f.default if f.default_factory is MISSING else f.default_factory()


def _name(f: Field, value: Any) -> str:
    if tyro.conf.Positional in get_args(f.type):
        return f.name.upper()
    return f"--{'no-' if value is True else ''}{f.name.replace('_', '-')}"


def _shown(f: Field, value: Any) -> str:
    if value is MISSING:
        return "required"
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        hints = (getattr(note, "help_behavior_hint", None) for note in get_args(f.type))
        return next((hint.strip("()").removeprefix("default: ") for hint in hints if hint), "")
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"`{shown}`" if shown else ""
