"""The recipe that docs/reference/recipes.md shows is read, and what the page says of its values holds."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from medssl.errors import UserError
from medssl.stages.options.study import Study
from medssl.stages.recipe import SHARED, Recipe, read_recipe

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "recipes.md").read_text()
SHOWN = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.S)


@pytest.fixture
def table() -> dict[str, Any]:
    (text,) = SHOWN
    return tomllib.loads(text)


@pytest.fixture
def recipe(table, tmp_path):
    def read(**given: Any) -> Recipe:
        (tmp_path / "recipe.toml").write_text(tomli_w.dumps(table))
        return read_recipe(Study(config=tmp_path / "recipe.toml", data=tmp_path, out=tmp_path / "STUDY", **given))

    return read


def test_arms_inherit_from_pretrain(recipe):
    found = recipe()
    arms = {arm.name: arm for arm in found.arms}
    assert list(arms) == ["scratch", "pcrl", "moco", "contrast_only"]
    assert (arms["contrast_only"].method, arms["contrast_only"].settings) == ("pcrl", {"rebuild_weight": 0.0})
    assert [arm.options.steps for arm in found.arms if arm.options] == [1000] * 3
    assert [arm.pretrainings for arm in found.arms] == [3, 3, 1, 1]  # scratch as often as the arm with most
    assert found.counts == [10, 30, None]
    assert found.compare == (("pcrl", "contrast_only"),)


def test_which_value_holds(table, recipe):
    table |= {"pretrain_steps": 7, "batch": 8}
    table["finetune"]["batch"] = 4
    said = recipe(pretrain_steps=20, pretrain_seeds=2, batch=6)
    assert {arm.options.steps for arm in said.arms if arm.options} == {20}
    assert {arm.pretrainings for arm in said.arms} == {2}
    assert {arm.options.loop.batch for arm in said.arms if arm.options} == {6}
    assert said.finetune.loop.batch == 6
    assert {arm.options.steps for arm in recipe().arms if arm.options} == {1000}
    assert len(recipe(arms=("scratch", "moco")).arms) == 2


def test_without_arms_every_table_is_one(table, recipe):
    del table["arms"]
    assert [arm.name for arm in recipe().arms] == ["scratch", "pcrl", "contrast_only"]


@pytest.mark.parametrize("key", sorted(SHARED - {"out"}))
def test_what_stands_at_the_top_is_named_and_refused_elsewhere(key, table, recipe):
    assert f"`{key}`" in PAGE
    table["pretrain"][key] = 1
    with pytest.raises(UserError, match="move it to the top"):
        recipe()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pretrain": {"view_strength": 0.5}, "arms": ["scratch", "mae"]}, "unknown key 'view_strength'"),
        ({"pretrain": {"mae": {}}, "arms": ["scratch", "pcrl"]}, "is no arm of the study"),
        ({"pretrain": {"pretrain_seeds": 2}, "arms": ["scratch", "pcrl"]}, "unknown key 'pretrain_seeds'"),
        ({"out": "STUDY"}, "unknown key 'out'"),
    ],
)
def test_what_is_refused(change, said, table, recipe):
    table.pop("compare")
    table |= change
    with pytest.raises(UserError, match=said):
        recipe()
