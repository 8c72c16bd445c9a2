"""The command-line reference lists what `--help` lists: for each verb, and for each method's own options."""

import importlib.util
import re
from pathlib import Path

import pytest

from medssl.cli import VERBS, _parse
from medssl.methods import METHODS

HOOKS = Path(__file__).resolve().parents[2] / "docs" / "hooks.py"


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", HOOKS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accepted(capsys, verb: str, *args: str) -> list[str]:
    """The options that the help explains. Explanations stand further to the right, where none is sought."""
    with pytest.raises(SystemExit):
        _parse(verb, [*args, "--help"])
    said = capsys.readouterr().out.split("Options of ")[-1]
    return re.findall(r"^[│| ]{0,4}(--[a-z][a-z-]*)", said, flags=re.M)


def listed(rows) -> list[str]:
    return [name for name, *_ in rows if name.startswith("--")]


@pytest.mark.parametrize("verb", VERBS)
def test_the_options_of_a_verb(verb, hooks, capsys):
    assert sorted(listed(hooks.verb_rows(verb))) == sorted(accepted(capsys, verb))


@pytest.mark.parametrize("method", METHODS)
def test_the_own_options_of_a_method(method, hooks, capsys):
    assert sorted(listed(hooks.method_rows(method))) == sorted(accepted(capsys, "pretrain", method))


def test_defaults_are_those_of_the_verb_and_not_of_the_group(hooks):
    def defaults(verb: str) -> dict[str, str]:
        return {name: default for name, default, _ in hooks.verb_rows(verb)}

    shown = defaults("finetune")
    assert [shown[name] for name in ("--lr", "--clip", "--workers", "--no-augment")] == [
        "`0.003`",
        "`1.0`",
        "`0`",
        "on",
    ]
    assert defaults("pretrain")["--batch"] == defaults("preflight")["--batch"] == "`0`"
    assert defaults("pretrain")["--lr"] == "the method's"
    assert defaults("study")["--n-labels"] == "`10 30 100`"
    assert defaults("demo")["--task"] == "`segment`"


def test_the_page_holds_every_table(hooks):
    class Page:
        class file:
            src_uri = "reference/command-line.md"

    page = hooks.on_page_markdown("", Page)
    assert [f"medssl {verb}" for verb in VERBS] + [f"medssl pretrain {name}" for name in METHODS] == re.findall(
        r"^## (.*)$", page, flags=re.M
    )
    assert "?." not in page
