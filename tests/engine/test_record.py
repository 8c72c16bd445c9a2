"""run.toml: who may go on with a run, and who is told why not."""

from dataclasses import replace

import pytest

from medssl import files
from medssl.config import OptimOptions
from medssl.engine import checkpoint, record
from medssl.errors import UserError
from medssl.stages.options.train import LoopOptions

TABLES = ("verb", "model", "optim", "loop", "data")


def described(**changes):
    tables = {
        "verb": "pretrain",
        "model": {"encoder": "resnet18", "width": None, "patch": (64, 64)},
        "optim": vars(OptimOptions()),
        "loop": vars(LoopOptions()),
        "data": {"hash": "abc"},
        "machine": {"threads": 2},
    }
    return tables | changes


@pytest.fixture
def run(tmp_path):
    """A run that has learnt something."""
    record.settle(tmp_path, described(), TABLES)
    files.write_text(tmp_path / checkpoint.NAME, "weights")
    return tmp_path


def test_the_same_command_goes_on(run):
    record.settle(run, described(machine={"threads": 4}), TABLES)
    assert record.stored(run)["machine"] == {"threads": 2}


def test_bookkeeping_may_change(run):
    loop = replace(LoopOptions(), workers=7, log_every=3, save_every_steps=5, save_every_minutes=1.0)
    record.settle(run, described(loop=vars(loop)), TABLES)


def test_a_run_from_before_an_option_existed_goes_on(run, monkeypatch):
    monkeypatch.setitem(record.LATER, "sheen", 0.0)
    model = described()["model"]
    record.settle(run, described(model=model | {"sheen": 0.0}), TABLES)
    with pytest.raises(UserError, match="--sheen"):
        record.settle(run, described(model=model | {"sheen": 1.0}), TABLES)


def test_all_differences_are_told_at_once(run):
    changed = described(
        loop=vars(replace(LoopOptions(), batch=8)),
        optim=vars(replace(OptimOptions(), lr=0.5, weight_decay=0.0)),
        model={"encoder": "resnet18", "width": 8, "patch": (64, 64)},
    )
    with pytest.raises(UserError) as caught:
        record.settle(run, changed, TABLES)
    for told in ("--batch: 16 → 8", "--lr: 0.001 → 0.5", "--weight-decay: 0.0001 → 0.0", "--width: None → 8"):
        assert told in str(caught.value)
    assert "choose another --out" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"verb": "finetune"}, "pretrain → finetune"),
        ({"data": {"hash": "other"}}, "data hash: abc → other"),
        ({"model": {"encoder": "unet", "patch": (64, 64)}}, "--encoder: resnet18 → unet"),
    ],
)
def test_another_kind_of_run_is_refused(run, change, told):
    with pytest.raises(UserError, match=told):
        record.settle(run, described(**change), TABLES)


def test_a_run_of_another_version_is_refused(run):
    table = files.read_toml(run / record.NAME)
    files.write_toml(run / record.NAME, table | {"format": files.FORMAT + 1})
    with pytest.raises(UserError, match="format"):
        record.settle(run, described(), TABLES)


def test_a_run_is_finished_when_it_says_so(run):
    assert not record.finished(run)
    files.write_json(run / record.DONE, {"finished": True})
    assert record.finished(run)


def test_a_first_command_that_went_wrong_may_be_corrected(tmp_path):
    record.settle(tmp_path, described(), TABLES)
    record.settle(tmp_path, described(data={"hash": "other"}), TABLES)
    assert record.stored(tmp_path)["data"] == {"hash": "other"}


def test_only_what_has_learnt_something_binds_what_follows(tmp_path):
    record.settle(tmp_path, described(), TABLES)
    assert record.stored(tmp_path)["machine"] and record.begun(tmp_path) == {}
    files.write_text(tmp_path / checkpoint.NAME, "weights")
    assert record.begun(tmp_path)["machine"] == {"threads": 2}


def test_what_an_older_medssl_did_not_tell_of_the_data_is_not_compared(run):
    record.settle(run, described(data={"hash": "abc", "scans": "x"}), TABLES)
    with pytest.raises(UserError, match="data hash: abc → other"):
        record.settle(run, described(data={"hash": "other", "scans": "x"}), TABLES)
