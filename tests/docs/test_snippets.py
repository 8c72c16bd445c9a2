"""What the docs show is true: Python marked `run` runs, page by page; every `medssl` line parses."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from medssl.cli import VERBS, _parse

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def named(pages):
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages]


def commands(page: Path) -> list[str]:
    """Lines that begin with `medssl`; a loop's variable stands for the first of its values."""
    found = []
    for block in re.findall(r"```(?:bash|console|sh)\n(.*?)```", page.read_text(), flags=re.S):
        for name, first in [("DATA", "DATA"), *re.findall(r"\bfor (\w+) in (\S+)", block)]:
            block = re.sub(rf"\${name}\b", first, block)
        lines = [line.strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines()]
        found += [line for line in lines if line.startswith("medssl ")]
    return found


def snippets(page: Path) -> list[str]:
    return re.findall(r"<!-- run -->\n+```python\n(.*?)```", page.read_text(), flags=re.S)


@pytest.mark.parametrize("page", named(p for p in PAGES if commands(p)))
def test_commands_parse(page):
    for line in commands(page):
        verb, *args = shlex.split(line, comments=True)[1:]
        if verb.startswith("-") or "--help" in args:
            continue
        assert verb in VERBS, f"{page}: {line}"
        _parse(verb, args)


@pytest.mark.parametrize("page", named(p for p in PAGES if snippets(p)))
def test_python_runs(page, tmp_path, monkeypatch, trained_run):
    monkeypatch.chdir(tmp_path)
    for name, target in trained_run.items():
        (tmp_path / name).symlink_to(target)
    torch.manual_seed(0)
    names = {"loader": [torch.rand(4, 1, 64, 64) for _ in range(2)]}
    for code in snippets(page):
        exec(compile(code, str(page), "exec"), names)


def test_every_python_block_is_run_by_some_test():
    told = re.compile(r"(<!-- (run|snippet: \w+) -->\n+)?```python\n")
    for page in PAGES:
        for found in told.finditer(page.read_text()):
            assert found.group(1), f"{page.relative_to(ROOT)} shows Python that nothing runs"
