"""The sizing table of docs/how-to/cluster.md: hours and bytes by hand, and what it reads from DATA and RUN."""

import importlib.util
from pathlib import Path

import pytest

from medssl.data.store import Store
from medssl.files import read_toml, write_text

SOURCE = Path(__file__).parents[1] / "benchmarks/sizing.py"
SPEC = importlib.util.spec_from_file_location("sizing", SOURCE)
sizing = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(sizing)


def test_a_table_by_hand():
    one = sizing.Measured(stored_bytes=5e7, sample_bytes=1e6, prepare_s=36, samples_per_s=10)
    found = sizing.sizes(one, 10_000, passes=72, cores=10, devices=4, efficiency=0.5)
    assert found == pytest.approx({"store_tb": 0.5, "prepare_h": 10, "pretrain_h": 10, "read_mb_per_s": 20})
    assert sizing.sizes(one, 10_000, passes=72, cores=1, devices=1, efficiency=0.5)["pretrain_h"] == pytest.approx(20)


def test_the_figures_are_those_of_the_folders(trained_run, tmp_path):
    data, run = trained_run["DATA"], trained_run["RUN"]
    assert read_toml(run / "run.toml")["model"]["patch"] == [32, 32, 32]
    write_text(tmp_path / "run.toml", (run / "run.toml").read_text())
    write_text(tmp_path / "metrics.jsonl", "".join(f'{{"step": {s}, "samples_per_s": {s}.0}}\n' for s in (1, 2, 9)))
    one, words = sizing.measured(data, tmp_path, 3.0, None)
    bytes_ = sum(path.stat().st_size for path in (data / "store").iterdir()) / len(Store(data).items)
    assert one.stored_bytes == pytest.approx(bytes_)
    assert (one.samples_per_s, one.sample_bytes, one.prepare_s) == (2.0, 2 * 32**3, 3.0)
    assert "2 samples/s on cpu" in words
    assert sizing.measured(data, tmp_path, 3.0, 5.0)[0].samples_per_s == 5.0
