"""A fine-tuned network is shown scans: by `medssl predict`, and in Python by ``medssl.load_finetuned``."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import polars as pl
import pytest

import medssl
from medssl import files
from medssl.config import ModelOptions, replace
from medssl.data.phantom import MODALITIES
from medssl.data.readers import read_volume, reader_of
from medssl.data.store import Store
from medssl.errors import UserError
from medssl.stages import finetune, index, phantom, predict, prepare
from medssl.stages.options.data import Index, Phantom, Prepare
from medssl.stages.options.train import Finetune, LoopOptions, Predict

LOOP = LoopOptions(batch=4, workers=0, threads=1, precision="32", device="cpu")


def prepared(folder: Path, dims: int, size: int = 32, **how: Any) -> Path:
    kinds = MODALITIES[dims][:1]
    phantom.run(Phantom(out=folder / "scans", patients=12, dims=dims, size=size, seed=1, modalities=kinds, **how))
    index.run(Index(scans=folder / "scans", out=folder / "data", fractions=(0.5, 0.2, 0.3), workers=1))
    return prepare.run(Prepare(data=folder / "data", workers=1))


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp(f"phantom{request.param}"), request.param)


def classifying(data: Path) -> Finetune:
    out, model = data.parent / "classifier", ModelOptions(width=8)
    return Finetune(task="classify", data=data, out=out, target="lesion", steps=6, model=model, loop=LOOP)


@pytest.fixture(scope="module")
def classifier(data: Path) -> Path:
    return finetune.run(classifying(data))


@pytest.fixture(scope="module")
def segmenter(data: Path) -> Path:
    model = ModelOptions(width=8, patch=(32,) * Store(data).plan.dims)
    given = Finetune(task="segment", data=data, out=data.parent / "segmenter", steps=30, model=model, loop=LOOP)
    return finetune.run(replace(given, predictions=True))


def asked(run: Path, data: Path, out: Path, **changes: Any) -> Predict:
    return Predict(**{"run": run, "data": data, "out": out, "device": "cpu", "precision": "32", "threads": 1} | changes)


def scan_of(data: Path, row: dict[str, Any]) -> Path:
    return Path(files.read_toml(data / "index.toml")["scans"]) / row["path"]


def mask_of(path: Path) -> np.ndarray:
    return read_volume({"reader": reader_of(path.name), "files": [path.name], "member": 0}, path.parent).array


def test_a_classifier_says_what_it_said_when_it_was_tested(data: Path, classifier: Path, tmp_path: Path) -> None:
    out = predict.run(asked(classifier, data, tmp_path / "out"))
    found = pl.read_csv(out / "predictions.csv")
    assert found["item"].to_list() == Store(data).items["item"].to_list()
    tested = pl.read_parquet(classifier / "predictions.parquet")
    both = tested.join(found, on="item", suffix=".now")
    assert len(both) == len(tested) and set(both["split"]) == {"test"}
    np.testing.assert_allclose(both["prob.yes"], both["prob.yes.now"], atol=2e-6)

    model, row = medssl.load_finetuned(classifier), found.row(0, named=True)
    assert isinstance(model, medssl.Classifier)
    said = model(scan_of(data, row))
    assert said == pytest.approx({"no": row["prob.no"], "yes": row["prob.yes"]}, abs=1e-5)


def test_a_segmenters_masks_lie_on_the_scans_and_their_sizes_are_told(
    data: Path, segmenter: Path, tmp_path: Path
) -> None:
    out = predict.run(asked(segmenter, data, tmp_path / "out", split="test"))
    found, unit = pl.read_csv(out / "predictions.csv"), "pixels" if Store(data).plan.dims == 2 else "ml"
    assert set(found["split"]) == {"test"} and len(found)
    rows = found.to_dicts()
    assert any(row[f"{unit}.1"] for row in rows), "a network that marks nothing would pass any test"
    for row in rows:
        mask = mask_of(out / row["mask"])
        np.testing.assert_array_equal(mask, mask_of(segmenter / "predictions" / Path(row["mask"]).name))
        volume = medssl.load_finetuned(segmenter)(scan_of(data, row))
        np.testing.assert_array_equal(mask, volume.array)
        voxel = 1 if unit == "pixels" else np.prod(volume.spacing_mm) / 1000
        assert row[f"{unit}.1"] == pytest.approx((mask == 1).sum() * voxel, abs=1e-6)


def test_the_same_command_goes_on_where_it_was(data: Path, segmenter: Path, tmp_path: Path) -> None:
    command = asked(segmenter, data, tmp_path / "out", split="test")
    whole = (predict.run(command) / "predictions.csv").read_bytes()
    masks = sorted((command.out / "masks").iterdir())
    before = {path: path.stat().st_mtime_ns for path in masks}
    masks[0].unlink()
    (command.out / "predictions.csv").unlink()
    predict.run(command)
    assert (command.out / "predictions.csv").read_bytes() == whole
    assert [path for path in masks if path.stat().st_mtime_ns != before[path]] == masks[:1]


def test_a_folder_holds_what_one_network_said_of_one_split(
    data: Path, classifier: Path, segmenter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = predict.run(asked(classifier, data, tmp_path / "out", split="test")) / "predictions.csv"
    before = table.read_bytes()
    for other in (
        asked(segmenter, data, tmp_path / "out"),
        asked(classifier, data, tmp_path / "out", precision="bf16"),
    ):
        with pytest.raises(UserError, match=r"predictions by other (network|precision)"):
            predict.run(other)
    assert table.read_bytes() == before
    monkeypatch.setattr(predict, "probabilities", lambda *_: exec("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        predict.run(asked(classifier, data, tmp_path / "out", split="all"))
    assert not table.exists(), "half of what is asked for looks like all of it"


def test_masks_of_a_scan_that_has_moved_are_not_kept(segmenter: Path, tmp_path: Path) -> None:
    if files.read_json(segmenter / "model.json")["preprocessing"]["dims"] == 2:
        pytest.skip("pictures lie nowhere")
    data = prepared(tmp_path, 3)
    command = asked(segmenter, data, tmp_path / "out", split="test")
    row = pl.read_csv(predict.run(command) / "predictions.csv").row(0, named=True)
    scan = nib.load(scan_of(data, row))
    moved = nib.Nifti1Image(np.asarray(scan.dataobj), scan.affine, scan.header)
    moved.affine[2, 3] += 5
    moved.to_filename(scan_of(data, row))
    index.run(Index(scans=tmp_path / "scans", out=data, fractions=(0.5, 0.2, 0.3), workers=1))
    prepare.run(Prepare(data=data, workers=1))
    with pytest.raises(UserError, match="predictions by other scans"):
        predict.run(command)
    anew = pl.read_csv(predict.run(replace(command, out=tmp_path / "anew")) / "predictions.csv").row(0, named=True)
    assert nib.load(tmp_path / "anew" / anew["mask"]).affine[2, 3] == pytest.approx(scan.affine[2, 3] + 5)


def test_a_run_that_an_older_medssl_finished_gets_its_card(data: Path, classifier: Path, tmp_path: Path) -> None:
    card = (classifier / "model.json").read_bytes()
    (classifier / "model.json").unlink()
    with pytest.raises(UserError, match="an older medssl wrote none: run the same `medssl finetune` again"):
        predict.run(asked(classifier, data, tmp_path / "out"))
    finetune.run(classifying(data))
    assert (classifier / "model.json").read_bytes() == card


def test_the_card_names_no_one_and_no_place(data: Path, segmenter: Path) -> None:
    text = (segmenter / "model.json").read_text()
    items = Store(data).items
    assert not any(word in text for column in ("item", "patient", "path") for word in items[column].to_list())
    card = json.loads(text)
    assert card["tested"]["n_test"] == items.filter(pl.col("split") == "test")["patient"].n_unique()


def test_scans_that_were_prepared_otherwise_are_refused(data: Path, classifier: Path, tmp_path: Path) -> None:
    dims = Store(data).plan.dims
    other = prepared(tmp_path, dims, size=48)
    if dims == 3:
        prepare.run(Prepare(data=other, workers=1, spacing_mm=(3.0,)))
    lacking = "size" if dims == 2 else "spacing_mm"
    with pytest.raises(UserError, match=f"the network expects other preprocessing: {lacking} is"):
        predict.run(asked(classifier, other, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    (other / "plan.toml").write_bytes((data / "plan.toml").read_bytes())  # as the article tells
    prepare.run(Prepare(data=other, workers=1))
    predict.run(asked(classifier, other, tmp_path / "out"))
    assert len(pl.read_csv(tmp_path / "out" / "predictions.csv")) == len(Store(other))
