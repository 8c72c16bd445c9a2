"""`medssl preflight`: what a run costs, before it; and what `pretrain` says of itself after its first steps."""

import re

import pytest

from medssl.cli import main
from medssl.engine import log
from medssl.stages import pace, preflight
from medssl.stages.options.train import Preflight
from scans import prepared_pictures

TINY = "--encoder unet --width 4 --patch 32 32 --batch 4 --threads 1 --device cpu"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepared_pictures(tmp_path_factory.mktemp("preflight"), count=12)


def test_it_measures_and_advises_and_leaves_nothing_behind(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preflight, "BUDGET_S", 1e6)  # however busy the machine is that tests it
    found = []
    real = preflight._table
    monkeypatch.setattr(preflight, "_table", lambda ways, hours: found.extend(ways) or real(ways, hours))
    before = sorted(data.rglob("*"))
    assert main(f"preflight {data} --method moco --hours 2 --momentum 0.9 {TINY}".split()) == 0
    said = capsys.readouterr().out
    assert sorted(data.rglob("*")) == before and list(tmp_path.iterdir()) == []
    names = [way.name for way in found]
    assert "batch 8" in names and any(name.startswith("precision") for name in names)
    assert "patch 16×16" in names
    best = found[0]
    assert best.options.loop.batch == 4 and best.size == (32, 32) and best.parts == 1
    assert best.pace.step_s > 0 and best.pace.load_s > 0
    assert any(way.held_s for way in found)  # of the first way only: the scans are the same
    steps = int(2 * 3600 / best.step_s)
    assert f"add: --steps {steps} --precision {best.precision} --workers {best.workers}" in said
    assert re.search(rf"{best.name} .* {steps}\n", said)
    for line in (f"{best.options.steps} steps take about ", "memory: ", "limited by: ", "would help: "):
        assert line in said
    assert len(said.splitlines()) < 16


def test_it_says_when_memory_runs_out(data, monkeypatch, capsys):
    import torch

    from medssl.methods.moco import MoCo

    real = MoCo.losses

    def losses(self, views, progress):
        if len(views["x1"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        yield from real(self, views, progress)

    monkeypatch.setattr(MoCo, "losses", losses)
    monkeypatch.setattr(preflight, "BUDGET_S", 0.0)  # no other way is tried
    (way,) = preflight.run(main_options(data))
    said = capsys.readouterr().out
    assert way.parts == 2
    assert "the batch had to go in 2 parts" in said and "--accumulate 2" in said


def main_options(data) -> Preflight:
    from medssl.cli import _parse

    return _parse("preflight", f"{data} --method moco --precision 32 --workers 0 {TINY}".split())[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method mocco", "no method 'mocco': did you mean 'moco'?"),
        ("", "missing: --method"),
        ("--method moco --hours 0", "--hours is 0.0: give 0.01 to 10000"),
        ("--method moco --accumulate 3 --batch 4", "batch norm averages over 2 samples or more"),
        ("--method simclr --accumulate 9 --batch 4", "--accumulate 9 for 4 samples"),
        ("--method moco --compile --checkpoint-activations", "choose one"),
        ("--method moco --cache device --workers 2", "--workers 2 cannot cut crops in the memory of a device"),
        ("--method moco --queues 3", "medssl preflight moco --help"),
    ],
)
def test_mistakes_are_told_in_one_sentence(data, capsys, words, said):
    assert main(["preflight", str(data), *words.split(), "--width", "4", "--patch", "32", "32"]) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("medssl preflight: ") and "Traceback" not in err


def test_pretrain_says_what_its_first_steps_show_and_learns_the_same(data, tmp_path, capsys):
    rows = []
    for more in ("", "--no-preflight --workers 0 --cache on", "--no-preflight --cache device"):
        run = tmp_path / f"run{len(rows)}"
        words = f"pretrain moco --data {data} --out {run} --steps 8 --log-every 1 --precision 32 {TINY} {more}"
        assert main(words.split()) == 0
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("preflight: ")]
        assert len(told) == (0 if more else 2)
        rows.append(
            [
                {k: v for k, v in row.items() if k not in ("samples_per_s", "data_wait", "elapsed_s")}
                for row in log.read(run)
            ]
        )
        if told:
            assert re.match(
                r"preflight: .* s a step and .* s to load its batch: no loader processes, no cache; ", told[0]
            )
            assert re.match(
                r"preflight: 3 steps take about \d+:\d+; (compute|data) is what limits it; .* help", told[1]
            )
    assert rows[0] == rows[1] == rows[2]


def test_pretrain_corrects_an_estimate_that_was_wrong_once(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pace, "PROOF_STEPS", 2)
    monkeypatch.setattr(pace, "PROOF_S", 0.0)
    monkeypatch.setattr(pace, "seconds", lambda *_: 600.0)
    words = f"pretrain moco --data {data} --out {tmp_path / 'run'} --steps 12 --log-every 4 --precision 32 {TINY}"
    assert main(words.split()) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("preflight: ")]
    assert "preflight: 7 steps take about 1:10:00" in told[1]
    assert re.match(
        r"preflight: a step takes .* s, not 600 s as first measured: the 5 steps that are left take", told[2]
    )
    assert len(told) == 3


def test_a_busy_machine_is_told(data, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "BUDGET_S", 0.0)
    real = preflight.measured
    for spread, said in ((1.2, False), (3.4, True)):
        monkeypatch.setattr(preflight, "measured", lambda times, spread=spread: (real(times)[0], spread))
        preflight.run(main_options(data))
        out = capsys.readouterr().out
        assert ("the machine is busy, blocks of steps took 1 to 3.4 × as long" in out) == said
