"""The momentum encoder and the queue of its keys."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from medssl import distributed
from medssl.networks.norms import NormName
from medssl.rng import Rng

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C")

LARGEST = 16384  # keys of a queue, as published for PCRL
SLOWEST = 0.999  # momentum, as published for MoCo and PCRL
FRESH = 0.06  # (1 - m) · steps that a key is kept: how far the teacher may move while a key is a negative


def fit_queue(queue: int | None, momentum: float | None, images: int, steps: int, batch: int) -> tuple[int, float]:
    """Keys and momentum that suit this many training images and steps of this batch, where none is given.

    The teacher reaches back over 5 % of a short run, and no key stays that it has left behind (ADR 0008).
    """
    momentum = min(SLOWEST, max(0.9, 1 - 20 / steps)) if momentum is None else momentum
    fresh = max(4 * batch, round(FRESH * batch / (1 - momentum)))
    return queue or max(1, min(LARGEST, images, fresh)), momentum


class FittedQueue:
    """Of a configuration with a ``queue`` and a ``momentum``: what suits the data and the run, where none is given."""

    # MoCo: 65536 keys, m = .999, for a million images. PCRL: 16384 keys, m = .999, for every data set.
    # Ours: a teacher that reaches back over 5 % of a short run; no key that it has left behind (ADR 0008).
    def fitted(self: C, images: int, steps: int, batch: int) -> C:
        """The same for this many training images and steps of this batch."""
        config: Any = self
        queue, momentum = fit_queue(config.queue, config.momentum, images, steps, batch)
        return replace(config, queue=queue, momentum=momentum)


def frozen_copy(module: M) -> M:
    """An exact copy, buffers included, that no gradient reaches."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def move_towards(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """θ_m ← m·θ_m + (1-m)·θ_o. Buffers stay: the teacher's running statistics come from its own passes."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)


def sample_shuffle(rng: Rng, batch: int, norm: NormName, groups: int) -> Tensor | None:
    """A permutation of the global batch for ``teach``, the same on all ranks; None where it would do nothing."""
    ranks = distributed.world_size()
    if norm != "batch" or max(ranks, groups) == 1:
        return None
    return torch.from_numpy(rng.batch("keys/shuffle").permutation(batch * ranks))


@torch.no_grad()
def teach(encoder: nn.Module, x: Tensor, shuffle: Tensor | None = None) -> list[Tensor]:
    """The teacher's maps of ``x`` (b, …).

    ``shuffle``, a permutation of the global batch and the same on all ranks, has each image normalised among other
    neighbours than the student's, on another rank where there are several.
    """
    if shuffle is None:
        return encoder(x)
    own = slice(distributed.rank() * len(x), (distributed.rank() + 1) * len(x))
    maps = encoder(distributed.gather(x)[shuffle[own]])
    back = shuffle.argsort()[own]
    return [distributed.gather(level)[back] for level in maps]


def joined(parts: Iterable[Sequence[Tensor]]) -> Iterator[Tensor]:
    """Keys, items and patients of the ``parts`` of a step, one after the other, and those of all ranks."""
    return (distributed.gather(torch.cat(pieces)) for pieces in zip(*parts, strict=True))


class KeyQueue(nn.Module):
    """The latest keys with the ids of their images and patients; a ring whose pointer is part of the state.

    It starts empty: a random key would be a negative that no image can meet again.
    """

    keys: Tensor
    items: Tensor
    patients: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, width))
        self.register_buffer("items", torch.zeros(size, dtype=torch.long))
        self.register_buffer("patients", torch.zeros(size, dtype=torch.long))
        # Tensors and not ints: part of the state, and no step waits for the device to tell them.
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    def allowed(self, items: Int[Tensor, " b"], patients: Int[Tensor, " b"]) -> Bool[Tensor, "b size"]:
        """Which keys may be negatives of which image: those of another image of another patient."""
        present = torch.arange(len(self.keys), device=self.keys.device) < self.filled
        same = (items[:, None] == self.items) | (patients[:, None] == self.patients)
        return present & ~same

    @torch.no_grad()
    def enqueue(self, keys: Float[Tensor, "b d"], items: Int[Tensor, " b"], patients: Int[Tensor, " b"]) -> None:
        """Replace the oldest keys; of more keys than places the last ones stay."""
        size = len(self.keys)
        n = min(size, len(keys))
        places = (self.pointer + torch.arange(n, device=self.keys.device)) % size
        self.keys.index_copy_(0, places, keys[-n:].to(self.keys.dtype))
        self.items.index_copy_(0, places, items[-n:])
        self.patients.index_copy_(0, places, patients[-n:])
        self.pointer.copy_((self.pointer + n) % size)
        self.filled.copy_((self.filled + n).clamp(max=size))
