"""What a recipe leaves open, chosen from the scans as `medssl pretrain` would, so that study.toml and keys say it."""

from dataclasses import replace

from medssl.data.store import Store
from medssl.errors import UserError
from medssl.stages.defaults import settled
from medssl.stages.pretrain import training_rows
from medssl.stages.recipe import Recipe


def answered(recipe: Recipe, store: Store) -> Recipe:
    """Steps, batch and width of every arm; scratch has the width of the others."""
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
    tuned = replace(recipe.finetune, model=replace(recipe.finetune.model, width=width))
    return replace(recipe, arms=tuple(arms), finetune=tuned)
