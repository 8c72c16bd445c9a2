"""The key of a fine-tuning: a hash of all that its result depends on, so that recorded work is found again (ADR 0019).

Three parts, PRETRAINING-FINETUNING-SCANS, so that one can be told from where runs differ. Of scans it knows what is in
them, not their ids or paths. Where and how fast something runs is not in it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medssl.config import to_table
from medssl.data.catalog import LABEL, label_names
from medssl.data.content import Contents
from medssl.data.pairing import subjects
from medssl.data.several import FusedStore
from medssl.data.target import read_target
from medssl.engine.record import LATER
from medssl.errors import UserError, raise_all
from medssl.evaluate.verdict import BASELINE
from medssl.loading import find_weights, towers_of
from medssl.stages.arm import Run
from medssl.stages.configure import method_config
from medssl.stages.finetune_setup import set_up
from medssl.stages.patience import probing
from medssl.stages.pretrain import training_rows
from medssl.stages.recipe import Recipe
from medssl.stages.study_record import flat, plain

PARTS = ("pre-training", "fine-tuning", "scans, labels or seeds")
# Raised for a method or task whose code has changed so that it gives other results: what was recorded is then no longer
# known. What is not named is at 0.
REVISIONS: dict[str, int] = {}
# Beyond what a study leaves free: these change nothing, or of a fine-tuning stand elsewhere in its key.
_FREE = {"deterministic"}
_ELSEWHERE = {"predictions", "target", "classes", "weight_true", "weight_false"}
# PCRL's target was left out of the key for bearing the name of the label to predict; what had been recorded was clean.
_LATER_OF_METHODS = {"target": "clean"}


@dataclass(frozen=True)
class Planned:
    """A run with its key."""

    run: Run
    key: str
    labels: int
    """Labelled patients."""


def planned(recipe: Recipe, learnt: Contents) -> list[Planned]:
    """Every run of the study, whose recipe leaves nothing open, with its key; a UserError tells of all that cannot be.

    ``learnt``: the items that are fine-tuned on; pre-training sees single scans.
    """
    scans = Contents(learnt.store.base) if isinstance(learnt.store, FusedStore) else learnt
    starts, tuned, wrong, found = {}, {}, {}, []
    for run in recipe.runs():
        start = (run.start, run.seed if run.arm.scratch else None)
        if start not in starts:
            starts[start] = _hash(_start(run, recipe, scans))
        case = (run.n_labels, run.seed)
        if case not in tuned:
            try:
                tuned[case] = _tuned(recipe, run, learnt)
            except UserError as error:
                wrong[str(error)] = error
                tuned[case] = ("", 0)
        key, labels = tuned[case]
        found.append(Planned(run, f"{starts[start]}-{key}", labels))
    raise_all([*wrong.values(), *_twice(found)])
    return found


def _twice(plan: list[Planned]) -> list[UserError]:
    """A number of labels that is all of them, beside ``all``."""
    every = {one.labels for one in plan if one.run.n_labels is None} - {0}
    numbers = sorted({one.labels for one in plan if one.run.n_labels is not None} & every)
    fix = "leave one of the two out"
    return [UserError(f"n_labels names {n} and all, and all are {n}", "--n-labels", fix) for n in numbers]


# What a fine-tuning begins with --------------------------------------------------------------------------------------


def _start(run: Run, recipe: Recipe, contents: Contents) -> dict[str, Any]:
    arm = run.arm
    if arm.run is not None:
        weights = towers_of(arm.run) or {"": find_weights(arm.run)}
        return {"weights": {name: _file_hash(path) for name, path in weights.items()}}
    if arm.options is None:  # where its encoder is drawn from the run's own seed, it is as the first records have it
        first = recipe.encoder_seed(run.pretraining)
        return {"weights": BASELINE} | ({} if first == run.seed else {"seed": first})
    store, options = contents.store, arm.pretrain(run.pretraining)
    rows = training_rows(store, options.transductive)
    _, config, reader = method_config(options, arm.settings, store, rows)
    columns = [contents.groups(subjects(store, options.pair_by))]
    if reader is not None:
        columns.append([hashlib.blake2b((text or "").encode()).hexdigest() for text in store.items["text"]])
    positives = getattr(config, "positives", "subject")
    if positives == "label":
        truth = read_target(store.items, config.label or None).matrix
        columns.append([row.tobytes().hex() for row in np.nan_to_num(truth, nan=-1).astype("<f4")])
    judged = options.patience is not None  # by probes, which choose the encoder
    if judged:
        probed = options.probe_target  # none: any may be
        columns += [store.items[LABEL + name] for name in sorted(label_names(store.items)) if probed in (None, name)]
    return {
        "settings": _pretraining(flat(options) | to_table(config)) | probing(options),
        "scans": contents.of(rows, *columns, masks=judged or positives == "structure"),
        "plan": store.plan.contract(),
        "revision": REVISIONS.get(options.method, 0),
    }


def _file_hash(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


# The fine-tuning itself ----------------------------------------------------------------------------------------------


def _tuned(recipe: Recipe, run: Run, contents: Contents) -> tuple[str, int]:
    """FINETUNING-SCANS of a run and its labelled patients, all as of scratch: arms differ by where they begin."""
    setup = set_up(recipe.job(run.n_labels, run.seed, BASELINE, recipe.out), contents.store)
    given = flat(recipe.finetune)
    pretrained = {name: given[name] for name in ("freeze", "head_first")}  # nothing to scratch, of whom this is the key
    settings = {
        "settings": _finetuning(given | to_table(setup.config) | pretrained | {"seed": None}),
        "truth": [setup.truth.kind, *setup.truth.classes],
        "plan": contents.store.plan.contract(),
        "revision": REVISIONS.get(recipe.task, 0),
    }
    # Who is learnt from, validated and tested on, with the truth about them.
    truth = [row.tobytes().hex() for row in np.nan_to_num(setup.truth.matrix, nan=-1).astype("<f4")]
    told = partial(contents.of, masks=recipe.task == "segment")
    scans = {part: told(getattr(setup.subset, part), truth) for part in ("train", "val", "test")}
    return f"{_hash(settings)}-{_hash(scans | {'seed': setup.config.seed})}", setup.subset.patients


# Hash ----------------------------------------------------------------------------------------------------------------


def _pretraining(table: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a pre-training and its method, as they enter the key."""
    return _settings(table, LATER | _LATER_OF_METHODS)


def _finetuning(table: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a fine-tuning and its network, as they enter the key."""
    return _settings({k: v for k, v in table.items() if k not in _ELSEWHERE}, LATER)


def _settings(table: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """A table of options without those that do not change a result, and the later ones at their old value."""
    kept = {k: v for k, v in plain(table).items() if k not in _FREE and v is not None}
    return {k: v for k, v in kept.items() if k not in later or v != later[k]}


def _hash(table: Mapping[str, Any]) -> str:
    text = json.dumps(_canonical(table), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _canonical(value: Any) -> Any:
    """TOML tells 1 from 1.0; a setting does not."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
