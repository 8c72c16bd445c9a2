"""How far a job is: a line now and then, a bar on a terminal, a speed that says something when jobs are slow."""

import os
import pty
import subprocess
import sys

import pytest

from medssl.data.progress import progress, rate


def test_without_a_terminal_it_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medssl.data.progress.PLAIN_EVERY_S", 0.0)
    with progress("scans", 2) as step:
        step()
        step()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("scans: 1 of 2, ")
    assert second.endswith(" 0 s left")


def test_on_a_terminal_it_is_a_bar_from_the_first_moment() -> None:
    """Before the first thing is done there is no speed to show: the bar must be drawn without one."""
    here, there = pty.openpty()
    script = "import time; from medssl.data.progress import progress\nwith progress('scans', 2) as step:\n"
    script += "    for _ in range(2): time.sleep(0.2); step()"
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CI")} | {"TERM": "xterm"}
    ended = subprocess.run([sys.executable, "-c", script], stderr=there, env=environment, check=False)
    os.close(there)
    drawn = os.read(here, 1 << 16).decode()
    assert ended.returncode == 0, drawn
    assert "2/2" in drawn
    assert "/s" in drawn


@pytest.mark.parametrize(
    ("per_s", "thing", "told"),
    [
        (152.34, "", "152.3/s"),
        (1.0, "sample", "1.0 samples/s"),
        (0.4, "", "2.5 s each"),
        (1 / 40, "sample", "40 s a sample"),
    ],
)
def test_a_slow_job_is_told_by_the_time_of_each(per_s: float, thing: str, told: str) -> None:
    assert rate(per_s, thing) == told
