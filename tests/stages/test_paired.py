"""Pre-training gives a method that compares modalities its batches by subject, with the reports as it reads them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medssl import files
from medssl.cli import main
from medssl.contract import Batch
from medssl.data.store import Store
from medssl.data.text import Tokenizer
from medssl.errors import UserError
from medssl.loading import card_of, find_weights, load, read_card
from medssl.methods.cmcl import CMCL
from medssl.methods.pcrl import PCRL, PCRLConfig
from medssl.stages.paired import from_data, paired_data, watched
from medssl.stages.towers import load_towers, tower_file
from paired_scans import cohort, paired_store

TINY = "--steps 2 --batch 4 --patch 32 32 32 --width 4 --workers 0 --precision 32 --device cpu --embed-dim 8"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    texts = [None if i % 4 == 1 else f"case {i} is {'normal' if i % 3 else 'abnormal'}" for i in range(12)]
    visits = [str(i // 4) for i in range(12)]
    return paired_store(tmp_path / "data", cohort(), text=texts, **{"label.visit": visits})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches that the method was given."""
    batches: list[Batch] = []
    views = CMCL.views

    def spy(self: CMCL, batch: Batch, rng: Any) -> Any:
        batches.append(batch)
        return views(self, batch, rng)

    monkeypatch.setattr(CMCL, "views", spy)
    return batches


def test_a_method_that_compares_gets_subjects_places_and_reports(store, seen, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    assert main(f"pretrain cmcl --data {store.data} --out {run} {TINY} --text tokens --text-length 12".split()) == 0
    said = capsys.readouterr().err
    assert "pairs: 6 of 6 subjects have scans of two or more modalities (CT, MR)" in said
    assert "reports: 9 of 12 scans have one" in said
    tokens, _ = Tokenizer.load(run / "tokenizer.json").encode(store.items["text"].to_list())
    assert len(seen) == 2 and tokens.shape == (12, 12)
    for batch in seen:
        assert batch.place.shape == (4, 4, 4) and len(batch.subject.unique()) == 2
        assert torch.equal(batch.text, tokens[batch.item])
    assert "pair_by" not in files.read_toml(run / "run.toml")["options"]


@pytest.mark.parametrize("share", ["nothing", "trunk", "all"])
def test_a_run_leaves_its_towers_and_they_embed_as_in_training(store, tmp_path, monkeypatch, share) -> None:
    kept: list[CMCL] = []
    made = CMCL.__init__
    monkeypatch.setattr(CMCL, "__init__", lambda self, *a, **k: (kept.append(self), made(self, *a, **k))[1])
    run, extra = tmp_path / "run", f"--share {share}" + (" --text tokens" if share == "trunk" else "")
    assert main(f"pretrain cmcl --data {store.data} --out {run} {TINY} {extra}".split()) == 0
    trained = kept[0].eval()
    loaded, card, reader = load_towers(run)
    images = torch.rand(3, 1, 32, 32, 32)
    for name in ("CT", "MR"):
        assert torch.allclose(loaded.encode(name, images), trained.encode(name, images), atol=1e-5)
        assert load_file(run / card["towers"][name]).keys() == trained.encoder.state_dict().keys()
    if share == "trunk":
        tokens, _ = reader.encode(["case 3 is abnormal"])
        assert torch.allclose(loaded.encode("text", tokens), trained.encode("text", tokens), atol=1e-5)
    assert card["method_config"]["modalities"] == ["CT", "MR"] and (reader is None) == (share != "trunk")


def test_scans_of_no_pair_are_aligned_by_their_labels(tmp_path, seen, capsys) -> None:
    alone = [(f"p{i}", study, kind, shape, at) for i, (_, study, kind, shape, at) in enumerate(cohort())]
    store = paired_store(tmp_path / "data", alone, **{"label.kind": ["a", "b", "b", "a"] * 3})
    run = tmp_path / "run"
    assert main(f"pretrain cmcl --data {store.data} --out {run} {TINY} --positives label".split()) == 0
    said = capsys.readouterr().err
    assert "positives: 12 of 12 scans have a label of 'kind'; in two modalities or more: a, b" in said
    assert "no subject has scans of two modalities" not in said
    kinds = ["a", "b"]
    for batch in seen:
        assert [kinds[k] for k in batch.label.argmax(1)] == [store.items["label.kind"][int(i)] for i in batch.item]
    assert files.read_toml(run / "run.toml")["model"]["positives"] == "label"


def test_structures_are_read_from_the_masks_of_phantoms(tmp_path, seen, capsys) -> None:
    scans, data, run = (tmp_path / name for name in ("scans", "data", "run"))
    for words in (
        f"phantom {scans} --patients 4 --size 32 --modalities CT MR-T1",
        f"index {scans} --out {data} --workers 1",
        f"prepare {data} --workers 1",
        f"pretrain cmcl --data {data} --out {run} {TINY} --encoder unet --positives structure --log-every 1",
    ):
        assert main(words.split()) == 0
    assert "have a mask; in two modalities or more: 1, 2" in capsys.readouterr().err
    assert all(bool((batch.mask > 0).any()) for batch in seen)
    rows = files.read_rows(run / "metrics.jsonl")
    assert all(row["align"] > 0 and row["norm.align"] > 0 for row in rows[1:])


def test_a_tower_by_itself_is_an_encoder_as_any_other(store, tmp_path) -> None:
    run = tmp_path / "run"
    assert main(f"pretrain cmcl --data {store.data} --out {run} {TINY}".split()) == 0
    tower, card = load_file(run / "encoder-MR.safetensors"), read_card(run / "encoder-MR.safetensors")
    assert card == files.read_json(run / "encoder.json")
    weights = load(run / "encoder-MR.safetensors").network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in tower.items())
    assert find_weights(str(run / "encoder-MR.safetensors")) == run / "encoder-MR.safetensors"
    assert card_of(run / "encoder.safetensors") == run / "encoder.json"
    assert card_of(run / "other.safetensors") == run / "other.json"


def test_the_column_that_pairs_is_kept_with_the_run(store, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    command = f"pretrain cmcl --data {store.data} --out {run} --pair-by visit {TINY}"
    assert main(command.split()) == 0
    assert "pairs: 3 of 3 subjects" in capsys.readouterr().err
    assert files.read_toml(run / "run.toml")["options"]["pair_by"] == "visit"
    assert main(command.replace("visit", "patient").split()) == 2  # another run


def test_other_methods_look_at_each_scan_by_itself(store, tmp_path) -> None:
    method = PCRL(PCRLConfig(dims=3, width=4, patch=(32, 32, 32)))
    assert paired_data(method, store, range(12), None) is None
    assert watched(method, store, [3, 1]) == [3, 1]
    assert from_data(PCRLConfig, {"queue": 3}, store, range(12)) == ({"queue": 3}, None)
    with pytest.raises(UserError, match="--pair-by is for methods that compare"):
        paired_data(method, store, range(12), "patient")


def test_what_the_data_give_is_no_option(store, tmp_path, capsys) -> None:
    out = tmp_path / "run"
    assert main(f"pretrain cmcl --data {store.data} --out {out} --text-size 7".split()) == 2
    assert "--text-size" in capsys.readouterr().err
    blank = paired_store(tmp_path / "blank", cohort())
    assert main(f"pretrain cmcl --data {blank.data} --out {out} --text tokens".split()) == 2
    assert "no training scan has a report" in capsys.readouterr().err
    assert main(f"pretrain cmcl --data {blank.data} --out {out} --text vector".split()) == 2


def test_runs_without_towers_and_damaged_ones_are_told(store, trained_run, tmp_path) -> None:
    with pytest.raises(UserError, match="a run of pcrl has no space of several modalities"):
        load_towers(trained_run["RUN"])
    run = tmp_path / "run"
    assert main(f"pretrain cmcl --data {store.data} --out {run} {TINY}".split()) == 0
    (run / "align.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="weights cannot be read"):
        load_towers(run)
    (run / tower_file("MR")).unlink()
    with pytest.raises(UserError, match=r"the file is missing .*encoder-MR.safetensors"):
        load_towers(run)


def test_a_tower_has_a_file_whatever_its_modality_is_called() -> None:
    assert [tower_file(n) for n in ("MR-T1", "", "a b/c")] == [
        "encoder-MR-T1.safetensors", "encoder-unknown.safetensors", "encoder-a_b_c.safetensors"
    ]  # fmt: skip
