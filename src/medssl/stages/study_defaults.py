"""What a recipe leaves open, chosen from the scans as `medssl pretrain` would, so that study.toml and keys say it."""

from dataclasses import replace
from typing import Any

import torch

from medssl.config import ModelConfig, ModelOptions
from medssl.data.store import Store
from medssl.errors import UserError, raise_all
from medssl.loading import find_weights, read_card
from medssl.networks.pyramid import build_encoder
from medssl.stages.arm import Arm
from medssl.stages.defaults import settled
from medssl.stages.pretrain import training_rows
from medssl.stages.recipe import Recipe

NETWORK = ("encoder", "width", "norm")


def answered(recipe: Recipe, store: Store) -> Recipe:
    """Steps, batch and width of every arm; scratch has the network of the others, which must have one."""
    try:
        rows = training_rows(store, recipe.transductive)
    except UserError:
        return recipe  # the check that follows tells of it, with all else that is wrong
    arms = []
    for arm in recipe.arms:
        if arm.options is not None:
            options = replace(arm.options, out=recipe.out / "pretrain" / arm.name)
            arm = replace(arm, options=settled(options, store, rows)[0])
        arms.append(arm)
    width = next((arm.options.model.width for arm in arms if arm.options is not None), recipe.finetune.model.width)
    model = _network(arms, replace(recipe.finetune.model, width=width), store.plan.dims)
    return replace(recipe, arms=tuple(arms), finetune=replace(recipe.finetune, model=model))


def _network(arms: list[Arm], model: ModelOptions, dims: int) -> ModelOptions:
    """That of scratch: ``model``, in what nobody asks for as the given encoders are; a UserError where they differ."""
    given = {arm.name: read_card(find_weights(arm.run))["encoder"] for arm in arms if arm.run is not None}
    if given and not any(arm.options for arm in arms):
        first, usual = next(iter(given.values())), ModelOptions()
        unasked = [name for name in NETWORK if getattr(model, name) == getattr(usual, name)]
        model = replace(model, **{name: first.get(name, getattr(usual, name)) for name in unasked})
    scratch = _told(vars(model), dims)
    raise_all(
        UserError(
            f"arm '{name}' is {_words(own)}, scratch and the other arms are {_words(scratch)}",
            "--arms",
            f"give the network of the arm: {' '.join(f'--{key} {value}' for key, value in own.items())}",
        )
        for name, own in ((name, _told(card, dims)) for name, card in given.items())
        if own != scratch
    )
    return model


def _told(table: dict[str, Any], dims: int) -> dict[str, Any]:
    """Encoder, width and norm of a network, with a width that is left to its architecture."""
    own = {name: table[name] for name in NETWORK if table.get(name) is not None}
    with torch.device("meta"):
        return {"width": build_encoder(ModelConfig(encoder=own["encoder"], dims=dims)).channels[0]} | own


def _words(own: dict[str, Any]) -> str:
    return f"{own['encoder']} of width {own['width']} with {own['norm']} norm"
