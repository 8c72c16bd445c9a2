"""A run that is killed, interrupted or repeated ends where it would have ended, and says what it does."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from medssl import files
from medssl.engine import checkpoint, log, record
from medssl.errors import UserError
from medssl.stages import pretrain
from medssl.stages.options.train import LoopOptions, Pretrain
from processes import descendants, gone
from scans import prepared_pictures

STEPS = 24
CHANGING = ("samples_per_s", "data_wait", "elapsed_s")  # what the clock says


@pytest.fixture
def options(pictures, tmp_path) -> Pretrain:
    loop = LoopOptions(batch=4, workers=0, log_every=1, save_every_steps=5, device="cpu", threads=1)
    model = replace(Pretrain(method="pcrl", data=pictures, out=pictures).model, width=4, patch=(32, 32))
    return Pretrain(
        method="pcrl", data=pictures, out=tmp_path / "run", steps=STEPS, loop=loop, model=model, probe_every=8
    )


@pytest.fixture(scope="module")
def straight(pictures, tmp_path_factory) -> Path:
    """The run that nothing disturbed."""
    loop = LoopOptions(batch=4, workers=0, log_every=1, save_every_steps=5, device="cpu", threads=1)
    model = replace(Pretrain(method="pcrl", data=pictures, out=pictures).model, width=4, patch=(32, 32))
    out = tmp_path_factory.mktemp("straight") / "run"
    chosen = Pretrain(method="pcrl", data=pictures, out=out, steps=STEPS, loop=loop, model=model, probe_every=8)
    return pretrain.run(chosen)


def rows(run: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in CHANGING} for row in log.read(run)]


def assert_same_run(run: Path, other: Path) -> None:
    assert rows(run) == rows(other)
    weights = load_file(run / "encoder.safetensors")
    for name, value in load_file(other / "encoder.safetensors").items():
        assert value.equal(weights[name]), name


def command(options: Pretrain) -> list[str]:
    loop, model = options.loop, options.model
    text = (
        f"-m medssl pretrain pcrl --data {options.data} --out {options.out} --steps {options.steps} "
        f"--probe-every {options.probe_every} --width {model.width} --patch {model.patch[0]} {model.patch[1]} "
        f"--batch {loop.batch} --workers 2 --log-every {loop.log_every} --save-every-steps {loop.save_every_steps} "
        f"--device {loop.device} --threads {loop.threads}"
    )
    return [sys.executable, *text.split()]


def interrupted_after(monkeypatch, options: Pretrain, step: int, number: signal.Signals) -> None:
    """Run until the row of ``step`` is written; then the process gets a signal."""
    real = log.Metrics.write

    def write(self, row):
        real(self, row)
        if row["step"] == step:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(log.Metrics, "write", write)
        with pytest.raises(KeyboardInterrupt):
            pretrain.run(options)


def test_killed_at_a_random_step_a_run_resumes_to_the_same_bits(options, straight):
    """kill -9 of the real command, with two loader processes; resumed without any: their number changes nothing."""
    target = random.randint(2, STEPS // 2)
    process = subprocess.Popen(command(options), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(row["step"] >= target for row in log.read(options.out)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "the run never came that far"
        time.sleep(0.01)
    started = descendants(process.pid)
    process.kill()
    process.wait()
    process.stderr.close()
    assert len(started) >= (4 if Path("/proc").exists() else 0)  # resource tracker, forkserver, two loaders
    assert gone(started)  # no loader process outlives the run
    assert not record.finished(options.out)
    assert all(path.name != "encoder.safetensors" for path in options.out.iterdir())
    assert_same_run(pretrain.run(options), straight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_resumes(options, straight, monkeypatch, capsys, number):
    interrupted_after(monkeypatch, options, 7, number)
    assert "step 7 of 24 is saved" in capsys.readouterr().err
    import torch

    assert torch.load(options.out / checkpoint.NAME, weights_only=True)["step"] == 7
    assert_same_run(pretrain.run(options), straight)


def test_a_signal_before_the_first_step_leaves_a_run_that_starts(options, straight, monkeypatch):
    interrupted_after(monkeypatch, options, 0, signal.SIGTERM)
    assert_same_run(pretrain.run(options), straight)


def test_a_finished_run_says_so_and_does_nothing(options, straight, capsys):
    before = {path: path.stat().st_mtime_ns for path in straight.rglob("*") if path.name != ".lock"}
    pretrain.run(replace(options, out=straight))
    assert "is finished" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in straight.rglob("*") if path.name != ".lock"}


def test_a_run_that_died_while_it_wrote_its_results_writes_them(options, straight, tmp_path):
    shutil.copytree(straight, options.out)
    for name in (record.DONE, "encoder.safetensors", "encoder.json", "samples.npz"):
        (options.out / name).unlink()
    assert_same_run(pretrain.run(options), straight)
    assert record.finished(options.out)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 30}, "--steps: 24 → 30"),
        ({"transductive": True}, "--transductive: False → True"),
        ({"loop": {"batch": 8}}, "--batch: 4 → 8"),
        ({"model": {"width": 8}}, "--width: 4 → 8"),
        ({"optim": {"lr": 0.5}}, "--lr: 0.001 → 0.5"),
    ],
)
def test_another_command_is_refused(options, straight, change, told):
    nested = {k: replace(getattr(options, k), **v) if isinstance(v, dict) else v for k, v in change.items()}
    with pytest.raises(UserError, match="other options") as caught:
        pretrain.run(replace(options, out=straight, **nested))
    assert told in str(caught.value)


def test_an_option_of_the_method_counts_too(options, straight):
    with pytest.raises(UserError, match=r"--temperature: 0\.2 → 0\.3"):
        pretrain.run(replace(options, out=straight), {"temperature": 0.3})


def test_other_data_is_refused(options, straight, tmp_path):
    with pytest.raises(UserError, match="data hash"):
        pretrain.run(replace(options, out=straight, data=prepared_pictures(tmp_path / "other", count=20)))


def test_two_processes_on_one_run_do_not_meet(options):
    with files.locked(options.out, "RUN"), pytest.raises(UserError, match="in use by process"):
        pretrain.run(options)


def test_a_nan_keeps_the_last_good_checkpoint(options, monkeypatch):
    import torch

    from medssl.methods.pcrl import PCRL

    real = PCRL.losses

    def losses(self, views, progress):
        for item in real(self, views, progress):
            if progress > 7 / STEPS and getattr(item, "name", "") == "contrast":
                item.value = item.value * torch.nan
            yield item

    monkeypatch.setattr(PCRL, "losses", losses)
    with pytest.raises(UserError, match=r"term 'contrast' became nan at step 8 .*run"):
        pretrain.run(options)
    assert torch.load(options.out / checkpoint.NAME, weights_only=True)["step"] == 5
    assert not record.finished(options.out)


def test_a_full_disk_stops_the_run_and_leaves_the_old_checkpoint(options, straight, monkeypatch):
    import torch

    real, saved = torch.save, []

    def save(state, path):
        saved.append(state["step"])
        if len(saved) == 2:
            path.write_bytes(b"half")
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
        real(state, path)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", save)
        with pytest.raises(OSError, match="cannot write the checkpoint"):
            pretrain.run(options)
    assert [p.name for p in (options.out / "checkpoint").iterdir()] == ["state.pt"]
    assert_same_run(pretrain.run(options), straight)


def test_a_method_of_pairs_is_not_advised_to_take_one_image(options, monkeypatch):
    import torch

    from medssl.methods.pcrlv2 import PCRLv2

    def losses(self, views, progress):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        yield

    monkeypatch.setattr(PCRLv2, "losses", losses)
    loop, model = replace(options.loop, batch=2), replace(options.model, patch=(64, 64))
    options = replace(options, method="pcrlv2", loop=loop, model=model)
    said = r"out of memory with --batch 2 and --patch 64×64: not even 2 fit.*try --batch 2 --patch 32 32"
    with pytest.raises(UserError, match=said):
        pretrain.run(options)
    with pytest.raises(UserError, match=r"a batch of 1 \(--batch\): give 2 or more"):
        pretrain.run(replace(options, out=options.out / "one", loop=replace(loop, batch=1)))
