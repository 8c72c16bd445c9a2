"""Pre-training gives a method that compares modalities its batches by subject, with the reports as it reads them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from medssl import files, methods
from medssl.cli import main
from medssl.contract import Batch
from medssl.data.store import Store
from medssl.errors import UserError
from medssl.methods.pcrl import PCRL, PCRLConfig
from medssl.stages.paired import paired_data
from paired_scans import cohort, paired_store

SEEN: list[Batch] = []
TINY = "--steps 3 --batch 4 --patch 32 32 32 --width 4 --workers 0 --precision 32 --device cpu"


class Reader(PCRL):
    """PCRL that keeps what it is given."""

    paired = True

    def tokens(self, texts: Any) -> torch.Tensor:
        return torch.tensor([[len(text or ""), 0] for text in texts])

    def views(self, batch: Batch, rng: Any) -> Any:
        SEEN.append(batch)
        return super().views(batch, rng)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    texts = [None if i % 4 == 1 else "x" * (i + 1) for i in range(12)]
    visits = [str(i // 4) for i in range(12)]
    return paired_store(tmp_path / "data", cohort(), text=texts, **{"label.visit": visits})


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    SEEN.clear()
    monkeypatch.setitem(methods.METHODS, "reader", "test_paired:PCRLConfig:Reader")


def test_a_method_that_compares_gets_subjects_places_and_reports(store, reader, tmp_path, capsys) -> None:
    command = f"pretrain reader --data {store.data} --out {tmp_path / 'run'} {TINY}"
    assert main(command.split()) == 0
    assert "pairs: 6 of 6 subjects have scans of two or more modalities (CT, MR)" in capsys.readouterr().err
    assert len(SEEN) == 4  # three steps, and the pictures for the report
    lengths = torch.tensor([len(text or "") for text in store.items["text"]])
    for batch in SEEN:
        assert batch.place.shape == (len(batch), 4, 4) and len(batch.subject.unique()) < len(batch)
        assert torch.equal(batch.text[:, 0], lengths[batch.item])
    assert "pair_by" not in files.read_toml(tmp_path / "run" / "run.toml")["options"]


def test_the_column_that_pairs_is_kept_with_the_run(store, reader, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    command = f"pretrain reader --data {store.data} --out {run} --pair-by visit {TINY}"
    assert main(command.split()) == 0
    assert "pairs: 3 of 3 subjects" in capsys.readouterr().err
    assert files.read_toml(run / "run.toml")["options"]["pair_by"] == "visit"
    assert main(command.replace("visit", "patient").split()) == 2  # another run


def test_other_methods_look_at_each_scan_by_itself(store) -> None:
    method = PCRL(PCRLConfig(dims=3, width=4, patch=(32, 32, 32)))
    assert paired_data(method, store, range(12), None) is None
    with pytest.raises(UserError, match="--pair-by is for methods that compare"):
        paired_data(method, store, range(12), "patient")
