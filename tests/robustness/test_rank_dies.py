"""A rank that dies ends the others with a sentence; the run goes on, on as many processes or on another number."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_resume import interrupted_after, rows

from medssl.engine import checkpoint
from medssl.engine.machine import Machine, make_fabric
from medssl.engine.ranks import Pulse
from medssl.errors import UserError
from medssl.stages import pretrain
from medssl.stages.options.train import LoopOptions, Pretrain
from two_ranks import started

STEPS, DIES_AT = 8, 5


@pytest.fixture(scope="module")
def options(pictures, tmp_path_factory) -> Pretrain:
    """moco: it has a queue and a teacher to keep in step; SGD does not blow up the rounding of small gradients."""
    loop = LoopOptions(batch=4, workers=0, log_every=1, save_every_steps=2, device="cpu", threads=1, precision="32")
    out = tmp_path_factory.mktemp("runs")
    made = Pretrain(method="moco", data=pictures, out=out, steps=STEPS, loop=loop, sync_norm=True)
    model = replace(made.model, encoder="unet", width=4, patch=(32, 32))
    return replace(made, model=model, optim=replace(made.optim, optimizer="sgd", lr=0.01))


@pytest.fixture(scope="module")
def straight(options) -> Path:
    """One process, undisturbed."""
    return pretrain.run(replace(options, out=options.out / "straight"))


def _train(rank: int, options: Pretrain, told: Path, dies_at: int) -> None:
    """Pre-train and write down what it ends with; rank 1 is killed after a step."""
    due = checkpoint.Timer.due

    def deadly(self: checkpoint.Timer, step: int) -> bool:
        if rank == 1 and step == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return due(self, step)

    checkpoint.Timer.due = deadly
    try:
        pretrain.run(options)
        said = "finished"
    except UserError as error:
        said = str(error)
    (told / str(rank)).write_text(said)


def assert_alike(run: Path, other: Path) -> None:
    """Up to the rounding of sums over two processes."""
    ours, theirs = rows(run), rows(other)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(STEPS + 1))
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        assert a["contrast"] == pytest.approx(b["contrast"], rel=1e-3)
    weights = load_file(run / "encoder.safetensors")
    for name, value in load_file(other / "encoder.safetensors").items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_one_is_killed_and_one_goes_on(options, straight, tmp_path):
    options = replace(options, out=tmp_path / "run")
    ranks = started(_train, options, tmp_path, DIES_AT)
    ranks.processes[1].join(180)
    assert ranks.processes[1].exitcode == -signal.SIGKILL
    ranks.processes[0].join(60)
    assert ranks.processes[0].exitcode == 0
    said = (tmp_path / "0").read_text()
    assert said.startswith("another process of this run has ended") and "same command again" in said
    assert not (options.out / "encoder.safetensors").exists()
    assert_alike(pretrain.run(options), straight)


def test_one_process_is_stopped_and_two_go_on(options, straight, tmp_path, monkeypatch):
    options = replace(options, out=tmp_path / "run")
    interrupted_after(monkeypatch, options, DIES_AT, signal.SIGTERM)
    ranks = started(_train, options, tmp_path, 0)
    while not ranks.join():
        pass
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["finished", "finished"]
    assert_alike(options.out, straight)


def _falls_silent(rank: int, told: Path) -> None:
    """Rank 1 stops without a word, as a machine does that loses its power; rank 0 waits for it."""
    make_fabric(Machine("cpu", "32", 1))
    Pulse(every_s=0.2, patience_s=5, grace_s=0.2)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    with (told / "stderr").open("w") as file:
        os.dup2(file.fileno(), 2)
    torch.distributed.barrier()


def test_a_rank_that_falls_silent_ends_the_others(tmp_path):
    ranks = started(_falls_silent, tmp_path)
    try:
        ranks.processes[0].join(120)
        assert ranks.processes[0].exitcode == 2
        assert "process 1 of this run has been silent for 5 s" in (tmp_path / "stderr").read_text()
    finally:
        for process in ranks.processes:
            process.kill()
            process.join()


def test_what_ranks_cannot_share_is_told_before_training(options, pictures, tmp_path, refused):
    command = f"pretrain moco --data {pictures} --out {tmp_path / 'r'} --sync-norm --batch-groups 2 --device cpu"
    assert "--sync-norm joins the statistics that --batch-groups keeps apart" in refused(*command.split())
