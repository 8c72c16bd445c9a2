"""From a folder of generated patients to a tested network: both tasks, both dimensions, stopped and resumed."""

import json
import math
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from medssl import files
from medssl.config import ModelOptions, replace, to_table
from medssl.data.phantom import MODALITIES
from medssl.data.store import Store
from medssl.engine import log
from medssl.errors import UserError
from medssl.evaluate.metrics import classification
from medssl.networks.weights import export_state
from medssl.stages import finetune, index, phantom, prepare
from medssl.stages.finetune_score import Score
from medssl.stages.finetune_setup import build, set_up
from medssl.stages.options.data import Index, Phantom, Prepare
from medssl.stages.options.train import Finetune, LoopOptions
from medssl.tasks.classify import Classify
from medssl.tasks.segment import Segment


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"phantom{request.param}")
    kinds = MODALITIES[request.param][:1]
    phantom.run(Phantom(out=folder / "scans", patients=16, dims=request.param, size=32, seed=1, modalities=kinds))
    index.run(Index(scans=folder / "scans", out=folder / "data", fractions=(0.5, 0.2, 0.3), workers=1))
    return prepare.run(Prepare(data=folder / "data", workers=1))


def options(task: Any, data: Path, out: Path, **changes: Any) -> Finetune:
    model = ModelOptions(width=8, patch=() if task == "classify" else (32,) * Store(data).plan.dims)
    loop = LoopOptions(batch=4, workers=0, log_every=2, threads=1, precision="32", device="cpu")
    target = "lesion" if task == "classify" else None
    given = Finetune(
        task=task, data=data, out=out, target=target, n_labels=8, steps=6, validate_every=3, model=model, loop=loop
    )
    return replace(given, **changes)


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def test_classification_leaves_what_is_promised(data: Path, tmp_path: Path) -> None:
    run = finetune.run(options("classify", data, tmp_path / "run"))
    told = result(run)
    promised = {"run.toml", "metrics.jsonl", "model.safetensors", "samples.npz", "done.json"}
    assert promised <= {path.name for path in run.iterdir()}
    assert told["n_labels"] == told["n_train"] + told["n_val"] == 8
    assert told["classes"] == ["no", "yes"]
    frame = pl.read_parquet(run / "predictions.parquet")
    store = Store(data)
    assert set(frame["patient"]) == set(store.items.filter(pl.col("split") == "test")["patient"])
    prob = frame.select(pl.col("^prob\\..*$")).to_numpy()
    truth = frame.select(pl.col("^truth\\..*$")).to_numpy()
    np.testing.assert_allclose(prob.sum(1), 1, atol=1e-5)
    again = classification(prob, truth, "one")
    assert {k: v for k, v in again.items() if not math.isnan(v)} == pytest.approx(
        {k: v for k, v in told["metrics"].items() if v is not None}
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "cross_entropy" in row] == [2, 4, 6]
    assert [row["step"] for row in rows if "val_loss" in row] in ([3, 6], [])
    samples = np.load(run / "samples.npz")
    assert samples["image.0"].ndim == 2 and 0 <= samples["image.0"].min() <= samples["image.0"].max() <= 1


def test_segmentation_leaves_what_is_promised_and_predictions_lie_on_the_scans(data: Path, tmp_path: Path) -> None:
    run = finetune.run(options("segment", data, tmp_path / "run", predictions=True))
    told, store = result(run), Store(data)
    frame = pl.read_parquet(run / "predictions.parquet")
    dice = frame.select([f"dice.{s}" for s in told["structures"]]).to_numpy().astype(float)
    of_patients = [dice[[one == who for one in frame["patient"]]] for who in frame["patient"].unique()]
    assert told["value"] == pytest.approx(np.nanmean([np.nanmean(own) for own in of_patients]))
    assert np.nanmin(dice) >= 0 and np.nanmax(dice) <= 1
    scans = Path(files.read_toml(data / "index.toml")["scans"])
    written = {p.name.split(".")[0]: p for p in (run / "predictions").iterdir()}
    assert set(written) == set(frame["item"])
    row = store.items.filter(pl.col("item") == frame["item"][0]).row(0, named=True)
    if store.plan.dims == 3:
        prediction, scan = nib.load(written[row["item"]]), nib.load(scans / row["path"])
        assert prediction.shape == scan.shape
        np.testing.assert_allclose(prediction.affine, scan.affine, atol=1e-4)
    else:
        assert Image.open(written[row["item"]]).size == Image.open(scans / row["path"]).size
    samples = np.load(run / "samples.npz")
    assert samples["image.0"].shape == samples["truth.0"].shape == samples["prediction.0"].shape


def test_a_finished_run_is_left_alone_and_other_options_are_refused(data: Path, tmp_path: Path) -> None:
    given = options("classify", data, tmp_path / "run")
    run = finetune.run(given)
    before = (run / "result.json").stat().st_mtime_ns
    finetune.run(given)
    assert (run / "result.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="n-labels: 8 → 9"):
        finetune.run(replace(given, n_labels=9))
    with pytest.raises(UserError, match="encoder-seed: None → 9"):
        finetune.run(replace(given, encoder_seed=9))


def test_a_stopped_run_ends_with_the_bits_of_an_unbroken_one(data: Path, tmp_path: Path) -> None:
    task: Any = "classify" if Store(data).plan.dims == 2 else "segment"
    steps = 20 if task == "classify" else 6
    whole = finetune.run(options(task, data, tmp_path / "whole", steps=steps))
    loop = replace(options(task, data, tmp_path).loop, save_every_steps=1)
    broken = options(task, data, tmp_path / "broken", loop=loop, steps=steps)
    code = "import sys, pickle; from medssl.stages import finetune; finetune.run(pickle.load(sys.stdin.buffer))"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(broken))
    process.stdin.close()
    while not (broken.out / "checkpoint" / "state.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (broken.out / "checkpoint" / "state.pt").exists() and not (broken.out / "done.json").exists()
    finetune.run(broken)
    one, two = (load_file(run / "model.safetensors") for run in (whole, broken.out))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert result(whole) == result(broken.out)
    losses = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("samples_per_s", "data_wait", "elapsed_s")}
            for line in (run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (whole, broken.out)
    ]
    assert losses[0] == losses[1]


def test_arms_differ_by_the_encoder_only(data: Path, tmp_path: Path) -> None:
    scratch = options("segment", data, tmp_path / "run")
    setup = set_up(scratch)
    task = build(setup)
    state = {k: v * 1.01 if v.is_floating_point() else v for k, v in export_state(task.encoder).items()}
    pretrained = tmp_path / "pretrained"
    pretrained.mkdir()
    save_file(state, pretrained / "encoder.safetensors")
    write_card(pretrained, setup)
    other = set_up(replace(scratch, init=str(pretrained)))
    assert other.config == setup.config
    assert other.subset == setup.subset
    loaded = build(other)
    for name, value in loaded.state_dict().items():
        expected = task.state_dict()[name]
        if name.startswith("encoder.") and value.is_floating_point():
            expected = expected * 1.01
        assert torch.equal(value, expected), name
    run = finetune.run(replace(scratch, init=str(pretrained), freeze=True, steps=2))
    assert result(run)["init"].startswith("pcrl, 10 steps, weights ")
    tested = load_file(run / "model.safetensors")
    assert all(torch.equal(tested[f"encoder.{k}"], v) for k, v in state.items())


def test_from_scratch_the_encoder_may_begin_where_a_pre_training_did(data: Path, tmp_path: Path) -> None:
    usual = options("segment", data, tmp_path / "run")
    first = build(set_up(replace(usual, model=replace(usual.model, seed=7))))
    own, given = build(set_up(usual)), build(set_up(replace(usual, encoder_seed=7)))
    for name, value in given.state_dict().items():
        expected = (first if name.startswith("encoder.") else own).state_dict()[name]
        assert torch.equal(value, expected), name
    same = build(set_up(replace(usual, encoder_seed=usual.model.seed)))
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in same.state_dict().items())


@pytest.mark.parametrize("held", [{"freeze": True}, {"head_first": 1.0}])
def test_from_scratch_nothing_is_held_still(data: Path, held: dict[str, Any], tmp_path: Path) -> None:
    """Arms share their options; an encoder that starts at random and may not learn would be no opponent."""
    scratch = options("classify", data, tmp_path / "run")
    assert set_up(replace(scratch, **held)).config == set_up(scratch).config


def write_card(folder: Path, setup: Any) -> None:
    names = to_table(ModelOptions()) | {"dims": 0, "channels": 0, "value_range": 0}
    encoder = {k: v for k, v in to_table(setup.config).items() if k in names}
    card = {"format": files.FORMAT, "encoder": encoder, "preprocessing": setup.store.plan.contract()}
    files.write_json(folder / "encoder.json", card | {"data_hash": "", "method": "pcrl", "steps": 10})


def test_nobody_to_validate_keeps_the_last_step(data: Path, tmp_path: Path) -> None:
    run = finetune.run(options("classify", data, tmp_path / "run", n_labels=4, steps=3))
    told = result(run)
    assert (told["n_val"], told["best_step"]) == (0, 3)


def test_several_columns_are_findings(data: Path, tmp_path: Path) -> None:
    run = finetune.run(options("classify", data, tmp_path / "run", target="lesion+effusion", steps=2))
    assert result(run)["classes"] == ["lesion", "effusion=left", "effusion=none", "effusion=right"]
    assert "truth.lesion" in pl.read_parquet(run / "predictions.parquet").columns


def test_chosen_structures_only(data: Path, tmp_path: Path) -> None:
    run = finetune.run(options("segment", data, tmp_path / "run", target="1+2", steps=2))
    assert result(run)["structures"] == ["1", "2"]


def test_only_the_second_half_of_the_schedule_competes(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    scores = iter([0.9, 0.8, 0.1, 0.3, 0.2, 0.3])
    monkeypatch.setattr(finetune, "validate", lambda *_: Score({}, next(scores), 0.0))
    run = finetune.run(options("segment", data, tmp_path / "run", validate_every=1))
    assert result(run)["best_step"] == 4


def test_memory_that_runs_out_becomes_advice(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    views = Segment.views

    def hungry(self: Segment, batch: Any, rng: Any) -> Any:
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return views(self, batch, rng)

    monkeypatch.setattr(Segment, "views", hungry)
    with pytest.raises(UserError, match=r"out of memory with --batch 4.*--batch 2 fits"):
        finetune.run(options("segment", data, tmp_path / "run"))
    assert not (tmp_path / "run" / "done.json").exists()


class Hungry:
    """Memory ends at ``most`` samples in training; the run dies at the ``dies``-th encode."""

    def __init__(self, kind: type, patched: pytest.MonkeyPatch, most: int = 2, dies: int = 0) -> None:
        self.sizes: list[int] = []
        real = kind.logits

        def logits(task: Any, images: torch.Tensor, present: Any = None) -> torch.Tensor:
            if task.training:
                self.sizes.append(len(images))
                if len(self.sizes) == dies:
                    raise ZeroDivisionError
                if len(images) > most:
                    task.encoder(images)  # it moves running statistics before memory ends
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return real(task, images, present)

        patched.setattr(kind, "logits", logits)


def learnt(run: Path) -> Any:
    clocks = ("samples_per_s", "data_wait", "elapsed_s")
    rows = [{k: v for k, v in row.items() if k not in clocks} for row in log.read(run)]
    return rows, result(run), (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", [Classify, Segment])
def test_memory_that_runs_out_makes_parts_said_aloud_recorded_and_kept(
    kind: type, data: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    name = kind.__name__.lower()
    given = options(name, data, tmp_path / "straight", loop=LoopOptions(
        batch=4, workers=0, log_every=1, save_every_steps=2, threads=1, precision="32", device="cpu"))  # fmt: skip
    with monkeypatch.context() as patched:
        hungry = Hungry(kind, patched)
        straight = finetune.run(given)
    assert hungry.sizes == [4] + 6 * [2, 2, 2, 2]  # two parts, each encoded twice
    said = capsys.readouterr().err
    assert (
        said.count("out of memory: the 4 samples of a step go in 2 parts of 2 from here on, encoded by gradient") == 1
    )
    assert "batch norm now averages over 2" in said
    assert [row.get("parts") for row in log.read(straight) if "lr" in row] == 6 * [2]
    broken = replace(given, out=tmp_path / "broken")
    with monkeypatch.context() as patched:
        Hungry(kind, patched, dies=1 + 4 * 4 + 3)  # in step 5, after the checkpoint of step 4
        with pytest.raises(ZeroDivisionError):
            finetune.run(broken)
    with monkeypatch.context() as patched:
        hungry = Hungry(kind, patched)
        finetune.run(broken)
    assert hungry.sizes == 2 * [2, 2, 2, 2]  # no attempt at the whole batch
    assert learnt(straight) == learnt(broken.out)


def test_where_parts_can_be_no_smaller_the_advice_names_another_patch(
    data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    Hungry(Segment, monkeypatch, most=1)
    with pytest.raises(UserError, match=r"out of memory with --batch 4 .*: not even 2 fit.*; try --batch 2 --patch 16"):
        finetune.run(options("segment", data, tmp_path / "run"))
