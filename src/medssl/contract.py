"""What a method is: views, losses that are backpropagated one by one, an update. The engine knows no more than this.

Saved activations, not arithmetic, limit the batch of a method with several decodes. The decodes meet only at the
encoder's features, so ``losses`` yields each term and the driver backpropagates it at once, into leaves that stand
for the features; the summed leaf gradients then go through the encoder once. Same gradients, a third of the memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from medssl.errors import UserError
from medssl.rng import Rng, key

_one_graph: ContextVar[bool] = ContextVar("one_graph", default=False)


@dataclass
class Batch:
    """Samples as the store keeps them; ``normalised()`` gives what networks see.

    image (b, C, *region) stored numbers; gain, bias (b,): normalised = clip(image · gain + bias, *value_range).
    item, patient (b,) int64 row numbers, for what must not be a negative. mask (b, *region) integers; label (b, k)
    float, NaN where missing.
    """

    image: Tensor
    gain: Tensor
    bias: Tensor
    item: Tensor
    patient: Tensor
    value_range: tuple[float, float] = (0.0, 1.0)
    mask: Tensor | None = None
    label: Tensor | None = None

    @classmethod
    def of(cls, images: Tensor, ids: Tensor | None = None, value_range: tuple[float, float] = (0.0, 1.0)) -> "Batch":
        """Wrap ready-made float images (b, C, *region); without ``ids`` every image is its own patient."""
        b = len(images)
        ids = torch.arange(b) if ids is None else ids.cpu().long()
        return cls(images, torch.ones(b), torch.zeros(b), ids, ids, value_range)

    def __len__(self) -> int:
        return len(self.image)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; ids stay where they are needed, with the images."""
        moved: dict[str, Any] = {
            k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, Tensor)
        }
        return replace(self, **moved)

    def normalised(self) -> Tensor:
        """(b, C, *region) float32 in ``value_range``."""
        shape = (-1,) + (1,) * (self.image.ndim - 1)
        return (self.image.float() * self.gain.view(shape) + self.bias.view(shape)).clamp_(*self.value_range)


@dataclass
class Views:
    """What a method sees of a batch: named images, and the chance that made them.

    Everything random is drawn before it gets here, so ``losses`` is a pure function of parameters and views.
    """

    images: dict[str, Tensor]
    drawn: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.images[name] if name in self.images else self.drawn[name]


class Shared:
    """Features that several terms use, cut from the encoder's graph: ``maps`` are leaves that collect gradients.

    Maps that need no gradient pass through. ``Shared`` is yielded last; the driver then sends the collected
    gradients through the encoder. In one-graph mode ``maps`` are the encoder's own and yielding does nothing.
    """

    def __init__(self, maps: Sequence[Tensor]) -> None:
        self._roots = list(maps)
        cut = not _one_graph.get()
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
    """One weighted scalar of the objective. ``at`` names the features at which its gradient norm is measured."""

    name: str
    value: Tensor
    at: Shared | None = None


@dataclass
class Losses:
    """The whole objective in one graph, for reading and for tests."""

    total: Tensor
    terms: dict[str, Tensor]


class Method(nn.Module):
    """Base of every pre-training method and every task. ``encoder`` is what is kept."""

    encoder: nn.Module
    config: Any

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

    def forward(self, images: Tensor, ids: Tensor | None = None, step: int = 0) -> Losses:
        """All terms of ``images`` (b, C, *spatial) in one graph: the reference path, hungrier than ``step``."""
        views = self.views(self._wrap(images, ids), Rng(self.config.seed, step))
        with one_graph():
            terms = {item.name: item.value for item in self.losses(views, 0.0) if isinstance(item, Term)}
        return Losses(torch.stack(list(terms.values())).sum(), terms)

    def step(
        self,
        images: Tensor,
        optimizer: torch.optim.Optimizer,
        ids: Tensor | None = None,
        progress: float = 0.0,
    ) -> dict[str, float]:
        """One training step on ``images`` (b, C, *spatial); returns the terms.

        ``ids`` (b,) name image or patient, so that the same one is never its own negative when it comes again.
        """
        count = getattr(self, "_steps", 0)
        views = self.views(self._wrap(images, ids), Rng(self.config.seed, count))
        optimizer.zero_grad(set_to_none=True)
        terms = backpropagate(self.losses(views, progress))
        optimizer.step()
        self.after_step(progress)
        self._steps = count + 1
        return {name: float(value) for name, value in terms.items()}

    def _wrap(self, images: Tensor, ids: Tensor | None) -> Batch:
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
        device = next(self.parameters()).device
        batch = Batch.of(images, self._own_ids(len(images)) if ids is None else ids, config.value_range)
        return batch.to(device)

    def _own_ids(self, n: int) -> Tensor:
        # Negative, so that they never meet an id the user gives; new ones every step.
        return -1 - torch.arange(n) - n * getattr(self, "_steps", 0)


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """Within, layers draw their first weights from ``seed``; a user's own generator goes on undisturbed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "weights") % 2**63)
        yield


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


@contextmanager
def one_graph() -> Iterator[None]:
    """Within, ``Shared`` cuts nothing: all terms hang on one graph."""
    token = _one_graph.set(True)
    try:
        yield
    finally:
        _one_graph.reset(token)


def backpropagate(
    items: Iterator[Term | Shared],
    backward: Callable[[Tensor], None] = lambda value: value.backward(),
    norms: dict[str, float] | None = None,
) -> dict[str, Tensor]:
    """Backpropagate each term as it comes; return the detached terms. Fills ``norms`` (gradient norms) if given."""
    terms: dict[str, Tensor] = {}
    for item in items:
        if isinstance(item, Shared):
            item.backward()
            continue
        if item.value.requires_grad:
            measured = item.at if norms is not None else None
            before = {i: g.clone() for i, g in measured.gradients().items()} if measured else {}
            backward(item.value)
            if measured and norms is not None:
                norms[item.name] = _added_norm(before, measured.gradients())
        terms[item.name] = item.value.detach()
    return terms


def _added_norm(before: dict[int, Tensor], after: dict[int, Tensor]) -> float:
    added = [(grad - before[i] if i in before else grad).float().norm() for i, grad in after.items()]
    return float(torch.stack(added).norm()) if added else 0.0
