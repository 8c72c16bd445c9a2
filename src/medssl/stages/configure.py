"""A model's configuration from three sides: what a person chose, what the plan says, what the data set's size asks."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from medssl.config import ModelConfig, ModelOptions, OptimOptions, replace, to_table
from medssl.data.store import Store
from medssl.methods import resolve
from medssl.networks.pyramid import build_encoder
from medssl.stages.limits import check_size
from medssl.stages.options.train import Pretrain
from medssl.stages.paired import Reader, from_data

C = TypeVar("C", bound=ModelConfig)


def optim_of(options: Pretrain) -> OptimOptions:
    """What a person chose of optimiser and schedule, over what is usual for the method."""
    chosen = {name: value for name, value in to_table(options.optim).items() if value is not None}
    return OptimOptions(**to_table(resolve(options.method)[0].usual) | chosen)


def method_config(
    options: Pretrain, settings: Mapping[str, Any] | None, store: Store, rows: Sequence[int]
) -> tuple[Any, Any, Reader | None]:
    """The method's class, its configuration on these scans, and the tokenizer of their reports where it reads them."""
    kind, method = resolve(options.method)
    given, reader = from_data(kind, settings, store, rows)
    config = model_config(kind, options.model, store, len(rows), options.steps, options.loop.batch, given)
    return method, config, reader


def model_config(
    kind: type[C],
    chosen: ModelOptions,
    store: Store,
    images: int,
    steps: int,
    batch: int,
    settings: Mapping[str, Any] | None = None,
) -> C:
    """The configuration of a method or task on this store; ``settings`` are its own options that a person gave."""
    plan = store.plan
    given = to_table(chosen) | dict(settings or {})
    scan = tuple(int(n) for n in np.median(store.shapes, axis=0))
    common = {"dims": plan.dims, "channels": plan.channels, "value_range": tuple(plan.value_range), "scan": scan}
    config = kind(**given | common)
    check_size(config.patch, store.shapes)
    if not config.patch:
        config = replace(config, patch=default_patch(config, store.shapes))
    return config.fitted(images, steps, batch)


def default_patch(config: ModelConfig, shapes: np.ndarray) -> tuple[int, ...]:
    """The published patch, or the largest multiple of the encoder's stride that the median scan fills."""
    with torch.device("meta"):
        stride = build_encoder(config).strides[-1]
    median = np.median(shapes, axis=0)
    if config.dims == 2:
        median = np.full(2, median.min())  # turned by 90° it must fit as well
    return tuple(int(min(most, max(1, n // s) * s)) for most, n, s in zip(config.size, median, stride, strict=True))
