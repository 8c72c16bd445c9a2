"""What a method is: views, losses that are backpropagated one by one, an update. The engine knows no more than this.

Saved activations, not arithmetic, limit the batch of a method with several decodes. The decodes meet only at the
encoder's features, so ``losses`` yields each term and the driver backpropagates it at once, into leaves that stand
for the features; the summed leaf gradients then go through the encoder once. Same gradients, a third of the memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from medssl.batch import Batch, Views
from medssl.errors import UserError
from medssl.rng import Rng

_one_graph: ContextVar[bool] = ContextVar("one_graph", default=False)


class Gathers(Protocol):
    """Features that collect gradients."""

    def gradients(self) -> dict[Any, Tensor]:
        """What they have collected so far."""


class Shared:
    """Features that several terms use, cut from the encoder's graph: ``maps`` are leaves that collect gradients.

    Maps that need no gradient pass through. ``Shared`` is yielded last; the driver then sends the collected
    gradients through the encoder. In one-graph mode ``maps`` are the encoder's own and yielding does nothing.
    """

    def __init__(self, maps: Sequence[Tensor]) -> None:
        self._roots = list(maps)
        cut = not in_one_graph()
        self.maps = [m.detach().requires_grad_() if cut and m.requires_grad else m for m in maps]

    def gradients(self) -> dict[int, Tensor]:
        """Gradients collected so far, by level; a level that no term has reached is absent."""
        return {i: m.grad for i, m in enumerate(self.maps) if m is not self._roots[i] and m.grad is not None}

    def backward(self) -> None:
        """Send the collected gradients through the encoder; already scaled, so nothing scales them again."""
        collected = self.gradients()
        if collected:
            torch.autograd.backward([self._roots[i] for i in collected], list(collected.values()))
        self._roots, self.maps = [], []


@dataclass
class Term:
    """One weighted scalar of the objective. ``at`` names the features at which its gradient norm is measured.

    A name that comes again, a term of the next chunk of the batch at features of its own, adds to what came before.
    """

    name: str
    value: Tensor
    at: "Gathers | None" = None


@dataclass
class Losses:
    """The whole objective in one graph, for reading and for tests."""

    total: Tensor
    terms: dict[str, Tensor]


class Method(nn.Module):
    """Base of every pre-training method and every task. ``encoder`` is what is kept."""

    encoder: nn.Module
    config: Any
    needs_modality: bool = False
    """Whether the objective reads ``Batch.modality``."""

    least: int = 1
    """Fewest samples that its losses can be taken of, on each rank."""

    paired: bool = False
    """Whether it compares scans of a subject: batches are then drawn by subject, see ``data.pairs``."""

    coupled: str = ""
    """Half a sentence: what ties the samples of a batch, so that its gradient is not that of its parts added up.

    Empty where the objective is a mean over samples. Batch norm apart, which shows in the layers."""

    cached: bool = False
    """Whether a coupled method encodes ``chunk`` samples at a time by gradient caching; 0: all at once."""
    chunk: int = 0

    def __init__(self) -> None:
        super().__init__()
        # What ``losses`` leaves for ``after_step``, an entry for each part of the batch; a driver empties it first.
        self.noted: list[Any] = []

    def check_scans(self, modality: Tensor, patient: Tensor) -> None:
        """Refuse, before a run starts, scans that nothing can be learnt from; (n,) codes as in ``Batch``."""

    def region(self) -> tuple[int, ...]:
        """Spatial shape of what a worker cuts from the store for one sample; ``views`` makes all crops of it."""
        raise NotImplementedError

    def views(self, batch: Batch, rng: Rng) -> Views:
        """Draw and make the views of a batch, on the batch's device, without gradient."""
        raise NotImplementedError

    def losses(self, views: Views, progress: float) -> Iterator[Term | Shared]:
        """Yield weighted terms, then the features they share. ``progress`` in [0, 1]. Never yield inside a context."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Update what the optimiser does not: a momentum encoder, a queue."""

    # In a user's own loop ------------------------------------------------------------------------------------

    def forward(
        self, images: Tensor, ids: Tensor | None = None, step: int = 0, modality: Tensor | None = None
    ) -> Losses:
        """All terms of ``images`` (b, C, *spatial) in one graph: the reference path, hungrier than ``step``."""
        self.noted = []
        views = self.views(self._wrap(images, ids, modality), Rng(self.config.seed, step))
        with one_graph():
            terms: dict[str, Tensor] = {}
            for item in self.losses(views, 0.0):
                if isinstance(item, Term):
                    terms[item.name] = terms[item.name] + item.value if item.name in terms else item.value
        return Losses(torch.stack(list(terms.values())).sum(), terms)

    def step(
        self,
        images: Tensor,
        optimizer: torch.optim.Optimizer,
        ids: Tensor | None = None,
        progress: float = 0.0,
        modality: Tensor | None = None,
    ) -> dict[str, float]:
        """One training step on ``images`` (b, C, *spatial); returns the terms.

        ``ids`` (b,) name image or patient, so that the same one is never its own negative when it comes again.
        ``modality`` (b,) integers, any code a modality, for methods that compare modalities.
        """
        count = getattr(self, "_steps", 0)
        views = self.views(self._wrap(images, ids, modality), Rng(self.config.seed, count))
        optimizer.zero_grad(set_to_none=True)
        self.noted = []
        terms = backpropagate(self.losses(views, progress))
        optimizer.step()
        self.after_step(progress)
        self._steps = count + 1
        return {name: float(value) for name, value in terms.items()}

    def _wrap(self, images: Tensor, ids: Tensor | None, modality: Tensor | None) -> Batch:
        config = self.config
        if not isinstance(images, Tensor) or not images.is_floating_point():
            kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise UserError(f"images are {kind}", fix="give a float tensor, scaled to the value range")
        if images.ndim != config.dims + 2:
            wanted = "(b, C, H, W)" if config.dims == 2 else "(b, C, X, Y, Z)"
            raise UserError(f"images have shape {tuple(images.shape)}", fix=f"a {config.dims}D method takes {wanted}")
        if images.shape[1] != config.channels:
            fix = f"give {config.channels}, or make the method with channels={images.shape[1]}"
            raise UserError(f"images have {images.shape[1]} channels", fix=fix)
        if ids is not None and len(ids) != len(images):
            raise UserError(f"{len(ids)} ids for {len(images)} images", fix="give one id an image")
        _check_range(images, config.value_range)
        ids = self._own_ids(len(images)) if ids is None else ids
        batch = Batch.of(images, ids, config.value_range, self._codes(len(images), modality))
        return batch.to(next(self.parameters()).device)

    def _codes(self, n: int, modality: Tensor | None) -> Tensor | None:
        if modality is None:
            if self.needs_modality:
                fix = "give modality=, one integer an image, equal for images of one modality"
                raise UserError("the modalities of the images are not told", fix=fix)
            return None
        if not isinstance(modality, Tensor) or modality.is_floating_point() or modality.shape != (n,):
            found = isinstance(modality, Tensor)
            given = f"{modality.dtype} {tuple(modality.shape)}" if found else type(modality).__name__
            raise UserError(f"modality is {given} for {n} images", fix="give an integer tensor, one code an image")
        return modality.long()

    def _own_ids(self, n: int) -> Tensor:
        # Negative, so that they never meet an id the user gives; new ones every step.
        return -1 - torch.arange(n) - n * getattr(self, "_steps", 0)


def _check_range(images: Tensor, value_range: tuple[float, float]) -> None:
    """Refuse images (b, C, *spatial) outside the range: ``Batch.normalised`` would clip them without a word."""
    if not images.numel():
        raise UserError(f"images have shape {tuple(images.shape)}", fix="give one image or more")
    low, high = torch.stack(torch.aminmax(images.detach())).tolist()  # one transfer from the device
    least, most = value_range
    slack = 1e-3 * (most - least)  # what resampling and half precision may add
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError("images hold NaN or infinities", fix="replace them, by torch.nan_to_num for one")
    if low < least - slack or high > most + slack:
        what = f"images hold values from {low:g} to {high:g} where the method takes {least:g} to {most:g}"
        raise UserError(what, fix=f"scale them, or make the method with value_range=({low:g}, {high:g})")


@contextmanager
def one_graph() -> Iterator[None]:
    """Within, ``Shared`` cuts nothing: all terms hang on one graph."""
    token = _one_graph.set(True)
    try:
        yield
    finally:
        _one_graph.reset(token)


def in_one_graph() -> bool:
    """True within ``one_graph``."""
    return _one_graph.get()


def backpropagate(
    items: Iterator[Term | Shared],
    backward: Callable[[Tensor], None] = lambda value: value.backward(),
    norms: dict[str, float] | None = None,
    share: float = 1.0,
    terms: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Backpropagate each term as it comes; return the detached terms. Fills ``norms`` (gradient norms) if given.

    Of a batch in parts: ``share`` of the batch that these items are of; ``terms`` and ``norms`` of the parts before,
    to which these are added.
    """
    terms = {} if terms is None else terms
    for item in items:
        if isinstance(item, Shared):
            item.backward()
            continue
        value = item.value if share == 1.0 else share * item.value
        if value.requires_grad:
            measured = item.at if norms is not None else None
            before = {i: g.clone() for i, g in measured.gradients().items()} if measured else {}
            backward(value)
            if measured and norms is not None:  # parts have samples of their own, so that their squares add up
                norms[item.name] = math.hypot(norms.get(item.name, 0.0), _added_norm(before, measured.gradients()))
        value = value.detach()
        terms[item.name] = terms[item.name] + value if item.name in terms else value
    return terms


def _added_norm(before: dict[Any, Tensor], after: dict[Any, Tensor]) -> float:
    added = [(grad - before[i] if i in before else grad).float().norm() for i, grad in after.items()]
    return float(torch.stack(added).norm()) if added else 0.0
