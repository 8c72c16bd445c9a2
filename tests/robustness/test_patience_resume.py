"""A pre-training that its probes end, by the command; killed and resumed, it decides the same."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_resume import assert_same_run, interrupted_after

import medssl
from medssl import files
from medssl.cli import main
from medssl.data.store import Store
from medssl.engine import log, record
from medssl.errors import UserError
from medssl.stages import pretrain
from medssl.stages.monitor import Monitor
from medssl.stages.options.train import LoopOptions, Pretrain
from medssl.stages.patience import score
from two_ranks import started

STEPS = 40


@pytest.fixture(scope="module")
def options(pictures, tmp_path_factory) -> Pretrain:
    loop = LoopOptions(batch=4, workers=0, log_every=1, save_every_steps=3, device="cpu", threads=1, precision="32")
    out = tmp_path_factory.mktemp("patience") / "run"
    made = Pretrain(method="simclr", data=pictures, out=out, steps=STEPS, loop=loop, patience=2, probe_every=2)
    return replace(made, model=replace(made.model, width=4, patch=(32, 32)))


@pytest.fixture(scope="module")
def straight(options) -> Path:
    """The run that nothing disturbed."""
    return pretrain.run(options)


def test_it_ends_early_and_keeps_the_encoder_of_the_best_probe(straight, options):
    rows, card = log.read(straight), files.read_json(straight / "encoder.json")
    probed = {row["step"]: score(row) for row in rows if row["step"] and score(row) is not None}
    best = max(probed, key=probed.get)  # the first of equals
    end = best + 2 * options.patience
    assert list(probed) == list(range(2, end + 1, 2)) and rows[-1]["step"] == end < STEPS
    assert card["steps"] == best and card["patience"] == {"probes": 2, "ended": end, "of": STEPS}
    assert files.read_json(straight / record.DONE) == {"finished": True, "steps": end, "kept": best}
    assert record.last_kept(straight) == best and record.stored(straight)["options"]["patience"] == 2
    store = Store(options.data)
    monitor = Monitor(store, pretrain.training_rows(store, False), None, options.model.seed, (32, 32), 4)
    again = monitor(medssl.load(straight).network, torch.device("cpu"))
    then = next(row for row in rows if row["step"] == best)
    assert again == pytest.approx({name: then[name] for name in again}, rel=1e-3)
    text = (straight / "report.html").read_text()
    assert f"for {best} steps, kept because its probe was the best (training ended at step {end} of {STEPS})" in text


@pytest.fixture
def killed(options, straight, tmp_path, monkeypatch):
    """The same run, which ends without a word after a step, as by kill -9: its last checkpoint is older."""

    def at(step: int) -> Pretrain:
        real = log.Metrics.write

        def write(self, row):
            real(self, row)
            if row["step"] == step:
                raise MemoryError("killed")

        mine = replace(options, out=tmp_path / "run")
        with monkeypatch.context() as patched:
            patched.setattr(log.Metrics, "write", write)
            with pytest.raises(MemoryError, match="killed"):
                pretrain.run(mine)
        return mine

    return at


def test_killed_between_two_checkpoints_it_decides_the_same(killed, straight):
    end = log.read(straight)[-1]["step"]
    resumed = pretrain.run(killed(end - 1))
    assert_same_run(resumed, straight)
    assert files.read_json(resumed / "encoder.json") == files.read_json(straight / "encoder.json")


def test_stopped_by_a_signal_it_decides_the_same(options, straight, tmp_path, monkeypatch):
    mine = replace(options, out=tmp_path / "run")
    interrupted_after(monkeypatch, mine, log.read(straight)[-1]["step"] - 2, signal.SIGTERM)
    assert_same_run(pretrain.run(mine), straight)


def test_killed_after_it_ended_it_writes_its_results(options, straight, tmp_path):
    mine = replace(options, out=tmp_path / "run")
    shutil.copytree(straight, mine.out)
    for name in (record.DONE, "encoder.safetensors", "encoder.json"):
        (mine.out / name).unlink()
    assert_same_run(pretrain.run(mine), straight)
    assert files.read_json(mine.out / record.DONE) == files.read_json(straight / record.DONE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"patience": 3}, "--patience: 2 → 3"),
        ({"patience": None}, "--patience: 2 → None"),
        ({"probe_every": 4}, "--probe-every: 2 → 4"),
        ({"loop": {"log_every": 2}}, "--log-every: 1 → 2"),
        ({"probe_target": "size"}, "--probe-target:  → size"),
    ],
)
def test_it_goes_on_with_the_same_probes_only(options, straight, change, told):
    with pytest.raises(UserError, match=told):
        changes = {k: replace(getattr(options, k), **v) if isinstance(v, dict) else v for k, v in change.items()}
        pretrain.run(replace(options, **changes))


def test_the_command_says_what_it_does(pictures, tmp_path, capsys, monkeypatch):
    """One probe after another is worse, so the second one ends it."""
    values = iter([0.4, 0.7, 0.6, 0.5])
    monkeypatch.setattr(Monitor, "__call__", lambda self, encoder, device: {"probe.linear": next(values)})
    words = f"pretrain simclr --data {pictures} --out {tmp_path / 'run'} --steps 20 --batch 4 --width 4 --patch 32 32"
    words += " --log-every 1 --workers 0 --threads 1 --device cpu --probe-every 3 --patience 1"
    assert main(words.split()) == 0
    told = capsys.readouterr().err
    assert "training ends at step 6 of 20" in told and "step 3 is kept, with the best probe (0.700; untrained" in told
    assert "0 is kept" not in told and "stopped; step" not in told


@pytest.mark.parametrize("words", ["--patience 0", "--patience 2"])
def test_what_cannot_be_is_refused_before_work(pictures, tmp_path, refused, monkeypatch, words):
    monkeypatch.setattr(Monitor, "probes", False)  # as of scans without labels and masks
    rest = ["--steps", 4, "--batch", 4, "--width", 4, "--patch", 32, 32]
    told = refused("pretrain", "simclr", "--data", pictures, "--out", tmp_path / "run", *rest, *words.split())
    assert ("--patience is 0" if words.endswith("0") else "nothing to probe: no label") in told
    assert not (tmp_path / "run" / log.NAME).exists()


def _train(rank: int, options: Pretrain) -> None:
    values = iter([0.4, 0.7, 0.6, 0.5])
    Monitor.__call__ = lambda self, encoder, device: {"probe.linear": next(values)}
    pretrain.run(options)


def test_all_ranks_end_where_the_first_one_decides(options, tmp_path):
    """Only rank 0 probes; the other one is not left waiting."""
    mine = replace(options, out=tmp_path / "run")
    ranks = started(_train, mine)
    for process in ranks.processes:
        process.join(180)
    assert [process.exitcode for process in ranks.processes] == [0, 0]
    assert files.read_json(mine.out / record.DONE) == {"finished": True, "steps": 6, "kept": 2}
