"""kill -9 in the middle of `medssl prepare`: nothing half-written is ever read, and the next run ends the same."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medssl.data.store import Store
from medssl.stages.options.data import Prepare
from medssl.stages.prepare import run
from processes import descendants, gone
from scan_files import index, noise, write_nifti

SCANS = 12


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of the same index."""
    for i in range(SCANS):
        write_nifti(tmp_path / "scans" / f"{i:02}.nii.gz", noise(i, 80, 80, 60), np.diag([0.8, 0.8, 1.5, 1.0]))
    for name in ("killed", "whole"):
        index(tmp_path / "scans", tmp_path / name, modality="CT", keep_ids=True)
    return tmp_path / "killed", tmp_path / "whole"


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_run_again(twins: tuple[Path, Path], workers: int) -> None:
    killed, whole = twins
    command = [
        sys.executable,
        "-m",
        "medssl",
        "prepare",
        str(killed),
        "--spacing-mm",
        "1",
        "--workers",
        str(workers),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    store = killed / "store"
    deadline = time.monotonic() + 60
    while len(_files(store)) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    started = descendants(process.pid)
    process.kill()
    process.wait()
    assert len(started) >= (2 if workers > 1 and Path("/proc").exists() else 0)
    assert gone(started)  # no worker outlives the command
    done = _files(store)
    assert 3 <= len(done) < SCANS
    assert not (killed / "prepared.parquet").exists()
    # What a write that was cut off leaves behind.
    (store / f".{done[0]}.99999.tmp").write_bytes(b"half")
    (store / done[1]).write_bytes((store / done[1]).read_bytes()[:500])

    before = {name: (store / name).stat().st_mtime_ns for name in _files(store)}
    run(Prepare(data=killed, workers=1))
    run(Prepare(data=whole, workers=1, spacing_mm=(1.0,)))
    kept = [name for name in before if (store / name).stat().st_mtime_ns == before[name]]
    assert set(kept) == set(before) - {done[1]}
    assert sorted(p.name for p in store.iterdir()) == sorted(f"{item}.b2nd" for item in Store(killed).items["item"])
    resumed, reference = Store(killed), Store(whole)
    assert resumed.hash == reference.hash
    for row in range(SCANS):
        np.testing.assert_array_equal(resumed.read(row), reference.read(row))
        np.testing.assert_array_equal(resumed.points(row), reference.points(row))


def _files(store: Path) -> list[str]:
    return sorted(p.name for p in store.glob("[!.]*.b2nd"))
