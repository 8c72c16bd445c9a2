"""A small DATA folder, and a command that must be refused in a sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medssl.cli import main
from scans import prepared_pictures

Refused = Callable[..., str]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared pictures of six patients; for reading only."""
    return prepared_pictures(tmp_path_factory.mktemp("pictures"), count=12)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must end with 2; what it says on stderr. ``begun``: other lines may stand before it."""

    def run(*arguments: object, begun: bool = False) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        told = capsys.readouterr().err
        sentence = f"medssl {arguments[0]}: "
        assert f"\n{sentence}" in f"\n{told}" if begun else told.startswith(sentence)
        assert "Traceback" not in told
        return told

    return run
