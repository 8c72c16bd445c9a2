"""What a run is made of where nobody says: the rules, and that a person's word wins over them."""

from dataclasses import replace
from pathlib import Path

import pytest

from medssl.cli import main
from medssl.data.store import Store
from medssl.engine import record
from medssl.stages import defaults
from medssl.stages.options.study import Study
from medssl.stages.options.train import LoopOptions, ModelOptions, Pretrain
from medssl.stages.recipe import read_recipe
from medssl.stages.study_defaults import answered
from scans import prepared_pictures


class Scans:
    """As much of a store as the rules look at."""

    def __init__(self, dims: int) -> None:
        self.plan = self
        self.dims = dims


def settled(images: int, dims: int = 2, out: Path = Path("nowhere"), **options):
    job = Pretrain(**{"method": "pcrl", "data": Path(), "out": out, **options})
    return defaults.settled(job, Scans(dims), range(images))


@pytest.mark.parametrize(
    ("images", "dims", "batch", "steps"),
    [
        (30, 2, 7, 1_000),  # a quarter of the scans; no run is shorter
        (500, 2, 64, 1_000),
        (10_000, 2, 64, 7_813),
        (1_000_000, 2, 64, 20_000),  # no run is longer
        (500, 3, 8, 3_125),
    ],
)
def test_batch_and_steps_follow_the_number_of_scans(images, dims, batch, steps):
    options, choices = settled(images, dims)
    assert (options.loop.batch, options.steps) == (batch, steps)
    told = {choice.option: choice.value for choice in choices}
    assert (told["batch"], told["steps"]) == (batch, steps)
    assert all(choice.why for choice in choices)


@pytest.mark.parametrize(("gib", "width"), [(None, 16), (8.0, 16), (24.0, None)])
def test_width_follows_the_memory(monkeypatch, gib, width):
    monkeypatch.setattr(defaults, "memory_gib", lambda device: gib)
    assert settled(500)[0].model.width == width


def test_what_a_person_gives_wins():
    options, choices = settled(500, steps=7, loop=LoopOptions(batch=3), model=ModelOptions(width=8))
    assert (options.steps, options.loop.batch, options.model.width) == (7, 3, 8)
    assert not choices


def test_a_run_keeps_what_was_chosen_when_it_began(monkeypatch):
    before = {"options": {"steps": 11}, "model": {"width": 64}, "loop": {"batch": 5}}
    monkeypatch.setattr(record, "begun", lambda out: before)
    options, choices = settled(500)
    assert (options.steps, options.loop.batch, options.model.width) == (11, 5, 64)
    assert {choice.why for choice in choices} == {"chosen when the run began"}
    del before["model"]["width"]  # begun on a large GPU: TOML leaves None out
    options, choices = settled(500)
    assert options.model.width is None and {choice.why for choice in choices} == {"chosen when the run began"}


def test_a_command_that_ended_before_it_learnt_anything_leaves_nothing_behind(tmp_path):
    tables = {"options": {"steps": 11}, "model": {"width": 64}, "loop": {"batch": 5}}
    record.settle(tmp_path, tables, tables)
    options, choices = settled(500, out=tmp_path)
    assert (options.steps, options.loop.batch, options.model.width) == (1_000, 64, 16)
    assert "chosen when the run began" not in {choice.why for choice in choices}


def test_explain_says_every_reason_and_trains_nothing(tmp_path, capsys):
    data = prepared_pictures(tmp_path)
    command = ["pretrain", "pcrl", "--data", str(data), "--out", str(tmp_path / "run"), "--width", "4", "--explain"]
    assert main(command) == 0
    told = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "looks at each of" in told["steps"] and "a quarter of" in told["batch"]
    assert told["width"].split()[1] == "4" and "given" in told["width"]
    assert not (tmp_path / "run").exists()


def test_a_study_answers_for_every_arm_and_scratch_is_as_wide(tmp_path):
    data = prepared_pictures(tmp_path)
    options = Study(data=data, out=tmp_path / "study", arms=("scratch", "moco", "pcrl"))
    recipe = answered(read_recipe(options), Store(data))
    arms = [arm.options for arm in recipe.arms if arm.options is not None]
    assert len(arms) == 2 and len({(arm.steps, arm.loop.batch, arm.model.width) for arm in arms}) == 1
    assert arms[0].steps > 0 and arms[0].loop.batch > 0
    assert recipe.finetune.model.width == arms[0].model.width is not None
    assert recipe.finetune.loop.batch == 16
    wide = answered(read_recipe(replace(options, width=8, batch=4, pretrain_steps=3)), Store(data))
    assert {arm.options.model.width for arm in wide.arms if arm.options} == {8} == {wide.finetune.model.width}
    assert wide.arms[1].options.steps == 3 and wide.arms[1].options.loop.batch == 4 == wide.finetune.loop.batch
