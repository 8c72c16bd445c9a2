"""What a fine-tuning will do, settled before anything trains: truth, patients, patch, network, initial weights."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from medssl.config import ModelConfig, ModelOptions, replace
from medssl.data.store import Store
from medssl.data.subset import Subset, draw_subset, rarest_class
from medssl.data.target import Target, read_target
from medssl.data.whole import WholeItems, whole_size
from medssl.errors import UserError
from medssl.loading import card_of, check_preprocessing, read_card, read_weights
from medssl.networks.pyramid import build_encoder, check_patch, check_whole
from medssl.networks.weights import load_state, weights_from
from medssl.rng import key
from medssl.stages.finetune_modalities import check_subset, initial_weights, scan_plan, store_of
from medssl.stages.limits import check_size
from medssl.stages.options.train import Finetune
from medssl.tasks.classify import Classify, ClassifyConfig, balanced_weights
from medssl.tasks.fused import Towers, make_encoder
from medssl.tasks.segment import Segment, SegmentConfig
from medssl.tasks.task import Task, TaskConfig

MOST_STRUCTURES = 150  # a mask with more values than this is an image


@dataclass
class Setup:
    """A fine-tuning, ready to start. ``init``: weights of each encoder, none for scratch; ``initial`` names them.
    ``encoder_seed``: what the encoder's first weights are drawn from, if not from the seed of all."""

    store: Store
    truth: Target
    subset: Subset
    config: TaskConfig
    init: list[Path]
    initial: str
    encoder_seed: int | None = None
    _items: dict[tuple[int, ...], WholeItems] = field(default_factory=dict)

    def items_of(self, rows: Sequence[int]) -> WholeItems:
        """Whole items for a classifier, read once however often they are looked at."""
        key = tuple(rows)
        if key not in self._items:
            self._items[key] = WholeItems(self.store, key, self.config.size, self.truth.matrix[list(key)])
        return self._items[key]


def set_up(options: Finetune, store: Store | None = None) -> Setup:
    """Read what the options name and check that it fits together; every mistake is a UserError.

    ``store``: the scans, where they are open already.
    """
    store = store_of(options.data, options.modalities, options.test_modalities) if store is None else store
    truth = read_target(store.items, options.target) if options.task == "classify" else structures(store, options)
    strata = rarest_class(truth.matrix, truth.classes)
    subset = draw_subset(store.items, strata, options.n_labels, options.subset_seed)
    _check_classes(truth, subset, options.task)
    check_subset(store, subset, options.test_modalities)
    rows = [*subset.train, *subset.val, *subset.test]
    there = sorted({store.modality_names[code] for code in store.modalities[rows]})
    init = initial_weights(options.init, options.modalities, there)
    card = _described(init[0], store) if init else None
    config = _config(options, _model(options, store, card), truth, subset, pretrained=bool(init))
    return Setup(store, truth, subset, config, init, _initial(init, card), options.encoder_seed)


def structures(store: Store, options: Finetune) -> Target:
    """Which structure is in which mask: (n, k) of 0 and 1, NaN for items without a mask."""
    has, values = store.items["has_mask"].to_list(), store.items["mask_labels"].to_list()
    there = sorted({int(v) for h, found in zip(has, values, strict=True) if h for v in found if v > 0})
    if not any(has):
        fix = "name masks in the column mask_path of labels.csv, then index and prepare again"
        raise UserError("no item has a mask", options.data, fix)
    if not there:
        raise UserError("all masks are empty", options.data, "give masks that mark something with 1 or more")
    wanted = there if options.target is None else _mask_values(options.target, there)
    if len(wanted) > MOST_STRUCTURES:
        fix = "give label maps, one whole number a structure, or choose some by --target"
        raise UserError(f"the masks hold {len(wanted)} different values", options.data, fix)
    rows = [[float(w in found) if h else np.nan for w in wanted] for h, found in zip(has, values, strict=True)]
    return Target("mask", "many", tuple(map(str, wanted)), np.array(rows))


def _mask_values(target: str, there: list[int]) -> list[int]:
    words = [word.strip() for word in target.split("+")]
    unknown = [word for word in words if not word.isdecimal() or int(word) not in there]
    if unknown:
        fix = f"the masks hold {', '.join(map(str, there))}; join some of them by +"
        raise UserError(f"no mask holds '{unknown[0]}'", "--target", fix)
    if len({int(word) for word in words}) < len(words):
        raise UserError(f"'{target}' names a mask value twice", "--target", "name it once")
    return sorted({int(word) for word in words})


def _check_classes(truth: Target, subset: Subset, task: str) -> None:
    """Both sides of something must be there to learn, and to test."""
    for name, rows in (("training", subset.train), ("test", subset.test)):
        part = truth.matrix[rows]
        if task == "segment":
            usable = (part == 1).any()
            what, fix = f"no {name} mask marks a structure", "choose more patients, or another --target"
        elif truth.kind == "one":
            usable = sum((part == 1).any(axis=0)) > 1
            what = f"all {name} patients are of one class"
            fix = "raise --n-labels" if name == "training" else "index again with --stratify"
        else:
            usable = ((part == 1).any(axis=0) & (part == 0).any(axis=0)).any()
            what, fix = f"no label is both true and false among {name} patients", "choose more patients or labels"
        if not usable:
            raise UserError(what, "--n-labels" if name == "training" else "--target", fix)


# Network -------------------------------------------------------------------------------------------------------------


def _described(weights: Path, store: Store) -> dict[str, Any]:
    """encoder.json, if these weights were trained under the preprocessing of this data."""
    card = read_card(weights)
    check_preprocessing(scan_plan(store), card["preprocessing"], card_of(weights))
    return card


def _initial(weights: list[Path], card: dict[str, Any] | None) -> str:
    """scratch, or how the encoder was trained and a hash of its weights: folders move, and reports show no paths."""
    if card is None:
        return "scratch"
    stamp = hashlib.blake2b(b"".join(path.read_bytes() for path in dict.fromkeys(weights)), digest_size=6).hexdigest()
    return f"{card.get('method', 'encoder')}, {card.get('steps', '?')} steps, weights {stamp}"


def _model(options: Finetune, store: Store, card: dict[str, Any] | None) -> ModelConfig:
    """The network asked for; a pre-trained encoder brings its own architecture."""
    plan, given = scan_plan(store), options.model
    chosen = ModelConfig(**vars(given), dims=plan.dims, channels=plan.channels, value_range=plan.value_range)
    if card is not None:
        own = card["encoder"]
        for name in ("encoder", "width", "norm"):
            asked, default, there = getattr(given, name), getattr(ModelOptions(), name), own.get(name)
            if asked not in (default, there):
                fix = f"leave --{name} out, or choose another --init"
                raise UserError(f"--{name} {asked} asked for, the weights are of {name} {there}", options.init, fix)
        chosen = replace(chosen, encoder=own["encoder"], width=own.get("width"), norm=own["norm"])
    with torch.device("meta"):
        encoder = build_encoder(chosen)
    check_size(chosen.patch, store.shapes)
    if not chosen.patch:
        chosen = replace(chosen, patch=_patch(options.task, store, encoder.strides[-1]))
    if options.task == "segment":
        check_patch(encoder, chosen.size)
    else:
        check_whole(encoder, chosen.size, plan.channels)
    return chosen


def _patch(task: Literal["classify", "segment"], store: Store, stride: tuple[int, ...]) -> tuple[int, ...]:
    """The default patch: of the data alone, so that all arms of a study see the same."""
    median = np.median(np.array(store.items["shape"].to_list()), axis=0)
    most = ModelConfig(dims=len(median)).size
    if task == "classify":
        return whole_size(median, int(np.prod(most)))
    return tuple(int(min(m, max(1, round(n / s)) * s)) for m, n, s in zip(most, median, stride, strict=True))


def _config(options: Finetune, model: ModelConfig, truth: Target, subset: Subset, *, pretrained: bool) -> TaskConfig:
    shared = vars(model) | {"augment": options.augment}
    if pretrained:  # an encoder that starts at random and may not learn would be no opponent
        shared |= {"freeze": options.freeze, "head_first": options.head_first}
    shared |= {"modalities": options.modalities, "modality_dropout": options.modality_dropout}
    mirror = options.mirror == "on" or (options.mirror == "auto" and _sideless(options.task, truth.classes))
    if options.task == "classify":
        true, false = balanced_weights(truth.matrix[subset.train], truth.kind)
        return ClassifyConfig(
            **shared | {"mirror": mirror},
            classes=truth.classes,
            kind=truth.kind,
            weight_true=true,
            weight_false=false,
        )
    labels = tuple(map(int, truth.classes))
    return SegmentConfig(**shared | {"mirror": mirror}, labels=labels, foreground=options.foreground)


def _sideless(task: str, classes: tuple[str, ...]) -> bool:
    """Whether left and right may be exchanged: several structures of a mask may be told apart by their side."""
    if task == "segment":
        return len(classes) == 1
    return not any(side in name.lower() for name in classes for side in ("left", "right"))


def build(setup: Setup) -> Task:
    """The network: everything drawn from the seed, then the encoder's weights put in their place.

    So the arms of a study begin with the same head or decoder, whatever their encoder; and with ``encoder_seed`` one
    from scratch begins where a pre-training with that seed did (ADR 0022).
    """
    config = setup.config
    torch.manual_seed(key(config.seed, "weights") % 2**63)
    task: Task = Classify(config) if isinstance(config, ClassifyConfig) else Segment(config)  # type: ignore[arg-type]
    towers: list[Any] = list(task.encoder.towers) if isinstance(task.encoder, Towers) else [task.encoder]
    for tower, weights in zip(towers if setup.init else [], setup.init, strict=True):
        load_state(tower, read_weights(weights), weights)
    if not setup.init and setup.encoder_seed is not None:
        with weights_from(setup.encoder_seed):
            task.encoder.load_state_dict(make_encoder(config).state_dict())
    return task
