"""Row 7. Starting: the help, the header pass of a large folder, the index of one, a run that goes on."""

import contextlib
import io
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import Metric, seconds
from medssl.data import catalog
from medssl.data.find import walk
from medssl.data.gather import gather_headers
from medssl.data.sample import Sampler
from medssl.data.store import FROM_INDEX

REPEATS = 5  # of which the least counts


def metrics(pairs: int, quick: bool) -> Iterator[Metric]:
    """CPU seconds of this machine, which no ratio makes fair; the least of several."""
    least = min(_child_seconds("from medssl.cli import main; main(['--help'])") for _ in range(REPEATS))
    yield Metric(row=7, name="medssl --help, CPU seconds", value=least, goal="<= 0.3", note=f"least of {REPEATS}")
    files = 2000 if quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder) / "scans"
        _write_scans(scans, files)
        spent = min(seconds(partial(_headers, scans, files, Path(folder) / "out")) for _ in range(2))
        goal = "<= 5" if files == 100_000 else ""
        note = "one process: walk, headers, items; least of 2"
        yield Metric(row=7, name=f"header pass of {files} NIfTI files, CPU seconds", value=spent, goal=goal, note=note)
        _write_index(Path(folder), files)
        opened, needed = (
            min(seconds(partial(catalog.load_index, Path(folder), columns)) for _ in range(REPEATS))
            for columns in (None, FROM_INDEX)
        )
    yield Metric(row=7, name=f"index of {files} scans opened, CPU seconds", value=opened, goal="<= 0.05")
    yield Metric(row=7, name="the same, the columns that a store opens by", value=needed, goal="<= 0.05")
    first, later = (min(seconds(_first_order(step)) for _ in range(REPEATS)) for step in (0, 10**7))
    note = "finding what a run shows first; that losses go on bit-equal is tests/robustness/test_resume.py"
    yield Metric(row=7, name="after 10⁷ steps ÷ at the first step", value=later / first, goal="<= 1.5", note=note)


def _child_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _headers(scans: Path, files: int, out: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        found, _ = walk(scans, without=[out])
        assert len(gather_headers(scans, found, {}, b"salt", 1).items) == files


def _write_scans(folder: Path, files: int) -> None:
    """Packed headers of 512×512×288 voxels, 200 a folder as a PACS might leave them; the header pass reads no more."""
    import gzip
    import struct

    raw = bytearray(352)
    struct.pack_into("<i", raw, 0, 348)
    struct.pack_into("<8h", raw, 40, 3, 512, 512, 288, 1, 1, 1, 1)
    struct.pack_into("<2h", raw, 70, 4, 16)
    struct.pack_into("<8f", raw, 76, 1, 0.7, 0.7, 1, 0, 0, 0, 0)
    struct.pack_into("<3f", raw, 108, 352, 1, 0)
    raw[344:348] = b"n+1\0"
    packed = gzip.compress(bytes(raw) + bytes(4096))
    for k in range(files):
        place = folder / f"patient{k // 200:04d}"
        if k % 200 == 0:
            place.mkdir(parents=True)
        (place / f"scan{k:06d}.nii.gz").write_bytes(packed)


def _write_index(folder: Path, rows: int) -> None:
    texts = dict.fromkeys((*catalog.TEXTS[3:],), "x")
    numbers = dict.fromkeys(catalog.NUMBERS, 1.5)
    common = texts | numbers | {"frames": None, "member": None, "dims": 3, "channels": 1, "shape": [512, 512, 288]}
    common |= {"spacing_mm": [0.7, 0.7, 1.0], "affine": [0.0] * 16, "text": None, "mask_path": None}
    made = (
        common | {"item": f"{k:016x}", "patient": f"p{k // 2}", "study": f"s{k}", "path": f"a/{k}", "files": [f"a/{k}"]}
        for k in range(rows)
    )
    catalog.write_index(folder, list(made), [], {"scans": "x"})


def _first_order(step: int) -> Callable[[], object]:
    """The scans of one step's batch, drawn by a sampler that has drawn nothing yet."""
    rows, batch = np.arange(10_000), 64

    def run() -> object:
        sampler = Sampler(
            store=None, rows=rows, region=(1,), batch=batch, seed=0, masks=False, labels=None,  # type: ignore[arg-type]
            foreground=0.0, rank=0, world=1,
        )  # fmt: skip
        return [sampler._drawn(step * batch + p) for p in range(batch)]

    return run
