"""A run of several modalities: whatever takes an encoder from it takes that of the scans' modality."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file

import medssl
from medssl.config import ModelOptions, replace
from medssl.data.plan import Intensity
from medssl.data.store import Store
from medssl.errors import UserError
from medssl.loading import towers_of, weights_for
from medssl.networks.weights import export_state
from medssl.stages import embed
from medssl.stages.finetune_setup import build, set_up
from medssl.stages.options.train import Embed, Finetune
from scans import two_modalities
from tower_files import equal, weights, write_run

SIZES = ["small", "large"] * 12


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of CR and PT, a patient each."""
    return two_modalities(tmp_path_factory.mktemp("mixed"), ["CR", "PT", "PT", "CR"] * 6, size=SIZES)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of PT."""
    return two_modalities(tmp_path_factory.mktemp("alone"), ["PT"] * 24, size=SIZES)


@pytest.fixture(scope="module")
def run(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("cmcl") / "run", mixed, ("CR", "PT"))


def job(data: Path, init: Path, **changes: object) -> Finetune:
    model = ModelOptions(width=4, patch=(32, 32))
    given = Finetune(task="classify", data=data, out=Path("unused"), target="size", init=str(init), model=model)
    return replace(given, **changes)


def test_a_finetuning_begins_with_the_encoder_of_its_scans_modality(alone: Path, run: Path) -> None:
    assert equal(export_state(build(set_up(job(alone, run))).encoder), weights(run, "PT"))
    named = run / "encoder-CR.safetensors"  # a file that is named is meant
    assert equal(export_state(build(set_up(job(alone, named))).encoder), weights(run, "CR"))


def test_a_finetuning_of_several_through_one_encoder_says_which_it_begins_with(
    mixed: Path, run: Path, capsys: pytest.CaptureFixture
) -> None:
    task = build(set_up(job(mixed, run)))
    assert equal(export_state(task.encoder), weights(run, "CR"))
    assert "learns from CR, PT and begins with that of CR; --modalities gives each" in capsys.readouterr().err


def test_a_modality_without_an_encoder_is_refused(alone: Path, mixed: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "run", mixed, ("CR", "MR"))
    told = "the run has no encoder of modality 'PT'.*it has CR, MR; .* name its file"
    with pytest.raises(UserError, match=told):
        set_up(job(alone, other))
    with pytest.raises(UserError, match=told):
        embed.run(Embed(run=other, data=mixed, out=tmp_path / "out"))
    with pytest.raises(UserError, match=told):
        medssl.load(other, modality="PT")
    assert not (tmp_path / "out").exists()
    (other / "encoder-MR.safetensors").unlink()
    with pytest.raises(UserError, match="the file is missing"):
        weights_for(other, "MR")


def test_one_encoder_serves_all_modalities(mixed: Path, alone: Path, tmp_path: Path) -> None:
    shared = write_run(tmp_path / "shared", mixed, ("CR", "MR"), share="all")
    single = write_run(tmp_path / "single", mixed, ("CR",))
    for folder in (shared, single):
        assert towers_of(folder) == {} and weights_for(folder, "PT") == folder / "encoder.safetensors"
        assert equal(export_state(build(set_up(job(alone, folder))).encoder), weights(folder, "CR"))


def test_embed_sends_each_scan_through_its_modality_and_load_takes_one_of_them(
    mixed: Path, run: Path, tmp_path: Path
) -> None:
    found, each = {}, {}
    for name, init in (("all", run), ("CR", run / "encoder-CR.safetensors"), ("PT", run / "encoder-PT.safetensors")):
        out = embed.run(Embed(run=init, data=mixed, out=tmp_path / name, device="cpu"))
        found[name] = np.load(out / "features.npz")["features"]
        each[name] = pl.read_parquet(out / "features.parquet")["item"].to_list()
    store = Store(mixed)
    kinds = np.array([store.modality_names[code] for code in store.modalities])
    assert each["all"] == store.items["item"].to_list() and {"CR", "PT"} == set(kinds)
    for name in ("CR", "PT"):
        np.testing.assert_allclose(found["all"][kinds == name], found[name][kinds == name], rtol=1e-5)
        assert not np.allclose(found["all"][kinds != name], found[name][kinds != name])
        assert equal(export_state(medssl.load(run, modality=name).network), weights(run, name))
    assert equal(export_state(medssl.load(run).network), load_file(run / "encoder.safetensors"))


def test_an_encoder_of_one_modality_prepares_scans_that_name_none_as_that(mixed: Path, run: Path) -> None:
    encoder = medssl.load(run, modality="PT")
    rules = {name: Intensity(normalise="window", low=0, high=high) for name, high in (("CR", 100), ("PT", 200))}
    encoder.plan = replace(encoder.plan, modality=rules | encoder.plan.modality)
    image = np.random.default_rng(0).uniform(0, 200, (48, 48)).astype(np.float32)
    prepared, _ = encoder.prepared(image)
    expected, _ = encoder.prepared(image, modality="PT")
    np.testing.assert_array_equal(prepared, expected)
    assert not np.allclose(prepared, encoder.prepared(image, modality="CR")[0])
    with pytest.raises(UserError, match="names no modality"):
        medssl.loading.Encoder(encoder.network, encoder.config, encoder.plan).prepared(image)
