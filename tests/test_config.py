"""Configurations go to TOML and back; everything wrong is told at once."""

import tomllib

import pytest

from medssl.config import ModelConfig, from_table, to_table
from medssl.errors import UserError
from medssl.files import write_toml


def test_goes_round(tmp_path):
    config = ModelConfig(encoder="unet", dims=3, patch=(32, 32, 16), width=8, value_range=(-2.0, 2.0))
    write_toml(tmp_path / "c.toml", to_table(config))
    assert from_table(ModelConfig, tomllib.loads((tmp_path / "c.toml").read_text())) == config


def test_everything_wrong_at_once():
    with pytest.raises(UserError) as caught:
        ModelConfig(dims=3, patch=(64, 64), channels=0, width=1, value_range=(1.0, 0.0))
    said = str(caught.value)
    assert all(word in said for word in ("patch", "channels", "width", "value range"))


def test_unknown_keys_are_named_with_the_file():
    with pytest.raises(UserError, match=r"unknown key .bacth. .recipe\.toml"):
        from_table(ModelConfig, {"bacth": 3}, "recipe.toml")


def test_a_choice_that_is_none_is_told_with_those_that_are():
    with pytest.raises(UserError, match="norm is 'layer': choose one of batch, instance, group"):
        ModelConfig(norm="layer")


def test_refused_options_and_unreachable_values_become_mistakes():
    config = ModelConfig(value_range=(-1.0, 1.0))
    assert [str(e) for e in config.refused(width=False, seed=True)] == ["seed is 0: see its help"]
    assert "cannot reach" in str(config.unreachable("sigmoid")[0])
    assert not config.unreachable("linear") and not ModelConfig().unreachable("sigmoid")
