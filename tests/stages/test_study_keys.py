"""A key holds what a result depends on: all of it, and nothing else."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from medssl.config import to_table
from medssl.data.content import Contents
from medssl.data.store import Store
from medssl.engine import record
from medssl.files import write_toml
from medssl.methods import METHODS, resolve
from medssl.stages import study_keys
from medssl.stages.options.study import Study
from medssl.stages.options.train import Finetune, MethodOptim, Pretrain
from medssl.stages.recipe import read_recipe
from medssl.stages.study_defaults import answered
from medssl.stages.study_keys import planned
from medssl.stages.study_record import flat
from medssl.tasks.classify import ClassifyConfig
from scans import prepared_pictures

PRETRAINING, TUNING, SCANS = range(3)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Prepared pictures of 12 patients."""
    return prepared_pictures(tmp_path_factory.mktemp("pictures"), count=24)


@pytest.fixture(scope="module")
def contents(data) -> Contents:
    return Contents(Store(data))


@pytest.fixture
def parts(data, contents, tmp_path):
    """The three parts of the keys of scratch and pcrl, of a recipe with these changes."""

    def made(pretrain=None, finetune=None, **changes):
        tables = {
            "pretrain": {"patch": [32, 32]} | (pretrain or {}),
            "finetune": {"patch": [32, 32]} | (finetune or {}),
        }
        write_toml(tmp_path / "r.toml", tables)
        base = Study(data=data, out=tmp_path / "s", config=tmp_path / "r.toml", target="size", width=8, seeds=1)
        recipe = read_recipe(replace(base, **{"n_labels": (4,)} | changes))
        plan = planned(answered(recipe, contents.store), contents)
        return {one.run.arm.name: one.key.split("-") for one in reversed(plan)}  # of the first seed

    return made


def test_a_key_is_the_same_however_and_wherever_it_runs(parts, tmp_path):
    loop = {"workers": 1, "threads": 3, "log_every": 7, "save_every_steps": 5, "precision": "32"}
    same = parts(loop, loop, jobs=4, margin=0.5, device="cpu", out=tmp_path / "elsewhere", seeds=2, n_labels=(4, 6))
    before = parts()
    assert before["pcrl"][1:] == before["scratch"][1:] and before["pcrl"][0] != before["scratch"][0]
    assert same["scratch"][:2] == before["scratch"][:2] and same["pcrl"][:2] == before["pcrl"][:2]
    assert parts(loop, loop, jobs=4, margin=0.5, device="cpu", out=tmp_path / "elsewhere") == before
    assert parts({"lr": 1, "patch": [32, 32]}) == parts({"lr": 1.0})


@pytest.mark.parametrize(
    ("pretrain", "finetune", "changes", "differ"),
    [
        ({}, {"head_first": 0.5}, {}, {TUNING}),
        ({}, {"freeze": True}, {}, {TUNING}),
        ({"steps": 7}, {}, {}, {PRETRAINING}),
        ({"lr": 0.5}, {}, {}, {PRETRAINING}),
        ({"batch": 8}, {}, {}, {PRETRAINING}),
        ({"temperature": 0.5}, {}, {}, {PRETRAINING}),
        ({"foreground": 0.1}, {}, {}, {PRETRAINING}),
        ({}, {}, {"transductive": True}, {PRETRAINING}),
        ({}, {}, {"seed": 3}, {PRETRAINING}),
        ({}, {"steps": 7}, {}, {TUNING}),
        ({}, {"lr": 0.5}, {}, {TUNING}),
        ({}, {"mirror": "off"}, {}, {TUNING}),
        ({}, {}, {"width": 16}, {PRETRAINING, TUNING}),
        ({}, {}, {"n_labels": (6,)}, {SCANS}),
    ],
)
def test_what_a_result_depends_on_changes_its_part(parts, pretrain, finetune, changes, differ):
    before, after = parts(), parts(pretrain, finetune, **changes)
    assert {i for i in range(3) if before["pcrl"][i] != after["pcrl"][i]} == differ
    # Scratch begins where a pre-training did, and of that depends on nothing but the seed.
    first = {PRETRAINING} if "seed" in changes else set()
    assert {i for i in range(3) if before["scratch"][i] != after["scratch"][i]} == differ - {PRETRAINING} | first


def test_scratch_begins_with_the_first_weights_of_each_pre_training(data, contents, tmp_path):
    options = Study(data=data, out=tmp_path, target="size", width=8, seeds=2, n_labels=(4,), seed=1, pretrain_seeds=2)
    recipe = read_recipe(options)
    plan = [one for one in planned(answered(recipe, contents.store), contents) if one.run.arm.scratch]
    starts = {(one.run.pretraining, one.run.seed): one.key.split("-")[0] for one in plan}
    jobs = [recipe.job(4, one.run.seed, "scratch", tmp_path, one.run.pretraining) for one in plan]
    assert {(job.encoder_seed, job.model.seed) for job in jobs} == {(1, 0), (1, 1), (2, 0), (2, 1)}
    # All drawn from one seed: as a run of its own, and as studies recorded it before encoders had a seed of their own.
    assert starts[1, 1] == study_keys._hash({"weights": "scratch"}) and starts[2, 0] == starts[2, 1]
    assert len(set(starts.values())) == 3
    assert recipe.job(4, 0, "RUN", tmp_path, 2).encoder_seed is None


def test_what_is_left_open_enters_as_it_is_answered(parts):
    before = parts({"steps": 0, "patch": [32, 32]})
    assert before == parts({"steps": 1000, "patch": [32, 32]})  # the shortest run, for few scans


def test_labels_and_masks_that_choose_an_encoder_are_part_of_its_key(parts, contents, monkeypatch):
    before, patient = parts(), parts({"patience": 2})
    frame = contents.store.items
    monkeypatch.setattr(contents.store, "items", frame.with_columns(pl.col("label.size").reverse()))
    assert parts({"patience": 2})["pcrl"][PRETRAINING] != patient["pcrl"][PRETRAINING]
    assert parts()["pcrl"][PRETRAINING] == before["pcrl"][PRETRAINING]


def test_seeds_differ_by_their_patients(data, contents, tmp_path):
    recipe = read_recipe(Study(data=data, out=tmp_path, target="size", width=8, seeds=3, n_labels=(4, 6)))
    plan = planned(answered(recipe, contents.store), contents)
    assert len({one.key for one in plan}) == len(plan) == 12


def test_labels_are_part_of_it(parts, contents, monkeypatch):
    before = parts()
    real = study_keys.set_up

    def mislabelled(*arguments):
        setup = real(*arguments)
        row = setup.subset.test[0]
        setup.truth.matrix[row] = setup.truth.matrix[row][::-1]
        return setup

    monkeypatch.setattr(study_keys, "set_up", mislabelled)
    after = parts()
    assert [i for i in range(3) if before["pcrl"][i] != after["pcrl"][i]] == [SCANS]


def test_an_option_that_came_later_disowns_nothing_at_its_old_value(monkeypatch):
    table = {"lr": 0.1, "sheen": 0.0}
    monkeypatch.setitem(record.LATER, "sheen", 0.0)
    assert (
        study_keys._finetuning(table) == {"lr": 0.1} and study_keys._finetuning(table | {"sheen": 1.0})["sheen"] == 1.0
    )


def test_changed_code_disowns_what_it_made(parts, monkeypatch):
    before = parts()
    monkeypatch.setitem(study_keys.REVISIONS, "pcrl", 1)
    after = parts()
    assert after["scratch"] == before["scratch"] and after["pcrl"][1:] == before["pcrl"][1:] != after["pcrl"]


@pytest.mark.parametrize("method", METHODS)
def test_every_option_of_a_method_enters_the_key(method):
    """At another value than its default each gives another key, whatever a run or a task may call by the same name."""
    usual = to_table(resolve(method)[0]())
    before = study_keys._pretraining(usual)
    for name in usual:
        assert study_keys._pretraining(usual | {name: "another"}) != before, name


@pytest.mark.parametrize("method", METHODS)
def test_no_option_of_a_method_hides_one_of_the_run(method):
    """Both stand in one table of the key; what they share (seed, patch …) is the network's, and equal."""
    own = to_table(resolve(method)[0]()).keys()
    run = flat(Pretrain(method=method, data=Path(), out=Path())).keys()
    assert own & run <= {"encoder", "width", "norm", "patch", "seed"}


def test_keys_stay_what_they_were():
    """If this fails, an option was added or a default changed, and recorded runs are known no longer.

    For a new option that changes nothing by default, add it to ``LATER``; for a new default, write the new hash here.
    """
    usual = MethodOptim(**to_table(resolve("pcrl")[0].usual))  # as a recipe settles it for its arms
    options = Pretrain(method="pcrl", data=Path(), out=Path(), optim=usual)
    pretrain = flat(options) | to_table(resolve("pcrl")[0]())
    finetune = flat(Finetune(task="classify", data=Path(), out=Path())) | to_table(ClassifyConfig())
    enter = {"p": study_keys._pretraining(pretrain), "f": study_keys._finetuning(finetune)}
    found = {name: study_keys._hash(table) for name, table in enter.items()}
    assert found == {"p": "5481136cdacd", "f": "ed1fe7a82c3b"}
