"""What a fine-tuning that is given again keeps of the first command, and what it refuses to mix."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from medssl.config import ModelOptions
from medssl.engine import log, record
from medssl.errors import UserError
from medssl.stages import finetune
from medssl.stages.options.train import Finetune, LoopOptions
from scans import prepared_pictures, reindexed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_pictures(tmp_path_factory.mktemp("tuned"))


def options(data: Path, out: Path, **loop: object) -> Finetune:
    usual: dict = {"batch": 2, "workers": 0, "log_every": 1, "device": "cpu", "threads": 1, "precision": "32"}
    model = ModelOptions(width=4, patch=(32, 32))
    return Finetune(task="classify", data=data, out=out, steps=2, model=model, loop=LoopOptions(**usual | loop))


def killed(given: Finetune, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its first step."""
    real = log.Metrics.write

    def write(self: log.Metrics, row: dict) -> None:
        if row["step"] > 1:
            raise ZeroDivisionError
        real(self, row)

    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(log.Metrics, "write", write)
        finetune.run(given)


def test_a_corrected_first_command_is_what_runs(data, tmp_path, monkeypatch):
    killed(options(data, tmp_path / "run", precision="bf16"), monkeypatch)
    run = finetune.run(options(data, tmp_path / "run", precision="32"))
    told = record.stored(run)
    assert told["loop"]["precision"] == told["machine"]["precision"] == "32"


def test_other_labels_or_another_split_are_not_mixed_into_a_run(data, tmp_path, monkeypatch):
    given = options(data, tmp_path / "run", save_every_steps=1)
    killed(given, monkeypatch)
    assert record.learnt(given.out)
    for column in ("label.size", "split"):
        turned = pl.col(column).reverse()
        other = reindexed(data, tmp_path / column, lambda frame, turned=turned: frame.with_columns(turned))
        with pytest.raises(UserError, match=r"other options: .*data subset: "):
            finetune.run(replace(given, data=other))
    assert finetune.run(given) == given.out
