"""The one loop. It drives any method or task, and knows nothing of logs, probes, checkpoints: its caller does."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from torch import Tensor

from medssl import distributed
from medssl.contract import Batch, Method, Shared, Term, backpropagate
from medssl.engine.optim import set_lr
from medssl.engine.parts import Parts
from medssl.errors import UserError
from medssl.rng import Rng, key


@dataclass(frozen=True)
class Step:
    """One finished step. ``terms`` stay on the device until ``floats`` asks for them."""

    step: int
    """Steps done, this one included."""
    terms: dict[str, Tensor]
    lr: float
    data_wait_s: float
    samples: int
    """Samples of this step, over all ranks."""
    logged: bool
    parts: int = 1
    """In how many parts the batch went."""
    norms: dict[str, float] = field(default_factory=dict)
    """Gradient norm of each term at the features it names; on logged steps only."""

    def floats(self) -> dict[str, float]:
        """The terms as numbers, averaged over ranks (all must call); one transfer from the device."""
        values = torch.stack([value.float() for value in self.terms.values()])
        if distributed.active():
            dist.all_reduce(values)
            values /= distributed.world_size()
        return dict(zip(self.terms, values.tolist(), strict=True))


REMEDY = "lower --lr, or add --clip 1, or choose --precision 32; the last good checkpoint is kept"


class NonFinite(UserError):
    """A term of the objective became NaN or infinite."""


def fit(
    method: Method,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    fabric: Fabric,
    *,
    steps: int,
    lr: Callable[[float], float],
    start: int = 0,
    seed: int = 0,
    clip: float = 0.0,
    log_every: int = 10,
    parts: Parts | None = None,
) -> Iterator[Step]:
    """Train from step ``start`` to ``steps``, yielding each finished step.

    ``batches`` yields this rank's share; ``lr`` maps progress to a learning rate; ``clip`` bounds the gradient norm.
    ``parts`` says in how many a batch is taken, and takes more where memory runs out; by default whole.
    At a yield model and optimiser are whole: the caller may save them, or stop.
    """
    optimizer = fabric.setup_optimizers(optimizer)  # type: ignore[assignment]
    # On an accelerator reading a number waits for all the work queued so far, so it is read when a log line is due.
    watch = _Watch(every=1 if fabric.device.type == "cpu" else log_every)
    for done in range(start, steps):
        progress = (done + 0.5) / steps  # the middle of the step: neither the first nor the last has a rate of zero
        began = time.perf_counter()
        batch = next(batches)
        data_wait_s = time.perf_counter() - began
        logged = (done + 1) % log_every == 0 or done + 1 == steps
        norms: dict[str, float] | None = {} if logged else None
        terms = _gradients(method, batch, fabric, seed, done, progress, norms, parts)
        watch(done + 1, terms, now=done + 1 == steps)
        rate = lr(progress)
        _update(method, optimizer, fabric, rate, clip)
        method.after_step(progress)
        samples = len(batch) * distributed.world_size()
        yield Step(done + 1, terms, rate, data_wait_s, samples, logged, parts.count if parts else 1, norms or {})


def autocast_each(
    items: Iterator[Term | Shared], autocast: Callable[[], AbstractContextManager[object]]
) -> Iterator[Term | Shared]:
    """Compute each item under autocast and leave it before handing the item on.

    Held across a backward or the optimiser's step, autocast would serve stale copies of the weights.
    """
    while True:
        with autocast():
            item = next(items, None)
        if item is None:
            return
        yield item


def _gradients(
    method: Method,
    batch: Batch,
    fabric: Fabric,
    seed: int,
    done: int,
    progress: float,
    norms: dict[str, float] | None,
    parts: Parts | None,
) -> dict[str, Tensor]:
    """Views, then every term's gradient, averaged over ranks; returns the detached terms."""
    if not method.training:
        method.train()
    rank, whole = distributed.rank(), [slice(0, len(batch))]

    def step(rows: list[slice]) -> dict[str, Tensor]:
        _seed_layers(fabric.device, key(seed, "layers", done, rank) % 2**63)
        method.zero_grad(set_to_none=True)
        method.noted = []
        terms: dict[str, Tensor] = {}
        if norms is not None:
            norms.clear()
        for part in rows:
            samples = fabric.to_device(batch.part(part))
            with torch.no_grad():
                views = method.views(samples, Rng(seed, done, start=rank * len(batch) + part.start))
            items = autocast_each(method.losses(views, progress), fabric.autocast)
            backpropagate(items, fabric.backward, norms, len(samples) / len(batch), terms)
        return terms

    terms = step(whole) if parts is None else parts.run(step)
    distributed.average_gradients(method.parameters())
    if norms:
        norms.update({name: norm / _scale(fabric) for name, norm in norms.items()})
    return terms


def _seed_layers(device: torch.device, seed: int) -> None:
    """torch's own chance, dropout say. ``torch.manual_seed`` would look after every kind of device there may be."""
    torch.default_generator.manual_seed(seed)
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).manual_seed(seed)


def _update(method: Method, optimizer: torch.optim.Optimizer, fabric: Fabric, lr: float, clip: float) -> None:
    if clip > 0:
        torch.nn.utils.clip_grad_norm_(method.parameters(), clip * _scale(fabric))
    set_lr(optimizer, lr)
    optimizer.step()


def _scale(fabric: Fabric) -> float:
    """Factor that gradients carry until the optimiser's step: float16 keeps them large, else it is 1."""
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    return 1.0 if scaler is None else scaler.get_scale()


class _Watch:
    """Stops a run whose objective is no longer a number, and names the first step and term where it was not."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.unseen: list[tuple[int, dict[str, Tensor]]] = []

    def __call__(self, step: int, terms: dict[str, Tensor], now: bool = False) -> None:
        self.unseen.append((step, terms))
        if len(self.unseen) < self.every and not now:
            return
        unseen, self.unseen = self.unseen, []
        values = torch.stack([value.float() for _, kept in unseen for value in kept.values()])
        if bool(values.isfinite().all()):
            return
        names = [(step, name) for step, kept in unseen for name in kept]
        bad = zip(values.tolist(), names, strict=True)
        number, (step, name) = next((v, at) for v, at in bad if not math.isfinite(v))
        raise NonFinite(f"term '{name}' became {number} at step {step}", fix=REMEDY)
