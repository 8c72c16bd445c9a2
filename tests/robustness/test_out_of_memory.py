"""Memory that runs out in a run: the batch goes in parts, the run records it, and resumed it is the same run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medssl import files
from medssl.engine import log, record
from medssl.errors import UserError
from medssl.methods.pcrl import PCRL
from medssl.stages import pretrain
from medssl.stages.options.train import LoopOptions, Pretrain

CHANGING = ("samples_per_s", "data_wait", "elapsed_s")  # what the clock says


@pytest.fixture
def options(pictures, tmp_path) -> Pretrain:
    loop = LoopOptions(batch=4, workers=0, log_every=1, save_every_steps=5, device="cpu", threads=1, precision="32")
    model = replace(Pretrain(method="pcrl", data=pictures, out=pictures).model, width=4, patch=(32, 32))
    return Pretrain(method="pcrl", data=pictures, out=tmp_path / "run", steps=8, loop=loop, model=model)


class Hungry:
    """Memory ends at ``most`` samples; the run is killed as the losses of batch ``dies`` are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int = 2, dies: int = 0) -> None:
        self.real, self.most, self.dies, self.sizes = PCRL.losses, most, dies, []
        hungry = self

        def losses(method, views, progress):
            hungry.sizes.append(len(views["x1"]))
            if len(hungry.sizes) == hungry.dies:
                raise ZeroDivisionError
            if len(views["x1"]) > hungry.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            yield from hungry.real(method, views, progress)

        monkeypatch.setattr(PCRL, "losses", losses)


def rows(run: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in CHANGING} for row in log.read(run)]


def test_the_batch_goes_in_parts_said_aloud_recorded_and_kept(options, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        hungry = Hungry(patched)
        straight = pretrain.run(options)
    assert hungry.sizes[:17] == [4] + 16 * [2]
    assert "out of memory: the 4 samples of a step go in 2 parts of 2 from here on" in capsys.readouterr().err
    assert [row.get("parts") for row in rows(straight) if row["step"]] == 8 * [2]
    broken = replace(options, out=tmp_path / "broken")
    with monkeypatch.context() as patched:
        Hungry(patched, dies=14)  # in step 7, after the checkpoint of step 5
        with pytest.raises(ZeroDivisionError):
            pretrain.run(broken)
    with monkeypatch.context() as patched:
        hungry = Hungry(patched)
        pretrain.run(broken)
    assert set(hungry.sizes[:6]) == {2}  # no attempt at the whole batch
    assert rows(straight) == rows(broken.out)
    asked = pretrain.run(replace(options, out=tmp_path / "asked", accumulate=2))
    assert rows(straight) == rows(asked)
    assert files.read_toml(asked / record.NAME)["options"]["accumulate"] == 2
    assert (straight / "encoder.safetensors").read_bytes() == (asked / "encoder.safetensors").read_bytes()


def test_where_the_batch_must_stay_whole_the_advice_says_why(options, monkeypatch):
    Hungry(monkeypatch)
    with pytest.raises(
        UserError, match=r"--batch 4 and --patch 32×32, which is not taken in parts, since it compares or mixes .*: --b"
    ):
        pretrain.run(options, {"mix": True})
    assert not record.finished(options.out)


def test_where_parts_can_be_no_smaller_the_advice_names_another_patch(options, monkeypatch):
    Hungry(monkeypatch, most=1)
    with pytest.raises(
        UserError,
        match=r"out of memory with --batch 4 and --patch 32×32: not even 2 fit.*; try --batch 2 --p",
    ):
        pretrain.run(options)


def test_parts_that_cannot_be_are_refused_before_anything_is_trained(options, monkeypatch):
    for settings, said in (
        (None, "--accumulate 4 for 4 samples, and batch norm"),
        ({"mix": True}, "since it compares or mixes"),
    ):
        with pytest.raises(UserError, match=said):
            pretrain.run(replace(options, accumulate=4), settings)
    with pytest.raises(UserError, match="--accumulate is 0: give 1"):
        pretrain.run(replace(options, accumulate=0))
