"""Jobs run side by side; one that fails, or takes its process down, costs the others nothing."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from medssl.data.jobs import each
from medssl.errors import UserError


def square(number: int) -> int:
    """Raises on 2; takes the process down on 3."""
    if number == 2:
        raise UserError("two", fix="leave it out")
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_in_this_process_jobs_keep_their_order() -> None:
    found = list(each(square, [0, 1, 2, 5], workers=1))
    assert [position for position, _ in found] == [0, 1, 2, 3]
    assert [outcome for _, outcome in found if not isinstance(outcome, UserError)] == [0, 1, 25]
    assert found[2][1].what == "two"


def test_a_job_that_takes_its_process_down_is_named() -> None:
    found = dict(each(square, [0, 1, 2, 3, 4, 5], workers=2))
    assert {k: v for k, v in found.items() if k not in (2, 3)} == {0: 0, 1: 1, 4: 16, 5: 25}
    assert str(found[2]) == "two: leave it out"
    assert found[3].what == "reading it kills the process"


def leave_a_trace(path: Path) -> None:
    """Take a while, then say that it was done."""
    time.sleep(0.02)
    path.touch()


def test_a_loop_left_early_begins_no_more_jobs(tmp_path: Path) -> None:
    for _ in each(leave_a_trace, [tmp_path / str(i) for i in range(40)], workers=2):
        break
    assert 1 <= len(list(tmp_path.iterdir())) < 10


def test_a_cluster_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="needs Dask"):
        list(each(square, [1], cluster="tcp://127.0.0.1:1"))


def test_a_dask_cluster_runs_the_same_jobs() -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        found = dict(each(square, [0, 1, 2, 4], cluster=cluster.scheduler_address))
    assert {k: v for k, v in found.items() if k != 2} == {0: 0, 1: 1, 3: 16}
    assert found[2].what == "two"
