"""Patients with CT and MR, from scans to a network that takes either: both tasks, each with its own encoders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from medssl.config import ModelOptions, replace
from medssl.data.several import FusedStore
from medssl.data.store import Store
from medssl.errors import UserError
from medssl.evaluate.cases import compare
from medssl.evaluate.metrics import segmentation
from medssl.networks.weights import export_state
from medssl.stages import finetune, index, phantom, predict, prepare
from medssl.stages.finetune_setup import build, set_up
from medssl.stages.options.data import Index, Phantom, Prepare
from medssl.stages.options.train import Finetune, LoopOptions, Predict
from scans import reindexed
from tower_files import equal, weights, write_run

BOTH = ("CT", "MR-T1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    phantom.run(Phantom(out=folder / "scans", patients=14, size=32, seed=1, modalities=BOTH, missing=0.2))
    index.run(Index(scans=folder / "scans", out=folder / "data", fractions=(0.5, 0.2, 0.3), workers=1))
    return prepare.run(Prepare(data=folder / "data", workers=1))


def options(task: Any, data: Path, out: Path, **changes: Any) -> Finetune:
    model = ModelOptions(width=4, patch=(32, 32, 32))
    loop = LoopOptions(batch=4, workers=0, log_every=2, threads=1, precision="32", device="cpu")
    target = "lesion" if task == "classify" else None
    given = Finetune(task=task, data=data, out=out, target=target, steps=2, modalities=BOTH, model=model, loop=loop)
    return replace(given, **changes)


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_the_result_tells_all_each_alone_and_each_left_out(data: Path, tmp_path: Path, task: str) -> None:
    run = finetune.run(options(task, data, tmp_path / "run", predictions=task == "segment"))
    told = json.loads((run / "result.json").read_text())
    several = told["modalities"]
    assert several["names"] == list(BOTH) and several["same"] and "tested_on" not in several
    assert set(several["alone"]) == set(several["left_out"]) == set(BOTH)
    assert several["alone"]["CT"] == several["left_out"]["MR-T1"]  # of two, one alone is the other left out
    store = set_up(options(task, data, tmp_path)).store
    tested = pl.read_parquet(run / "predictions.parquet")
    assert len(tested) == (store.items["split"] == "test").sum()
    there = store.present[[store.row(item) for item in tested["item"]]]  # type: ignore[attr-defined]
    assert 1 < there.all(1).sum() < len(tested), "some test patients lack a modality, or nothing is tested here"
    cases = [several["all"], *several["alone"].values(), *several["left_out"].values()]
    assert {case["n"] for case in cases} == {there.all(1).sum()}  # the same patients, whatever they are shown by
    assert {case["metrics"].keys() - told["metrics"].keys() == set() for case in cases} == {True}
    whole = tested.filter(pl.Series(there.all(1)))
    expected = compare({"": whole}, told["metric"])[""]
    assert {k: several["all"][k] for k in expected} == expected
    for case in cases[1:]:
        if case["value"] is not None:
            assert case["difference"] == pytest.approx(case["value"] - several["all"]["value"])
    one = reindexed(data, tmp_path / "one", lambda items: items.filter(pl.col("modality") == "CT"))
    with pytest.raises(UserError, match="the network takes CT and MR-T1, and no scan is of 'MR-T1'"):
        predict.run(Predict(run=run, data=one, out=tmp_path / "lacking"))
    learnt = load_file(run / "model.safetensors")
    assert {key.split(".")[2] for key in learnt if key.startswith("encoder.towers.")} == {"0", "1"}
    shown = predict.run(Predict(run=run, data=data, out=tmp_path / "shown", split="test", device="cpu", precision="32"))
    found = pl.read_csv(shown / "predictions.csv")
    assert found["item"].to_list() == tested["item"].to_list()
    if task == "segment":
        assert len(list((run / "predictions").iterdir())) == len(tested)
        for path in (run / "predictions").iterdir():
            assert path.read_bytes() == (shown / "masks" / path.name).read_bytes()
    else:
        np.testing.assert_allclose(found["prob.yes"], tested["prob.yes"], atol=2e-6)


def test_learnt_from_ct_and_tested_on_mr(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = options("segment", data, tmp_path / "run", modalities=("CT",), test_modalities=("MR-T1",), steps=30)
    run = finetune.run(given)
    told = json.loads((run / "result.json").read_text())["modalities"]
    assert told["names"] == ["CT"] and told["same"] and set(told) == {"names", "same", "all", "tested_on"}
    other = told["tested_on"]["MR-T1"]
    assert told["all"]["n"] == other["n"] > 1

    setup = set_up(given)
    task = build(setup)
    task.load_state_dict(load_file(run / "model.safetensors"), strict=False)
    task.eval()
    both = FusedStore(Store(data), BOTH)  # whose channels are CT and MR on the grid of the CT
    rows = [row for row in range(len(both)) if both.items["split"][row] == "test" and both.present[row].all()]
    for channel, case in enumerate((told["all"], other)):
        scores = []
        for row in rows:
            image = torch.from_numpy(both.normalised(row)[channel : channel + 1])
            found = task.predict(image, 0.0, torch.ones(1, dtype=torch.bool)).numpy()  # type: ignore[operator]
            scores.append(segmentation(found, both.read_mask(row), [1, 2, 3, 4], (1, 1, 1), surfaces=False)["dice"])
        value = compare({"": dice_table(both, rows, scores)}, "dice")[""]["value"]
        assert case["value"] == pytest.approx(value, abs=1e-6), channel
    assert told["all"]["value"] != other["value"]
    with pytest.raises(UserError, match="--test-modalities"):  # another question is another run
        finetune.run(replace(given, test_modalities=()))


def dice_table(store: Store, rows: list[int], scores: list[list[float]]) -> pl.DataFrame:
    values = np.array(scores)
    columns = {f"dice.{k}": values[:, k] for k in range(values.shape[1])}
    return store.items[rows].select("item", "patient").with_columns(**{k: pl.Series(v) for k, v in columns.items()})


def begins_with(data: Path, out: Path, init: str) -> list[dict[str, torch.Tensor]]:
    return [export_state(tower) for tower in build(set_up(options("segment", data, out, init=init))).encoder.towers]


def test_each_encoder_begins_with_that_of_its_modality(data: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "cmcl", data, ("MR-T1", "CT"))  # in another order than it is asked for
    ct, mr = (weights(run, name) for name in BOTH)
    assert not equal(ct, mr)
    first, second = begins_with(data, tmp_path, str(run))
    assert equal(first, ct) and equal(second, mr)
    first, second = begins_with(data, tmp_path, str(run / "encoder-CT.safetensors"))  # one file begins all
    assert equal(first, ct) and equal(second, ct)


def test_a_run_that_lacks_a_modality_is_refused(data: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "cmcl", data, ("CT", "MR-T2"))
    with pytest.raises(UserError, match=r"the run has no encoder of modality 'MR-T1'.*it has CT, MR-T2"):
        set_up(options("segment", data, tmp_path, init=str(run)))


def test_a_modality_that_no_labelled_patient_has_is_refused(data: Path, tmp_path: Path) -> None:
    rare = (pl.col("modality") == "MR-T1") & (pl.col("split") != "test")
    renamed = pl.when(rare).then(pl.lit("MR-T2")).otherwise(pl.col("modality")).alias("modality")
    other = reindexed(data, tmp_path / "other", lambda frame: frame.with_columns(renamed))
    with pytest.raises(UserError, match="no labelled training patient has a scan of modality 'MR-T1'"):
        set_up(options("segment", other, tmp_path))
