"""What would stop a study after hours is found before anything runs, and told at once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from medssl.engine import machine
from medssl.engine.record import NAME, finished
from medssl.errors import UserError, problems_of, raise_all
from medssl.evaluate.verdict import BASELINE
from medssl.files import read_toml
from medssl.loading import find_weights, run_of
from medssl.stages import pretrain
from medssl.stages.arm import Arm
from medssl.stages.finetune_setup import build, set_up
from medssl.stages.options.train import Finetune
from medssl.stages.recipe import Recipe


def check(recipe: Recipe) -> None:
    """Try everything but the training: the truth and the patients, devices, patches, options of methods, weights."""
    found = problems_of(_finetunings(recipe))
    for arm in recipe.arms:
        if arm.options is not None and not finished(recipe.out / "pretrain" / arm.name):
            folder = recipe.out / "pretrain" / arm.name
            told = problems_of([partial(pretrain.check, replace(arm.options, out=folder), arm.settings)])
            found += [_of(arm, error) for error in told if str(error) not in map(str, found)]
    raise_all(found)


def other_starts(recipe: Recipe) -> list[str]:
    """A sentence for each given run that began with other first weights than scratch does, as far as it says."""
    scratch = recipe.encoder_seed(1)
    told = []
    for name, folder in [(arm.name, run_of(find_weights(arm.run))) for arm in recipe.arms if arm.run]:
        record = folder / NAME if folder else None
        seed = read_toml(record).get("model", {}).get("seed", scratch) if record and record.is_file() else scratch
        if seed != scratch:
            told.append(
                f"{name} was pre-trained from the first weights of seed {seed}, and scratch begins with those of "
                f"seed {scratch}: their difference holds the luck of both. Pre-train with --seed {scratch}."
            )
    return told


def _finetunings(recipe: Recipe) -> Iterator[Callable[[], object]]:
    counts = recipe.counts
    scratch = recipe.job(counts[0], 0, BASELINE, recipe.out)
    for n in dict.fromkeys([counts[0], *counts[-2:]]):
        yield partial(set_up, replace(scratch, n_labels=n))
    for arm in recipe.arms:
        if arm.run:
            yield partial(_built, replace(scratch, init=str(arm.run)))
    if not all(finished(run.folder) for run in recipe.runs()):  # a verdict alone needs no GPU
        yield partial(machine.choose, scratch.loop.device, scratch.loop.precision)


def _built(job: Finetune) -> None:
    build(set_up(job))


def _of(arm: Arm, error: UserError) -> UserError:
    return UserError(f"arm {arm.name}: {error.what}", error.where, error.fix)
