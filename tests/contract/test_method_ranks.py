"""Two ranks learn what one process would from the same global batch: every row of METHODS, in float64."""

from dataclasses import replace

import pytest
import torch

from medssl import distributed
from medssl.contract import Batch, backpropagate
from medssl.methods import METHODS, resolve
from medssl.networks.norms import synchronise
from medssl.rng import Rng
from two_ranks import two_ranks

B, STEPS = 4, 3
FROM_DATA = {"cmcl": {"modalities": ("CT", "MR")}}  # what a run reads from its store
# cmcl gives each modality an encoder of its own, and a rank may lack one: it refuses synchronised statistics.
CASES = [(name, norm) for name in METHODS for norm in ("group", "batch") if (name, norm) != ("cmcl", "batch")]


def _make(name, norm):
    config, kind = resolve(name)
    options = {"encoder": "unet", "width": 4, "dims": 2, "patch": (16, 16), **FROM_DATA.get(name, {})}
    method = kind(config(**options, norm=norm).fitted(64, 200, B)).double()
    return method if name == "cmcl" else synchronise(method)  # heads may have batch norms whatever --norm says


def _batch(method, step, share):
    """Other patients every step; two studies in two modalities."""
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(B, 1, *method.region(), generator=generator)
    batch = Batch.of(images[share], (torch.arange(B) + B * step)[share], modality=(torch.arange(B) % 2)[share])
    return replace(batch, subject=(torch.arange(B) // 2 + 2 * step)[share])


def _doubled(values):
    return {k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in values.items()}


def learnt(name, norm, share=slice(0, B)):
    """(terms of each step, state) after a few steps of this share of each batch."""
    method = _make(name, norm)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    told = []
    for step in range(STEPS):
        views = method.views(_batch(method, step, share), Rng(0, step, start=share.start))
        views.images, views.drawn = _doubled(views.images), _doubled(views.drawn)
        optimizer.zero_grad(set_to_none=True)
        terms = backpropagate(method.losses(views, step / STEPS))
        distributed.average_gradients(method.parameters())
        optimizer.step()
        method.after_step(step / STEPS)
        told.append({k: float(distributed.gather(v.double()[None]).mean()) for k, v in terms.items()})
    return told, {k: v.numpy() for k, v in method.state_dict().items()}


def _share(rank):
    half = B // 2
    return {case: learnt(*case, slice(rank * half, (rank + 1) * half)) for case in CASES}


@pytest.fixture(scope="module")
def both():
    return two_ranks(_share)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_two_ranks_learn_what_one_process_would(both, case):
    told, state = learnt(*case)
    assert all(abs(value) > 1e-4 for value in told[-1].values())  # the first step may have no negatives yet
    for rank in (0, 1):
        theirs, weights = both[rank][case]
        for ours, there in zip(told, theirs, strict=True):
            assert there == pytest.approx(ours, abs=1e-6)
        assert weights.keys() == state.keys()
        for name, value in state.items():
            assert abs(weights[name] - value).max(initial=0) <= 1e-6, name
