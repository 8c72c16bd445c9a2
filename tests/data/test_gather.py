"""Headers of many files: one that takes its process down costs the others nothing, nor the command."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from medssl.data import find, gather


def read(job: tuple[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Takes its process down on a file called bad, if that is a process of its own."""
    if multiprocessing.parent_process() is None:
        return {path: {"fault": ["read in the process of the command", ""]} for path in job[1]}
    if "bad" in job[1]:
        os._exit(1)
    return {path: {"items": [path]} for path in job[1]}


def test_a_header_that_crashes_its_reader_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "read_headers", read)
    monkeypatch.setattr(gather, "FEW", 0)
    monkeypatch.setattr(find, "HEADERS_A_JOB", 2)
    found: dict[str, Any] = {}
    for header in gather._headers(tmp_path, ["a", "b", "bad", "c", "d"], workers=2):
        found |= header
    assert found.pop("bad")["fault"][0] == "reading it kills the process"
    assert found == {name: {"items": [name]} for name in "abcd"}
