"""Folders that a disk, a person or another version changed: one sentence, exit code 2, never a traceback."""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch

from medssl import files
from medssl.cli import main
from medssl.data.store import Store
from medssl.errors import UserError
from medssl.loading import load
from medssl.stages import index, phantom, prepare
from medssl.stages.options.data import Index, Phantom, Prepare

TINY = ["--steps", "2", "--batch", "4", "--width", "4", "--workers", "0", "--precision", "32", "--device", "cpu"]


@pytest.fixture
def data(pictures: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pictures, tmp_path / "data")


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(("old", "new"), [("scans = ", "scons = "), ('scans = "', 'scans = 3 # "')])
def test_an_index_that_names_no_scans(data: Path, refused: Callable[..., str], old: str, new: str) -> None:
    replaced(data / "index.toml", old, new)
    assert "no key scans" in refused("prepare", data)


def test_an_index_with_other_columns(data: Path, refused: Callable[..., str]) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(data / "index.parquet")
    assert "another version" in refused("prepare", data)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("crop = false", 'crop = "no"', "give true or false"),
        ("value_range = [0.0, 1.0]", "value_range = [nan, 1.0]", "value_range"),
        ("high = 99.5", "high = nan", "not below"),
        ("channels = 1", "channels = true", "give a whole number"),
    ],
)
def test_a_plan_edited_wrongly(data: Path, refused: Callable[..., str], old: str, new: str, told: str) -> None:
    replaced(data / "plan.toml", old, new)
    assert told in refused("prepare", data)


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(b"x" * 999), lambda p: p.write_bytes(p.read_bytes()[:99])])
def test_a_stored_scan_that_changed_on_the_disk(
    data: Path, tmp_path: Path, refused: Callable[..., str], damage: Callable[[Path], object]
) -> None:
    train = next(row for row, side in enumerate(Store(data).items["split"]) if side == "train")
    path = data / "store" / f"{Store(data).names[train].decode()}.b2nd"
    damage(path)
    for workers in ("0", "1"):
        told = refused(
            "pretrain", "pcrl", "--data", data, "--out", tmp_path / workers, *TINY, "--workers", workers, begun=True
        )
        assert "the prepared scan is damaged" in told
        assert path.stem in told
    prepare.run(Prepare(data=data, workers=1))
    assert Store(data).read(train).size


def test_a_mask_that_is_gone_is_prepared_again(tmp_path: Path) -> None:
    phantom.run(Phantom(out=tmp_path / "scans", patients=3, dims=2, size=32))
    index.run(Index(scans=tmp_path / "scans", out=tmp_path / "data", workers=1))
    prepare.run(Prepare(data=tmp_path / "data", workers=1))
    store = Store(tmp_path / "data")
    before = store.read_mask(0)
    (tmp_path / "data" / "store" / f"{store.names[0].decode()}.mask.b2nd").unlink()
    prepare.run(Prepare(data=tmp_path / "data", workers=1))
    assert (Store(tmp_path / "data").read_mask(0) == before).all()


def test_the_other_kind_of_scan_is_told_to_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dims, patients in ((2, 2), (3, 4)):
        phantom.run(Phantom(out=tmp_path / "scans" / str(dims), patients=patients, dims=dims, size=32))
    index.run(Index(scans=tmp_path / "scans", out=tmp_path / "data", workers=1))
    images = pl.read_parquet(tmp_path / "data" / "index.parquet").filter(pl.col("dims") == 2).height
    capsys.readouterr()
    prepare.run(Prepare(data=tmp_path / "data", dims=3, plan_only=True))
    assert f"left out: {images} images; `--dims 2`" in capsys.readouterr().out


# RUN ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main(["pretrain", "pcrl", "--data", str(pictures), "--out", str(out), *TINY]) == 0
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run that was ended before it said that it had finished."""
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "done.json").unlink()
    return folder


@pytest.mark.parametrize("key", ["step", "model", "optimizer", "precision", "extra"])
def test_a_checkpoint_without_one_of_its_parts(
    pictures: Path, run: Path, refused: Callable[..., str], key: str
) -> None:
    path = run / "checkpoint" / "state.pt"
    state = torch.load(path, weights_only=True)
    del state[key]
    torch.save(state, path)
    assert "the checkpoint is damaged" in refused("pretrain", "pcrl", "--data", pictures, "--out", run, *TINY)


def test_a_checkpoint_that_is_no_table(pictures: Path, run: Path, refused: Callable[..., str]) -> None:
    torch.save([1], run / "checkpoint" / "state.pt")
    assert "not a table" in refused("pretrain", "pcrl", "--data", pictures, "--out", run, *TINY)


def test_a_machine_written_wrongly(pictures: Path, run: Path, refused: Callable[..., str]) -> None:
    record = files.read_toml(run / "run.toml")
    record["machine"]["threads"] = "many"
    files.write_toml(run / "run.toml", record)
    assert "threads is 'many'" in refused("pretrain", "pcrl", "--data", pictures, "--out", run, *TINY)


@pytest.mark.parametrize("key", ["encoder", "preprocessing"])
def test_an_encoder_card_without_one_of_its_parts(run: Path, key: str) -> None:
    card = files.read_json(run / "encoder.json")
    files.write_json(run / "encoder.json", {k: v for k, v in card.items() if k != key})
    with pytest.raises(UserError, match=f"no {key} in it"):
        load(run)


def test_an_encoder_card_of_other_types(run: Path) -> None:
    card = files.read_json(run / "encoder.json")
    files.write_json(run / "encoder.json", card | {"encoder": card["encoder"] | {"width": "four"}})
    with pytest.raises(UserError, match=r"width is 'four'.*give a whole number"):
        load(run)
    files.write_text(run / "encoder.json", "[]")
    with pytest.raises(UserError, match="not a table"):
        load(run)
