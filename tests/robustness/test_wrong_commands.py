"""Numbers out of range, files where folders should be, a machine at its end: one sentence and exit code 2."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medssl.cli import main
from medssl.stages import phantom
from scan_files import index, noise, write_nifti

TINY = ["--steps", "2", "--batch", "4", "--width", "4", "--workers", "0", "--precision", "32", "--device", "cpu"]


WRONG = [
    ("steps", "-1"), ("batch", "-1"), ("batch", "100000000"),
    ("lr", "nan"), ("lr", "inf"), ("lr", "-1"), ("workers", "-1"),
    ("warmup", "2"), ("clip", "nan"), ("weight-decay", "-1"), ("log-every", "0"), ("save-every-steps", "-1"),
    ("save-every-minutes", "nan"), ("threads", "-1"), ("probe-every", "-1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_number_out_of_range(
    pictures: Path, tmp_path: Path, refused: Callable[..., str], name: str, value: str
) -> None:
    told = refused("pretrain", "pcrl", "--data", pictures, "--out", tmp_path / "run", *TINY, f"--{name}", value)
    assert f"--{name} is {float(value) if '.' in told.split(':')[1] else value}" in told
    assert "give " in told
    assert not (tmp_path / "run").exists()


def test_all_numbers_are_told_at_once(pictures: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    told = refused("pretrain", "pcrl", "--data", pictures, "--out", tmp_path, *TINY, "--steps", -2, "--lr", "nan")
    assert "--steps is -2" in told
    assert "--lr is nan" in told


def test_one_sample_of_one_position_cannot_be_normalised(
    pictures: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    told = refused(
        "pretrain", "pcrl", "--data", pictures, "--out", tmp_path / "run", *TINY, "--batch", 1, "--patch", 32, 32
    )
    assert "one sample of the smallest patch (--batch): give 2 or more" in told
    groups = ["--patch", 32, 32, "--batch-groups", 3]
    told = refused("pretrain", "pcrl", "--data", pictures, "--out", tmp_path / "groups", *TINY, *groups)
    assert "one sample of the smallest patch (--batch): give 6 or more" in told


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", "nan"), ("contrast-weight", "inf"), ("embed-dim", "0"), ("rebuild-weight", "inf")],
)
def test_a_wrong_option_of_the_method(
    pictures: Path, tmp_path: Path, refused: Callable[..., str], name: str, value: str
) -> None:
    told = refused("pretrain", "pcrl", "--data", pictures, "--out", tmp_path / "run", *TINY, f"--{name}", value)
    assert f"{name.replace('-', '_')} is {value}" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("patch", "told"),
    [((3200, 3200), "8 times the median scan"), ((-32, 32), "a side below 1"), ((33, 33), "choose (32, 32)")],
)
def test_a_patch_that_cannot_be(
    pictures: Path, tmp_path: Path, refused: Callable[..., str], patch: tuple[int, int], told: str
) -> None:
    said = refused("pretrain", "pcrl", "--data", pictures, "--out", tmp_path / "run", *TINY, "--patch", *patch)
    assert told in said


@pytest.mark.parametrize("out", ["a file", "a file/below"])
@pytest.mark.parametrize("verb", ["index", "pretrain", "phantom"])
def test_a_file_where_the_folder_should_be(
    pictures: Path, tmp_path: Path, refused: Callable[..., str], verb: str, out: str
) -> None:
    (tmp_path / "a file").write_text("kept")
    write_nifti(tmp_path / "scans" / "a.nii", noise(0, 9, 9, 9))
    place = tmp_path / out
    arguments = {
        "index": [tmp_path / "scans", "--out", place, "--workers", 1],
        "pretrain": ["pcrl", "--data", pictures, "--out", place, *TINY],
        "phantom": [place, "--patients", 1, "--dims", 2],
    }
    told = refused(verb, *arguments[verb])
    assert "a file is where a folder is to be" in told or "not a folder" in told
    assert (tmp_path / "a file").read_text() == "kept"


@pytest.mark.parametrize("verb", ["index", "pretrain", "finetune", "study", "embed", "predict"])
@pytest.mark.parametrize(
    "mark", ["index.toml", "run.toml", "study.toml", "features.parquet", "predict.json", "thesis.tex"]
)
def test_an_out_that_is_another_thing_is_left_as_it_is(
    trained_run: dict[str, Path], tmp_path: Path, refused: Callable[..., str], verb: str, mark: str
) -> None:
    marks = {"index": "index.toml", "study": "study.toml", "embed": "features.parquet", "predict": "predict.json"}
    if mark == marks.get(verb, "run.toml"):
        return
    scans, data, run, out = (*map(trained_run.get, ("SCANS", "DATA", "RUN")), tmp_path / "out")
    out.mkdir()
    (out / mark).write_text("mine")
    arguments = {
        "index": [scans, "--workers", 1],
        "pretrain": ["pcrl", "--data", data, *TINY],
        "finetune": ["segment", "--data", data, *TINY],
        "study": ["--data", data, "--target", "lesion", "--n-labels", 2, "--device", "cpu"],
        "embed": [run, "--data", data, "--device", "cpu"],
        "predict": [trained_run["TUNED"], "--data", data, "--device", "cpu"],
    }
    told = refused(verb, *arguments[verb], "--out", out)
    assert "the folder is a " in told or "the folder holds 'thesis.tex'" in told
    assert "choose another --out" in told
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(mark, "mine")]


def test_a_preview_cannot_replace_a_folder(pictures: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "--out is a folder" in refused("preview", pictures, "--out", tmp_path)
    assert "give 1 to 64" in refused("preview", pictures, "--rows", 1000)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (["--spacing-mm", "1", "1"], "none of these has one"),
        (["--window-hu", "0", "80"], "is for CT"),
        (["--mr", "zscore"], "is for MR"),
        (["--size", "0"], "size is 0"),
        (["--workers", "-1"], "--workers is -1"),
    ],
)
def test_a_preparation_that_cannot_be(
    pictures: Path, refused: Callable[..., str], option: list[str], told: str
) -> None:
    before = (pictures / "plan.toml").read_bytes()
    assert told in refused("prepare", pictures, *option)
    assert (pictures / "plan.toml").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (["--fractions", "nan", "nan", "nan"], "give three shares"),
        (["--workers", "-1"], "--workers is -1"),
        (["--stratify", "lesion"], "no label column 'lesion'"),
    ],
)
def test_an_index_that_cannot_be(tmp_path: Path, refused: Callable[..., str], option: list[str], told: str) -> None:
    write_nifti(tmp_path / "scans" / "a.nii", noise(0, 9, 9, 9))
    assert told in refused("index", tmp_path / "scans", "--out", tmp_path / "out", *option)
    assert not (tmp_path / "out" / "index.parquet").exists()


def test_an_empty_folder_leaves_nothing_behind(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "scans").mkdir()
    assert "no files" in refused("index", tmp_path / "scans", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_of_another_encoding_and_a_link_to_itself(tmp_path: Path) -> None:
    write_nifti(tmp_path / "scans" / "a.nii", noise(0, 9, 9, 9))
    (tmp_path / "scans" / b"caf\xe9.nii".decode(errors="surrogateescape")).write_bytes(b"")
    (tmp_path / "scans" / "self.nii").symlink_to("self.nii")
    frame, problems = index(tmp_path / "scans", tmp_path / "out")
    assert frame["path"].to_list() == ["a.nii"]
    assert problems["caf\\udce9.nii"] == "a name that is not UTF-8, so not read"
    assert "symbolic links" in problems["self.nii"]


def test_a_phantom_does_not_write_over_a_table(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "labels.csv").write_text("mine")
    assert "holds other files" in refused("phantom", tmp_path, "--patients", 1)
    assert (tmp_path / "labels.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (OSError(errno.EROFS, "x", "/here"), "the disk is read-only (/here)"),
        (OSError(errno.ENAMETOOLONG, "x", "/here"), "the path is too long (/here)"),
    ],
)
def test_a_machine_at_its_end(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, fault: Exception, told: str
) -> None:
    def fails(options: object) -> None:
        raise fault

    monkeypatch.setattr(phantom, "run", fails)
    assert told in refused("phantom", tmp_path)


@pytest.mark.parametrize("asked", ["phantom {} --patients 1", "--help", "study --help"])
def test_a_reader_that_went_away_is_not_taken_for_an_end(tmp_path: Path, asked: str) -> None:
    command = [sys.executable, "-m", "medssl", *asked.format(tmp_path / "scans").split()]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=own)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 141)


def test_a_fault_of_ours_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(options: object) -> None:
        raise RuntimeError("a mistake in the code")

    monkeypatch.setattr(phantom, "run", fails)
    with pytest.raises(RuntimeError, match="a mistake in the code"):
        main(["phantom", str(tmp_path)])


@pytest.mark.parametrize("order", [1, -1])
def test_an_arm_named_like_an_option_is_told_so(tmp_path: Path, refused: Callable[..., str], order: int) -> None:
    tables = ["[pretrain]\npatch = [64, 64]\n", "[pretrain.patch]\nlr = 0.1\n"]
    (tmp_path / "r.toml").write_text("".join(tables[::order]))
    told = refused("study", "--config", tmp_path / "r.toml", "--out", tmp_path / "study")
    assert "[pretrain.patch] and the key 'patch' of [pretrain] are one name" in told and "r.toml" in told
    assert "an arm cannot bear the name of an option" in told
    (tmp_path / "r.toml").write_text("[pretrain]\nlr = 1\nlr = 2\n")
    assert "not valid TOML" in refused("study", "--config", tmp_path / "r.toml", "--out", tmp_path / "study")
