"""Normalisation layers by name. Networks are built with BatchNorm; the layers are then exchanged, names kept."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

NormName = Literal["batch", "instance", "group"]


class SplitBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics come from ``groups`` parts of the batch, as if each were a device of its own.

    Between query and key, BatchNorm leaks who is in the batch with whom. Groups that differ for the two (the
    keys are shuffled) close the leak on one device.
    """

    groups = 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.groups == 1:
            return super().forward(x)
        run = super().forward
        # Chunks may be one shorter than others; a group of one image still has its positions to average over.
        return torch.cat([run(part) for part in x.tensor_split(min(self.groups, len(x)))])


class SplitBatchNorm3d(SplitBatchNorm2d, nn.BatchNorm3d):
    """The same for volumes."""

    def _check_input_dim(self, input: Tensor) -> None:
        nn.BatchNorm3d._check_input_dim(self, input)


def set_norm(module: nn.Module, norm: NormName, batch_groups: int = 1) -> nn.Module:
    """Exchange every BatchNorm within ``module`` for the named layer; parameters keep their names."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, _layer(norm, child, batch_groups))
        else:
            set_norm(child, norm, batch_groups)
    return module


def _layer(norm: NormName, old: _BatchNorm, batch_groups: int) -> nn.Module:
    channels, dims = old.num_features, 3 if isinstance(old, nn.BatchNorm3d) else 2
    if norm == "group":
        return nn.GroupNorm(math.gcd(16, channels), channels)
    if norm == "instance":
        return (nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d)(channels, affine=True)
    if batch_groups == 1:
        return old
    new = (SplitBatchNorm2d if dims == 2 else SplitBatchNorm3d)(channels)
    new.groups = batch_groups
    return new


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within, ``module`` only looks: no gradients, running statistics stay. Then it goes on as it was."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
