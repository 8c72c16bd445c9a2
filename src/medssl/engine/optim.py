"""Optimisers and the learning-rate schedule; a schedule takes progress in [0, 1], never epochs."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

MOMENTUM = 0.9  # of SGD, as published for PCRL


def make_optimizer(
    module: nn.Module,
    *,
    name: str = "adamw",
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    scales: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum, over the parameters that want a gradient.

    Weights of convolutions and linear layers decay; biases and normalisation layers do not. ``scales`` maps the
    beginning of a parameter's name to a multiple of the learning rate (``{"encoder": 0.1}``).
    """
    groups = _groups(module, weight_decay, scales or {})
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM, fused=True)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def warmup_cosine(progress: float, peak: float, warmup: float = 0.05) -> float:
    """Learning rate: linear from 0 to ``peak`` over the first ``warmup`` of the run, then a cosine to 0."""
    if progress < warmup:
        return peak * progress / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its multiple of ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore an optimiser's state in its parameters' memory layout.

    Fused AdamW walks parameter and state side by side in memory: a contiguous moment beside a channels_last weight
    would give silently wrong updates.
    """
    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        for key, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                kept[key] = torch.empty_like(parameter).copy_(value)


def _groups(module: nn.Module, weight_decay: float, scales: Mapping[str, float]) -> list[dict[str, Any]]:
    decaying = set(_decaying(module))
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            scale = next((s for prefix, s in scales.items() if name.startswith(prefix)), 1.0)
            decay = weight_decay if parameter in decaying else 0.0
            groups.setdefault((decay, scale), []).append(parameter)
    return [{"params": p, "weight_decay": decay, "scale": scale} for (decay, scale), p in groups.items()]


def _decaying(module: nn.Module) -> Iterator[nn.Parameter]:
    for part in module.modules():
        if isinstance(part, (nn.Linear, _ConvNd)):
            yield part.weight
