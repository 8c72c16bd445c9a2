"""A report that cannot be made costs nothing but itself; a file that it reads and that is damaged is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medssl import files
from medssl.cli import main
from medssl.errors import UserError
from medssl.loading import load
from medssl.stages import pretrain, study

TINY = ["--steps", "2", "--batch", "4", "--width", "4", "--workers", "0", "--precision", "32", "--device", "cpu"]


def study_command(out: Path) -> list[str]:
    words = ["study", "--config", str(out.parent / "recipe.toml"), "--out", str(out), "--task", "classify"]
    return [*words, "--seeds", "2", "--n-labels", "4", "--width", "4", "--batch", "4", "--device", "cpu"]


@pytest.fixture(scope="module")
def studied(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small study: recipe.toml and study/."""
    folder = tmp_path_factory.mktemp("studied")
    quick = {"steps": 2, "workers": 0, "patch": [32, 32], "precision": "32"}
    recipe = {"data": str(pictures), "target": "size", "pretrain": quick, "finetune": quick}
    files.write_toml(folder / "recipe.toml", recipe)
    assert main(study_command(folder / "study")) == 0
    return folder


@pytest.fixture
def tiny_study(studied: Path, tmp_path: Path) -> Path:
    return shutil.copytree(studied, tmp_path / "copied") / "study"


def fails(*arguments: object) -> None:
    raise ZeroDivisionError("division by zero")


# A report that fails -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["write_samples", "write_embedding", "write_run_report"])
def test_a_failing_report_leaves_a_finished_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(pretrain, part, fails)
    assert main(["pretrain", "pcrl", "--data", str(pictures), "--out", str(run), *TINY]) == 0
    told = capsys.readouterr().err
    assert "warning: the report could not be made: ZeroDivisionError: division by zero" in told
    assert f"`medssl report {run}` tries again" in told
    assert "Traceback" not in told
    assert "in fails" in (run / "report-error.txt").read_text()
    assert files.read_json(run / "done.json")["finished"]
    assert load(run).config.width == 4
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").exists()


def test_a_disk_that_fills_up_below_the_report_is_one_sentence(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise UserError("the disk is full", "report.html", "free some space")

    monkeypatch.setattr(pretrain, "write_run_report", full)
    assert main(["pretrain", "pcrl", "--data", str(pictures), "--out", str(tmp_path / "run"), *TINY]) == 0
    assert "could not be made: the disk is full (report.html): free some space;" in capsys.readouterr().err
    assert not (tmp_path / "run" / "report-error.txt").exists()


def test_a_failing_report_of_a_study_leaves_its_verdict(
    tiny_study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study, "write_study_report", fails)
    assert main(study_command(tiny_study)) == 0
    said = capsys.readouterr()
    assert said.out.strip().endswith(files.read_json(tiny_study / "verdict.json")["sentence"])
    assert f"`medssl report {tiny_study}` tries again" in said.err


# Files that are damaged ----------------------------------------------------------------------------------------------

RUN = "runs/pcrl-n4-s0"
Change = Callable[[Any], object]
BROKEN = [
    (name, content)
    for name in ("verdict.json", "data.json", "study.toml", "results.jsonl")
    for content in (b"[]\n", b"\xff\xfe\x00", b'{"a": 1}\n', b"{", b"a = 1\n")
]


@pytest.mark.parametrize(("name", "content"), BROKEN)
def test_a_file_of_a_study_that_holds_something_else(
    tiny_study: Path, refused: Callable[..., str], name: str, content: bytes
) -> None:
    (tiny_study / name).write_bytes(content)
    told = refused("report", tiny_study)
    assert name in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("verdict.json", ["labels"], []),
        ("verdict.json", ["labels", 0, "arms", "pcrl", "mean"], "high"),
        ("verdict.json", ["labels", 0, "scores", "pcrl"], None),
        ("verdict.json", ["labels", 0, "comparisons", 0, "arm"], "another"),
        ("verdict.json", ["labels", 0, "comparisons", 0, "verdict"], "maybe"),
        ("verdict.json", ["metric"], "accuracy"),
        ("data.json", ["splits", "test"], 3),
        ("data.json", ["checks", 0, "ok"], "yes"),
        (f"{RUN}/result.json", ["metrics"], []),
        ("pretrain/pcrl/encoder.json", ["preprocessing"], "none"),
    ],
)
def test_a_value_of_another_type(
    tiny_study: Path, refused: Callable[..., str], name: str, place: list, value: Any
) -> None:
    whole = inner = json.loads((tiny_study / name).read_text())
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    files.write_json(tiny_study / name, whole)
    told = refused("report", tiny_study if "runs" not in name else tiny_study / RUN)
    assert f"{Path(name).name} is damaged" in told
    assert told.count("\n") == 1
    if "verdict" not in name or place[-1] in ("mean", "metric"):
        assert str(place[-1]) in told


def test_predictions_that_are_damaged(tiny_study: Path, refused: Callable[..., str]) -> None:
    (tiny_study / "predictions.parquet").write_bytes(b"PAR1 no longer")
    told = refused("report", tiny_study)
    assert "predictions.parquet is damaged" in told and "`medssl study` command again" in told
    (tiny_study / RUN / "predictions.parquet").write_bytes(b"PAR1 no longer")
    told = refused(*study_command(tiny_study))
    assert "predictions.parquet is damaged" in told and "delete the folder of this run" in told


@pytest.mark.parametrize("name", ["samples.npz", "embedding.npz"])
@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:200], lambda raw: b"", lambda raw: raw[:60] + b"\0" * 99 + raw[159:]]
)
def test_pictures_that_are_damaged_are_left_out(
    tiny_study: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[bytes], bytes]
) -> None:
    path = tiny_study / "pretrain" / "pcrl" / name
    path.write_bytes(damage(path.read_bytes()))
    capsys.readouterr()
    assert main(["report", str(path.parent)]) == 0
    told = capsys.readouterr().err
    assert told == f"warning: {path} is damaged and left out of the report: copy it again, or delete it\n"


@pytest.mark.parametrize(
    "tail", [b'{"step": "two"}\n', b"\xff\n", b"3\n", b'{"step": 2, "lr": "fast", "probe.linear": "x"}\n']
)
def test_a_broken_row_of_the_metrics_ends_the_curves(tiny_study: Path, tail: bytes) -> None:
    path = tiny_study / "pretrain" / "pcrl" / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + tail)
    assert main(["report", str(path.parent)]) == 0
    path.write_bytes(tail)
    assert main(["report", str(path.parent)]) == 0


@pytest.mark.parametrize("content", [b"format = 1\ndata = 3\n", b"format = [", b'format = 1\nversions = "new"\n'])
def test_a_record_of_a_run_that_is_damaged(tiny_study: Path, refused: Callable[..., str], content: bytes) -> None:
    (tiny_study / RUN / "run.toml").write_bytes(content)
    assert "run.toml" in refused("report", tiny_study / RUN)


def test_a_study_goes_on_only_from_records_that_are_whole(tiny_study: Path, refused: Callable[..., str]) -> None:
    files.write_toml(tiny_study / "study.toml", {"format": 1, "options": {"seeds": 2}})
    assert "study.toml is damaged: 'finetune' is missing" in refused(*study_command(tiny_study))
    (tiny_study / "study.toml").unlink()
    (tiny_study / RUN / "result.json").write_text("{}")
    told = refused(*study_command(tiny_study))
    assert "result.json is damaged" in told
    assert "delete the folder of this run and give the same command again" in told
    shutil.rmtree(tiny_study / RUN)
    assert main(study_command(tiny_study)) == 0
