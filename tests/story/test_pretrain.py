"""From prepared scans to an encoder that a person can use, by the commands they would type."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import medssl
from medssl import files
from medssl.cli import main
from medssl.config import ModelConfig, ModelOptions
from medssl.data.store import Store
from medssl.engine import log
from medssl.errors import UserError
from medssl.stages import pretrain
from medssl.stages.configure import default_patch, model_config
from medssl.stages.monitor import Monitor
from medssl.stages.seen import read_seen
from medssl.volume import Volume
from scans import prepared_pictures, write_pictures


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return prepared_pictures(tmp_path_factory.mktemp("story"))


@pytest.fixture(scope="module")
def run(data) -> Path:
    out = data.parent / "run"
    words = f"pretrain pcrl --data {data} --out {out} --steps 12 --batch 4 --width 4 --patch 32 32 --log-every 4"
    words += " --workers 0 --threads 1 --device cpu --probe-every 4 --momentum 0.9"
    assert main(words.split()) == 0
    return out


# What a run leaves ---------------------------------------------------------------------------------------------------


def test_a_run_leaves_what_the_next_stage_needs(run):
    found = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert found == {
        "run.toml", "metrics.jsonl", "checkpoint", "encoder.safetensors", "encoder.json", "seen.txt",
        "samples.npz", "embedding.npz", "report.html", "done.json",
    }  # fmt: skip


def test_metrics_are_flat_rows_a_logged_step(run):
    rows = log.read(run)
    assert [row["step"] for row in rows] == [0, 4, 8, 12]
    for row in rows[1:]:
        terms = {"contrast", "rebuild_ordinary", "rebuild_momentum", "rebuild_hybrid"}
        assert {*terms, "lr", "samples_per_s", "data_wait", "norm.contrast"} <= set(row)
        assert {"effective_rank", "feature_std", "probe.knn", "probe.linear"} <= set(row)
        assert all(isinstance(value, (int, float)) for value in row.values())


def test_the_encoder_says_how_it_wants_its_images(run, data):
    card = files.read_json(run / "encoder.json")
    store = Store(data)
    assert card["preprocessing"] == store.plan.contract()
    assert card["data_hash"] == store.hash
    assert (card["method"], card["steps"], card["transductive"]) == ("pcrl", 12, False)
    assert card["encoder"]["encoder"] == "resnet18"
    assert card["encoder"]["patch"] == [32, 32]
    assert set(card["encoder"]) == set(vars(ModelConfig()))


def test_the_images_it_learnt_from_are_recorded(run, data):
    items = Store(data).items
    seen = (run / "seen.txt").read_text().splitlines()
    assert seen == sorted(set(items.filter(pl.col("split") == "train")["hash"]))
    assert read_seen(run) == set(seen)


def test_options_of_the_method_reach_it(run):
    assert files.read_toml(run / "run.toml")["model"]["momentum"] == 0.9


def test_what_leaves_the_house_holds_no_ids_and_no_paths(run, data):
    items = Store(data).items
    secrets = {str(data), data.parent.name, *items["item"], *items["patient"], *items["path"]}
    for name in ("encoder.json", "seen.txt", "run.toml", "report.html", "metrics.jsonl"):
        text = (run / name).read_text(encoding="utf-8")
        assert not [secret for secret in secrets if secret in text], name
    with np.load(run / "embedding.npz") as kept:
        assert set(kept.files) == {"features", "label", "split"}
        assert set(kept["split"]) == {"train"}
        assert set(kept["label"]) == {"small", "large"}


def test_the_weights_are_contiguous_tensors(run):
    assert all(value.is_contiguous() for value in load_file(run / "encoder.safetensors").values())


# Who is in the training set ------------------------------------------------------------------------------------------


def test_test_patients_are_left_out_unless_asked_for(data):
    store = Store(data)
    split = np.array(store.items["split"].to_list())
    assert set(split[pretrain.training_rows(store, transductive=False)]) == {"train"}
    assert set(split[pretrain.training_rows(store, transductive=True)]) == {"train", "test"}


def test_the_monitor_sees_training_patients_only(data):
    store = Store(data)
    monitor = Monitor(store, pretrain.training_rows(store, transductive=True), None, seed=0, patch=(32, 32), batch=4)
    assert set(store.items["split"][monitor.rows]) == {"train"}
    assert monitor.label == "size"


def test_a_label_that_is_not_there_is_refused_before_training(data, tmp_path, capsys):
    words = f"pretrain pcrl --data {data} --out {tmp_path / 'run'} --width 4 --patch 32 32 --probe-target sex"
    assert main(words.split()) == 2
    assert "no label column 'sex'" in capsys.readouterr().err


# Configuration -------------------------------------------------------------------------------------------------------


def test_the_plan_and_the_data_fill_in_the_rest(data):
    store = Store(data)
    config = model_config(medssl.PCRLConfig, ModelOptions(), store, 17, steps=100, batch=8, settings={"mix": True})
    assert (config.dims, config.channels, config.value_range) == (2, 1, (0.0, 1.0))
    assert config.patch == (32, 32)  # pictures of 48 pixels, and ResNet halves five times
    assert (config.queue, config.mix) == (17, True)


@pytest.mark.parametrize(
    ("dims", "shape", "patch"),
    [
        (2, (500, 400), (224, 224)),
        (2, (100, 300), (96, 96)),
        (3, (35, 51, 35), (32, 32, 32)),
        (3, (300,) * 3, (64, 64, 32)),
    ],
)
def test_the_default_patch_fits_the_scans(dims, shape, patch):
    assert default_patch(medssl.PCRLConfig(dims=dims), np.array([shape] * 3)) == patch


# Using the encoder ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(run):
    return medssl.load(run)


def test_a_file_gives_the_features_that_embed_writes(run, data, encoder, tmp_path):
    assert main(["embed", str(run), "--data", str(data), "--out", str(tmp_path / "out")]) == 0
    table = pl.read_parquet(tmp_path / "out" / "features.parquet")
    items = Store(data).items
    assert table["item"].to_list() == items["item"].to_list()
    assert {"item", "patient", "split", "label.size", "features"} == set(table.columns)
    with np.load(tmp_path / "out" / "features.npz") as kept:
        np.testing.assert_array_equal(kept["features"], table["features"].to_numpy())
    scan = data.parent / "scans" / items["path"][3]
    np.testing.assert_allclose(encoder(scan), table["features"].to_numpy()[3], rtol=1e-4, atol=1e-5)


def test_path_volume_and_array_are_the_same_scan(data, encoder):
    path = data.parent / "scans" / "00.png"
    array = np.asarray(Image.open(path))
    from_path = encoder(path)
    assert from_path.shape == (encoder.network.channels[-1],)
    for scan in (str(path), array, array[None], torch.from_numpy(array.copy()), Volume(array[None], np.eye(4), "OT")):
        torch.testing.assert_close(encoder(scan), from_path)


def test_maps_are_the_pyramid_of_the_whole_scan(data, encoder):
    maps = encoder.maps(data.parent / "scans" / "00.png")
    assert [tuple(m.shape[:2]) for m in maps] == [(1, c) for c in encoder.network.channels]
    assert tuple(maps[0].shape[2:]) == (32, 32)  # 48 pixels in 64, at stride 2


def test_weights_alone_are_enough_with_their_card(run, tmp_path, encoder, data):
    for name in ("encoder.safetensors", "encoder.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    scan = data.parent / "scans" / "01.png"
    torch.testing.assert_close(medssl.load(tmp_path / "encoder.safetensors")(scan), encoder(scan))


@pytest.mark.parametrize(
    ("scan", "told"),
    [
        (np.zeros((4, 5, 6, 7)), "the array has shape (4, 5, 6, 7): this network takes (H, W) or (C, H, W)"),
        (np.zeros((2, 40, 40)), "2 channels"),
        (7, "a scan cannot be a int"),
        (None, "a scan cannot be a NoneType"),
        ("nowhere.png", "no such file (nowhere.png)"),
    ],
)
def test_a_wrong_scan_is_answered_in_one_sentence(encoder, scan, told):
    with pytest.raises(UserError) as caught:
        encoder(scan)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_file_is_answered_in_one_sentence(encoder, tmp_path):
    (tmp_path / "scan.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match=r"scan\.png"):
        encoder(tmp_path / "scan.png")


def test_runs_that_cannot_be_loaded_say_why(run, tmp_path):
    with pytest.raises(UserError, match=r"no encoder\.safetensors.*give a run folder"):
        medssl.load(tmp_path)
    (tmp_path / "run.toml").write_text("format = 1")
    with pytest.raises(UserError, match="run the same `medssl pretrain` again"):
        medssl.load(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes((run / "encoder.safetensors").read_bytes()[:100])
    with pytest.raises(UserError, match=r"encoder\.json is missing"):
        medssl.load(tmp_path)
    (tmp_path / "encoder.json").write_bytes((run / "encoder.json").read_bytes())
    with pytest.raises(UserError, match="weights cannot be read"):
        medssl.load(tmp_path)
    card = files.read_json(run / "encoder.json")
    card["encoder"]["width"] = 8
    (tmp_path / "encoder.json").write_text(json.dumps(card))
    (tmp_path / "encoder.safetensors").write_bytes((run / "encoder.safetensors").read_bytes())
    with pytest.raises(UserError, match="another shape"):
        medssl.load(tmp_path)


def test_data_prepared_otherwise_is_refused(run, tmp_path):
    from medssl.stages import index, prepare
    from medssl.stages.options.data import Index, Prepare

    scans = write_pictures(tmp_path / "scans", count=8)
    other = index.run(Index(scans=scans, out=tmp_path / "data", modality="OT", workers=1))
    prepare.run(Prepare(data=other, size=32, workers=1))
    assert main(["embed", str(run), "--data", str(other), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
