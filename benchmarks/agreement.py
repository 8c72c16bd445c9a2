"""Row 9. Whether the device computes what it should: steps, views and losses against float64 on the processor.

TF32 is off here: what is asked is whether the arithmetic is right, not what a run gives up for speed.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import infonce
from benchmarks.case import Case, moved
from benchmarks.measure import Metric
from medssl.contract import Views, backpropagate
from medssl.engine.fit import autocast_each
from medssl.losses.contrastive import unit
from medssl.rng import Rng

SIZES = {2: (2, 8, 16, (64, 64)), 3: (3, 4, 8, (16, 16, 16))}
TINY = {2: (2, 4, 8, (32, 32))}  # a processor's float64 has no fast convolution in 3D
# Relative errors. Most of that of float32's gradients comes from activations that rounding puts on the other side of a
# ReLU's kink: a processor has .004 in 2D, and .00002 in 3D. bf16 is that coarse: a processor has .32 and .22.
GOALS = {
    "float32": {"terms": "<= 1e-05", "gradients": "<= 0.01", "state after the update": "<= 1e-06"},
    "bf16": {"terms": "<= 0.02", "gradients": "<= 0.5"},
}
WHERE = 1e-3  # a value of a view that is off by more is another value: an edge rounded to the other side


def metrics(pairs: int, quick: bool, device: str = "cpu") -> Iterator[Metric]:
    """Steps in 2D and 3D, each precision; views; branch by branch and one graph; strips and the whole matrix."""
    with tf32(False):
        for dims, arguments in (TINY if quick else SIZES).items():
            steps = reference(arguments, 1 if quick else 3)
            for precision, goals in GOALS.items():
                found = errors(steps, arguments, device, precision)
                for what, goal in goals.items():
                    name = f"{what} of {dims}D steps, {precision}: relative error"
                    note = f"the largest of {len(steps)} step(s), against float64 on the processor"
                    yield Metric(row=9, name=name, value=found[what], goal=goal, note=note)
            yield _views(dims, arguments, device)
            yield _graphs(dims, arguments, device)
        n = 256 if quick else 2048
        value = infonce.error(n, device, torch.float64)
        name = f"gradients of InfoNCE by strips, N = {n}, float64: relative error"
        yield Metric(row=9, name=name, value=value, goal="<= 1e-12", note="against the whole matrix")


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether products and convolutions of a GPU may round float32 to 10 bits of mantissa."""
    owners = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [owner.allow_tf32 for owner in owners]
    try:
        for owner in owners:
            owner.allow_tf32 = allowed
        yield
    finally:
        for owner, value in zip(owners, before, strict=True):
            owner.allow_tf32 = value


@dataclass
class Step:
    """What a step began with and came to; tensors on the processor, float64 but for the views."""

    views: Views
    before: dict[str, Tensor]
    terms: list[Tensor]
    gradients: list[Tensor]
    after: dict[str, Tensor]


def reference(arguments: tuple, count: int) -> list[Step]:
    """Steps in float64 on the processor, on views made there in float32."""
    case = _case(arguments, contiguous=True, fused=False)
    views = [case.model.views(case.batch, Rng(0, step)) for step in range(count)]
    case.model.double()
    steps = []
    for each in views:
        before = _state(case)
        terms = _pass(case, each, torch.float64)
        gradients = [p.grad.clone() for p in _learnt(case)]
        case.update()
        steps.append(Step(each, before, terms, gradients, _state(case)))
    return steps


def errors(steps: list[Step], arguments: tuple, device: str, precision: str) -> dict[str, float]:
    """The largest over ``steps``: each begins with the reference's state, so that none inherits another's rounding.

    The update is given the reference's gradients, for the same reason.
    """
    case = _case(arguments, device=device, precision=precision)
    worst = dict.fromkeys(("terms", "gradients", "state after the update"), 0.0)
    for step in steps:
        case.model.load_state_dict(step.before)
        terms = _pass(case, step.views, torch.float32)
        found = {
            "terms": max(_error([a], [b]) for a, b in zip(terms, step.terms, strict=True)),
            "gradients": _error([p.grad for p in _learnt(case)], step.gradients),
        }
        for parameter, gradient in zip(_learnt(case), step.gradients, strict=True):
            parameter.grad.copy_(gradient)
        case.update()
        found["state after the update"] = _error(_state(case).values(), step.after.values())
        worst = {name: max(value, found[name]) for name, value in worst.items()}
    return worst


def _case(arguments: tuple, **options: object) -> Case:
    """Mixed inputs too, and a quick teacher, or its update would be lost in the rounding of its weights."""
    torch.manual_seed(0)
    case = Case(*arguments, mix=True, momentum=0.9, **options)  # type: ignore[arg-type]
    keys = torch.randn(64, case.model.config.embed_dim)  # the first step shall have negatives
    ids = torch.arange(-len(keys), 0)
    case.model.queue.enqueue(*(x.to(case.device) for x in (unit(keys), ids, ids)))
    return case


def _pass(case: Case, views: Views, dtype: torch.dtype) -> list[Tensor]:
    """Gradients term by term; returns the terms."""
    case.model.zero_grad(set_to_none=True)
    case.model.noted = []
    views = moved(views, case.device, dtype)
    return list(backpropagate(autocast_each(case.model.losses(views, 0.0), case.precision)).values())


def _learnt(case: Case) -> list[Tensor]:
    return [p for p in case.model.parameters() if p.grad is not None]


def _state(case: Case) -> dict[str, Tensor]:
    return {name: x.detach().clone() for name, x in case.model.state_dict().items()}


def _error(found: Iterable[Tensor], wanted: Iterable[Tensor]) -> float:
    """‖found − wanted‖ ÷ ‖wanted‖, of all together."""
    ours, theirs = (torch.cat([x.detach().cpu().double().reshape(-1) for x in part]) for part in (found, wanted))
    return float((ours - theirs).norm() / theirs.norm())


def _views(dims: int, arguments: tuple, device: str) -> Metric:
    """Views of the same chance, made there and here."""
    case = _case(arguments)
    here = case.model.views(case.batch, Rng(0, 1)).images
    there = case.model.views(case.batch.to(torch.device(device)), Rng(0, 1)).images
    off = [(there[name].cpu().float() - x.float()).abs().flatten() > WHERE for name, x in here.items()]
    share = float(torch.cat(off).float().mean())
    name = f"views in {dims}D: share of values that differ by more than {WHERE:g}"
    return Metric(row=9, name=name, value=share, goal="<= 0.001", note="made on the device, and on the processor")


def _graphs(dims: int, arguments: tuple, device: str) -> Metric:
    """In float64, where only a mistake can make a difference."""
    case = _case(arguments, device=device)
    case.views = moved(case.views, device, torch.float64)
    case.model.double()
    gradients = []
    for run in (case.branchwise, case.whole):
        run()
        gradients.append([p.grad.clone() for p in _learnt(case)])
    name = f"gradients of a {dims}D step branch by branch, float64: relative error"
    return Metric(row=9, name=name, value=_error(*gradients), goal="<= 1e-10", note="against one graph")
