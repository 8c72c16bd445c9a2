"""A Dask cluster loses a worker in the middle: nothing is lost, nothing is done twice but what the worker was at."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medssl.data import jobs
from medssl.data.store import Store
from medssl.files import read_json
from medssl.stages import prepare, study
from medssl.stages.options.data import Prepare
from medssl.stages.options.study import Study
from scan_files import index, noise, write_nifti
from scans import prepared_pictures

distributed = pytest.importorskip("distributed")
SCANS, FATAL = 8, 3  # the worker that is given the fourth job dies of it, once


@pytest.fixture(scope="module")
def cluster():
    """Two workers; one that dies is started anew, as the nanny of `dask worker` does."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, worker_dashboard_address=None
    ) as found:
        yield found


class Fatal:
    """A job, wrapped: it leaves a trace each time that it is begun, and takes its worker down the first time."""

    def __init__(self, function, traces: Path) -> None:
        self.function, self.traces = function, traces

    def __call__(self, numbered):
        number, job = numbered
        before = len(list(self.traces.glob(f"{number}-*")))
        (self.traces / f"{number}-{before}").touch()
        if number == FATAL and not before:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.function(job)

    def begun(self) -> list[int]:
        """How many times each job was begun."""
        names = [path.name.partition("-")[0] for path in self.traces.iterdir()]
        return [names.count(str(number)) for number in range(len(set(names)))]


@pytest.fixture
def fatal(monkeypatch, tmp_path):
    """Wraps the jobs that a stage gives to a cluster."""

    def install(stage) -> Fatal:
        traces = tmp_path / "traces"
        traces.mkdir()
        made = Fatal(None, traces)

        def each(function, work, **options):
            made.function = function
            return jobs.each(made, list(enumerate(work)), **options)

        monkeypatch.setattr(stage, "each", each)
        return made

    return install


def test_prepare(cluster, fatal, tmp_path: Path, monkeypatch) -> None:
    for i in range(SCANS):
        write_nifti(tmp_path / "scans" / f"{i:02}.nii.gz", noise(i, 24, 24, 16), np.diag([1, 1, 2, 1.0]))
    for name in ("here", "there"):
        index(tmp_path / "scans", tmp_path / name, modality="CT", keep_ids=True)
    here = Store(prepare.run(Prepare(data=tmp_path / "here", workers=1)))
    trace = fatal(prepare)
    monkeypatch.chdir(tmp_path)  # workers don't follow: a relative DATA must still be found
    there = Store(prepare.run(Prepare(data=Path("there"), cluster=cluster.scheduler_address)))
    assert trace.begun()[FATAL] == 2
    _others_once(trace, SCANS)
    assert there.hash == here.hash
    assert (tmp_path / "there/prepare_problems.csv").read_text() == (tmp_path / "here/prepare_problems.csv").read_text()
    for row in range(SCANS):
        np.testing.assert_array_equal(there.read(row), here.read(row))


def test_study(cluster, fatal, tmp_path: Path, monkeypatch) -> None:
    data = prepared_pictures(tmp_path)
    options = Study(
        data=data, out=tmp_path / "here", task="classify", target="size", arms=("scratch", "moco"), n_labels=(4,),
        seeds=2, encoder="unet", width=4, pretrain_steps=2, finetune_steps=2, batch=4, device="cpu", jobs=1,
    )  # fmt: skip
    study.run(options)
    trace = fatal(study)
    monkeypatch.chdir(tmp_path)
    there = study.run(replace(options, out=Path("there"), data=data, cluster=cluster.scheduler_address))
    assert trace.begun()[FATAL] == 2
    _others_once(trace, 4)
    ours, theirs = (read_json(folder / "verdict.json") for folder in (tmp_path / "here", there))
    assert ours == theirs
    assert not list((there / "logs").iterdir())


def _others_once(trace: Fatal, count: int) -> None:
    """Jobs done and told are never begun again; what a worker has done and not yet told dies with it."""
    begun = trace.begun()
    assert len(begun) == count
    again = [n for number, n in enumerate(begun) if number != FATAL and n > 1]
    assert len(again) <= 2 and set(again) <= {2}
