"""A recipe is read whole: the command line wins, and all that is wrong is told at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from medssl.errors import UserError
from medssl.files import write_toml
from medssl.stages.options.study import Study
from medssl.stages.recipe import read_recipe


def wrong(options: Study) -> str:
    with pytest.raises(UserError) as error:
        read_recipe(options)
    return str(error.value)


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_defaults(tmp_path):
    recipe = {"data": "elsewhere", "seeds": 7, "n_labels": [4, 8], "batch": 4, "pretrain": {"steps": 50, "lr": 0.01}}
    recipe |= {"finetune": {"steps": 20, "batch": 3}}
    write_toml(tmp_path / "r.toml", recipe)
    found = read_recipe(Study(out=tmp_path, config=tmp_path / "r.toml", seeds=5, pretrain_steps=60))
    assert (found.seeds, found.n_labels, found.margin, found.data) == (5, (4, 8), 0.01, Path("elsewhere"))
    (_, pcrl) = found.arms
    assert (pcrl.options.steps, pcrl.options.optim.lr, pcrl.options.loop.batch) == (60, 0.01, 4)
    assert (found.finetune.steps, found.finetune.loop.batch, found.finetune.optim.lr) == (20, 3, 3e-3)


def test_an_option_that_repeats_the_default_still_wins(tmp_path):
    write_toml(tmp_path / "r.toml", {"data": "d", "seeds": 9})
    assert read_recipe(Study(out=tmp_path, config=tmp_path / "r.toml", seeds=5)).seeds == 5


def test_arms_by_configuration_differ_in_their_own_options_only(tmp_path):
    arms = {"contrast_only": {"method": "pcrl", "rebuild_weight": 0.0}, "long": {"method": "pcrl", "steps": 90}}
    write_toml(tmp_path / "r.toml", {"data": "d", "pretrain": {"steps": 30, "mix": True} | arms, "width": 8})
    scratch, contrast, long = read_recipe(Study(out=tmp_path, config=tmp_path / "r.toml")).arms
    assert scratch.options is None and (contrast.name, contrast.method) == ("contrast_only", "pcrl")
    assert contrast.settings == {"mix": True, "rebuild_weight": 0.0} and long.settings == {"mix": True}
    assert (contrast.options.steps, long.options.steps) == (30, 90)
    assert contrast.options.model == long.options.model and contrast.options.model.width == 8


def test_the_command_line_may_take_a_part_of_the_recipes_arms(tmp_path):
    arms = {"contrast_only": {"method": "pcrl", "rebuild_weight": 0.0}, "long": {"method": "pcrl", "steps": 90}}
    write_toml(tmp_path / "r.toml", {"data": "d", "pretrain": arms})
    found = read_recipe(Study(out=tmp_path, config=tmp_path / "r.toml", arms=("scratch", "long")))
    assert [arm.name for arm in found.arms] == ["scratch", "long"]


def test_an_arm_may_be_pre_trained_more_often_than_others(tmp_path):
    arms = {"pcrl": {"pretrain_seeds": 3}, "moco": {}}
    write_toml(tmp_path / "r.toml", {"data": "d", "seed": 5, "seeds": 2, "n_labels": ["all", 4], "pretrain": arms})
    found = read_recipe(Study(out=tmp_path, config=tmp_path / "r.toml"))
    assert [(arm.name, arm.pretrainings) for arm in found.arms] == [("scratch", 3), ("pcrl", 3), ("moco", 1)]
    assert [(found.arms[1].start(k), found.arms[1].pretrain(k).model.seed) for k in (1, 2, 3)] == [
        ("pcrl", 5), ("pcrl-p2", 6), ("pcrl-p3", 7)
    ]  # fmt: skip
    names = [run.folder.name for run in found.runs()]
    assert len(names) == 2 * 2 * 7 == len({*names}) and "pcrl-p3-nall-s1" in names and found.counts == [4, None]
    said = read_recipe(Study(out=tmp_path, config=tmp_path / "r.toml", pretrain_seeds=2))
    assert [arm.pretrainings for arm in said.arms] == [2, 2, 2]


def test_a_batch_given_on_the_command_line_wins_over_all_tables(tmp_path):
    tables = {"pretrain": {"batch": 32, "pcrl": {"batch": 16}}, "finetune": {"batch": 8}}
    write_toml(tmp_path / "r.toml", {"data": "d"} | tables)
    asked = Study(out=tmp_path, config=tmp_path / "r.toml")
    for given, batches in ((None, (16, 8)), (4, (4, 4))):
        found = read_recipe(replace(asked, batch=given))
        assert (found.arms[1].options.loop.batch, found.finetune.loop.batch) == batches


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"pretrain": {"pcrl": {"pretrain_seeds": 0}}}, "pretrain_seeds is 0"),
        ({"pretrain": {"pcrl": {"pretrain_seeds": "two"}}}, "pretrain_seeds is 'two'"),
        ({"pretrain_seeds": 0}, "pretrain_seeds is 0"),
        ({"pretrain_seeds": 2, "arms": ["scratch", "pcrl", "pcrl-p2=run"]}, "'pcrl-p2' is named twice"),
        ({"n_labels": ["every"]}, "n_labels is ['every']"),
        ({"n_labels": ["all", "all"]}, "n_labels is"),
        ({"n_labels": [True]}, "n_labels is"),
        ({"known": ["nowhere"]}, "no such file (nowhere/results.jsonl)"),
        ({"known": "nowhere"}, "known is 'nowhere'"),
    ],
)
def test_counts_and_records_that_cannot_be_are_refused(tmp_path, table, said):
    write_toml(tmp_path / "r.toml", {"data": "d"} | table)
    assert said in wrong(Study(out=tmp_path, config=tmp_path / "r.toml"))


def test_everything_wrong_with_a_recipe_is_told_at_once(tmp_path):
    write_toml(tmp_path / "r.toml", {"sedes": 3, "margin": "small", "n_labels": [4, 4], "task": "regress"})
    told = wrong(Study(out=tmp_path, config=tmp_path / "r.toml"))
    for part in ("'sedes'", "did you mean 'seeds'?", "margin is 'small'", "n_labels is (4, 4)", "regress", "no data"):
        assert part in told


def test_everything_wrong_with_its_tables_is_told_at_once(tmp_path):
    pretrain = {
        "rate": 1.0,
        "steps": "many",
        "encoder": "resnet50",
        "x": {"method": "pcrll"},
        "y": {"method": "pcrl"},
        "explain": True,
    }
    table = {"data": "d", "arms": ["scratch", "pcrl", "x"], "pretrain": pretrain, "finetune": {"mirrored": True}}
    write_toml(tmp_path / "r.toml", table)
    told = wrong(Study(out=tmp_path, config=tmp_path / "r.toml"))
    parts = (
        "unknown key 'rate'",
        "unknown key 'explain'",
        "steps is 'many'",
        "'encoder' must hold for all arms",
        "did you mean 'pcrl'?",
    )
    for part in (*parts, "[pretrain.y] is no arm", "unknown key 'mirrored'"):
        assert part in told


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (("pcrl",), "no arm 'scratch'"),
        (("scratch",), "nothing to compare"),
        (("scratch", "pcrl", "pcrl"), "named twice"),
        (("scratch", "prcl"), "did you mean 'pcrl'?"),
        (("scratch", "mine=/nowhere"), "arm 'mine': no such encoder"),
        (("scratch", "../up=x"), "cannot name an arm"),
    ],
)
def test_arms_that_cannot_be_are_refused(tmp_path, arms, said):
    assert said in wrong(Study(out=tmp_path, data=tmp_path, arms=arms))


def test_numbers_out_of_range_are_told_before_anything_runs(tmp_path):
    table = {"data": "d", "pretrain": {"lr": float("nan"), "workers": -1}, "finetune": {"lr": -1.0}}
    write_toml(tmp_path / "r.toml", table)
    with pytest.raises(UserError) as caught:
        read_recipe(Study(out=tmp_path, config=tmp_path / "r.toml"))
    assert [line.split(" (")[0] for line in str(caught.value).splitlines()] == [
        "--lr is nan",
        "--workers is -1",
        "--lr is -1.0",
    ]


@pytest.mark.parametrize("margin", [float("nan"), float("inf"), -0.1])
def test_a_margin_is_a_finite_number(tmp_path, margin):
    with pytest.raises(UserError, match="margin is"):
        read_recipe(Study(data=Path("d"), out=tmp_path, margin=margin))
