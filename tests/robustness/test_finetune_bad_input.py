"""Whatever is wrong with a fine-tuning is told in one sentence, exit code 2, before anything is trained."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import save_file

from medssl import files
from medssl.cli import main
from medssl.config import ModelConfig, to_table
from medssl.data.store import Store
from medssl.networks.pyramid import build_encoder
from medssl.networks.weights import export_state
from medssl.stages import index, phantom, prepare
from medssl.stages.options.data import Index, Phantom, Prepare
from scans import reindexed

QUICK = ["--steps", "1", "--batch", "2", "--width", "4", "--precision", "32", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    phantom.run(Phantom(out=folder / "scans", patients=14, dims=2, size=32))
    index.run(Index(scans=folder / "scans", out=folder / "data", fractions=(0.5, 0.2, 0.3), workers=1))
    return prepare.run(Prepare(data=folder / "data", workers=1))


@pytest.fixture
def refused(refused: Callable[..., str], tmp_path: Path) -> Callable[..., str]:
    """Run the command; it must be refused and leave nothing that looks like a result."""

    def run(task: str, *arguments: str) -> str:
        told = refused("finetune", task, *QUICK, "--out", tmp_path / "out", *arguments)
        assert not (tmp_path / "out" / "result.json").exists()
        return told

    return run


def changed(data: Path, folder: Path, column: pl.Expr) -> Path:
    """The same folder with another column in its index."""
    return reindexed(data, folder, lambda frame: frame.with_columns(column))


def encoder(data: Path, folder: Path, **changes: object) -> Path:
    """A finished pre-training of a small ResNet under the plan of ``data``."""
    plan = Store(data).plan
    given: dict = {"width": 4, "patch": (32, 32), "dims": 2, "channels": plan.channels} | changes
    config = ModelConfig(**given)
    folder.mkdir(parents=True)
    save_file(export_state(build_encoder(config)), folder / "encoder.safetensors")
    card = {"format": files.FORMAT, "encoder": to_table(config), "preprocessing": plan.contract()}
    files.write_json(folder / "encoder.json", card)
    return folder


def test_no_data_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "medssl prepare" in refused("classify", "--data", str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("classify", "--target", "leison"), "did you mean 'lesion'"),
        (("classify",), "choose one of"),
        (("classify", "--target", "lesion", "--n-labels", "99"), "99 asked for"),
        (("classify", "--target", "lesion", "--n-labels", "1"), "all training patients are of one class"),
        (("classify", "--target", "lesion", "--n-labels", "0"), "give 1 or more"),
        (("segment", "--target", "9"), "no mask holds '9'"),
        (("segment", "--target", "lung"), "no mask holds 'lung'"),
        (("segment", "--patch", "30", "30"), "patch (30, 30)"),
        (("segment", "--patch", "32", "32", "32"), "patch (32, 32, 32)"),
        (("segment", "--patch", "-32", "32"), "patch (-32, 32) holds a side below 1"),
        (("segment", "--patch", "3200", "3200"), "--patch 3200×3200 is more than 8 times the median scan, "),
        (("classify", "--target", "lesion", "--patch", "3200", "3200"), "times the median scan"),
        (("classify", "--target", "lesion", "--patch", "0", "32"), "patch (0, 32) holds a side below 1"),
        (("classify", "--target", "lesion", "--patch", "7", "7", "--encoder", "poolunet"), "16×16 always fits"),
        (("classify", "--target", "lesion", "--patch", "32", "32", "--norm", "instance"), "64×64 always fits"),
        (("classify", "--target", "lesion+lesion"), "names a column twice"),
        (("segment", "--target", "1+1"), "names a mask value twice"),
        (("segment", "--target", "1+01"), "names a mask value twice"),
        (("segment", "--encoder", "resnet19"), "resnet19"),
        (("segment", "--foreground", "2"), "give 0 to 1"),
        (("segment", "--init", "nowhere"), "no such encoder"),
        (("segment", "--validate-every", "0"), "--validate-every"),
        (("segment", "--device", "tpu"), "tpu"),
        (("segment", "--modalities", "CR", "CR"), "named twice"),
        (("segment", "--modalities", "CR", "--test-modalities", "PET"), "no scan of modality 'PET'"),
        (("segment", "--test-modalities", "CR"), "name by --modalities the one to learn from"),
        (("segment", "--modalities", "CR", "PET"), "no scan of modality 'PET'"),
        (("segment", "--modality-dropout", "1"), "--modality-dropout"),
    ],
)
def test_impossible_wishes(refused: Callable[..., str], data: Path, arguments: tuple[str, ...], told: str) -> None:
    assert told in refused(arguments[0], "--data", str(data), *arguments[1:])


def test_a_classifier_takes_a_patch_that_the_strides_do_not_divide(data: Path, tmp_path: Path) -> None:
    words = ["finetune", "classify", "--data", str(data), "--target", "lesion", *QUICK, "--out", str(tmp_path / "run")]
    assert main([*words, "--patch", "33", "33"]) == 0


def test_one_class_only(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    other = changed(data, tmp_path / "data", pl.lit("yes").alias("label.lesion"))
    assert "all labels of 'lesion' are 'yes'" in refused("classify", "--data", str(other), "--target", "lesion")


def test_one_class_among_test_patients(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    column = pl.when(pl.col("split") == "test").then(pl.lit("no")).otherwise(pl.col("label.lesion"))
    other = changed(data, tmp_path / "data", column.alias("label.lesion"))
    assert "all test patients are of one class" in refused("classify", "--data", str(other), "--target", "lesion")


def test_no_test_patients(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    other = changed(data, tmp_path / "data", pl.lit("train").alias("split"))
    assert "no labelled test patients" in refused("segment", "--data", str(other))


def test_no_masks(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    other = changed(data, tmp_path / "data", pl.lit("train").alias("split"))
    (other / "prepared.parquet").unlink()
    pl.read_parquet(data / "prepared.parquet").with_columns(has_mask=False).write_parquet(other / "prepared.parquet")
    assert "no item has a mask" in refused("segment", "--data", str(other))


def test_a_run_of_another_architecture(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    run = encoder(data, tmp_path / "run")
    assert "of encoder resnet18" in refused("segment", "--data", str(data), "--init", str(run), "--encoder", "resnet34")
    run = encoder(data, tmp_path / "run3", dims=3, patch=(32, 32, 32))
    assert "another shape" in refused("segment", "--data", str(data), "--init", str(run))


def test_an_encoder_of_other_preprocessing(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    run = encoder(data, tmp_path / "run")
    card = files.read_json(run / "encoder.json")
    card["preprocessing"]["size"] = 99
    files.write_json(run / "encoder.json", card)
    told = refused("segment", "--data", str(data), "--init", str(run))
    assert "size is" in told and "99 there" in told and "plan.toml" in told


@pytest.mark.parametrize("broken", ["encoder.json", "encoder.safetensors"])
def test_a_broken_encoder(refused: Callable[..., str], data: Path, tmp_path: Path, broken: str) -> None:
    run = encoder(data, tmp_path / "run")
    (run / broken).write_bytes(b"{ nonsense")
    assert broken in refused("segment", "--data", str(data), "--init", str(run))


def test_an_unfinished_pretraining(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.toml").write_text("")
    told = refused("segment", "--data", str(data), "--init", str(tmp_path / "run"))
    assert "no encoder.safetensors" in told
    assert "run the same `medssl pretrain` again to finish it" in told


def test_weights_without_their_card(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    run = encoder(data, tmp_path / "run")
    (run / "encoder.json").unlink()
    assert "encoder.json is missing" in refused("segment", "--data", str(data), "--init", str(run))


def test_a_card_of_another_version(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    run = encoder(data, tmp_path / "run")
    files.write_json(run / "encoder.json", files.read_json(run / "encoder.json") | {"format": 99})
    assert "format 99" in refused("segment", "--data", str(data), "--init", str(run))


def test_a_folder_of_something_else(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("mine")
    assert "thesis.doc" in refused("segment", "--data", str(data))


def test_a_folder_in_use(refused: Callable[..., str], data: Path, tmp_path: Path) -> None:
    with files.locked(tmp_path / "out", "RUN"):
        assert "in use by process" in refused("segment", "--data", str(data))
