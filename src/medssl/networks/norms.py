"""Normalisation layers by name. Networks are built with BatchNorm; the layers are then exchanged, names kept."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl import distributed

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


class SyncedBatchNorm(nn.SyncBatchNorm):
    """BatchNorm over the batches of all ranks; torch's own, which knows GPUs alone, made to work on a CPU too."""

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda or not (self.training and distributed.active()):
            return super().forward(x)
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *(1,) * (x.ndim - 2))
        whole = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        n = distributed.add_up(whole.new_tensor(x.numel() // x.shape[1]))
        mean = distributed.add_up(whole.sum(axes)) / n
        centred = whole - mean.view(shape)
        var = distributed.add_up(centred.square().sum(axes)) / n
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((var * n / (n - 1)).to(self.running_var), self.momentum)
        scale = (var + self.eps).rsqrt() * self.weight
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


def set_norm(module: nn.Module, norm: NormName, batch_groups: int = 1) -> nn.Module:
    """Exchange every BatchNorm within ``module`` for the named layer; parameters keep their names."""
    return _exchange(module, lambda old: _layer(norm, old, batch_groups))


def synchronise(module: nn.Module) -> nn.Module:
    """Exchange every BatchNorm within ``module`` for one over the batches of all ranks; the state stays as it is."""
    return _exchange(module, _synced)


def _exchange(module: nn.Module, new: Callable[[_BatchNorm], nn.Module]) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, new(child))
        else:
            _exchange(child, new)
    return module


def _synced(old: _BatchNorm) -> nn.Module:
    new = SyncedBatchNorm(old.num_features, old.eps, old.momentum, old.affine)
    new.weight, new.bias = old.weight, old.bias  # the same parameters: an optimiser may know them already
    new.load_state_dict(old.state_dict())
    return new.to(old.running_mean).train(old.training)


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
