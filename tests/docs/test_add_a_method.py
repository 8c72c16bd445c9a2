"""The page about adding a method: its method passes the contract suite in 2D and 3D, and its own tests pass."""

import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest

from medssl.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "add-a-method.md"
CONTRACT = ROOT / "tests" / "contract" / "test_methods.py"


def snippets() -> dict[str, str]:
    return dict(re.findall(r"<!-- snippet: (\w+) -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S))


def loaded(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def added(tmp_path, monkeypatch) -> str:
    """The method as if it stood in the package: file and row are those of the page."""
    found = snippets()
    name, home = re.search(r'"(\w+)": "([\w.:]+)",', found["row"]).groups()
    module = re.search(r"`src/(\S+)\.py`", PAGE.read_text(encoding="utf-8")).group(1).replace("/", ".")
    monkeypatch.setitem(METHODS, name, home)
    monkeypatch.setitem(sys.modules, module, None)  # so that the end of the test takes it away
    path = tmp_path / "method.py"
    path.write_text(found["method"])
    loaded(module, path)
    return name


def promises(*parameters: str) -> list[str]:
    """Tests of the contract suite that ask for these parameters."""
    suite = loaded("contract_suite", CONTRACT)
    tests = {n: f for n, f in vars(suite).items() if n.startswith("test_")}
    return [n for n, f in tests.items() if tuple(inspect.signature(f).parameters) == parameters]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("promise", promises("name", "dims"))
def test_the_method_keeps_the_contract(added, promise, dims):
    getattr(sys.modules["contract_suite"], promise)(added, dims)


@pytest.mark.parametrize("promise", promises("name"))
def test_its_configuration_keeps_the_contract(added, promise):
    getattr(sys.modules["contract_suite"], promise)(added)


def test_its_own_tests_pass(added, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(snippets()["test"])
    tests = [f for n, f in vars(loaded("own_tests", path)).items() if n.startswith("test_")]
    for test in tests:
        test()
    assert len(tests) == 2
