"""Two gloo ranks draw the same levels; heads of the others rest, as on one process, whatever the optimiser decays."""

import torch

from medssl import distributed
from medssl.contract import Batch, backpropagate
from medssl.engine.optim import make_optimizer
from medssl.methods.pcrlv2 import PCRLv2
from medssl.rng import Rng
from two_ranks import two_ranks

HEADS = ("images", "comparers")


def heads(model):
    """Each level's heads as one vector of their parameters."""
    levels = range(len(model.decoder.channels))
    return [torch.cat([p.detach().flatten() for k in HEADS for p in getattr(model, k)[i].parameters()]) for i in levels]


def trained(rank):
    """Levels of two steps, and which levels' heads moved in each; the weights at the end."""
    model = PCRLv2(encoder="unet", width=4, patch=(16, 16), parts=1)
    optimizer, told = make_optimizer(model, lr=1e-2, weight_decay=0.5), []
    for step in range(2):
        images = torch.rand(3, 1, *model.region(), generator=torch.Generator().manual_seed(2 * step + rank))
        views = model.views(Batch.of(images), Rng(0, step, start=3 * rank))
        before = heads(model)
        optimizer.zero_grad(set_to_none=True)
        backpropagate(model.losses(views, 0.1))
        distributed.average_gradients(model.parameters())
        optimizer.step()
        moved = [i for i, (a, b) in enumerate(zip(before, heads(model), strict=True)) if not torch.equal(a, b)]
        told.append((sorted(set(views["levels"])), moved))
    return told, torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()


def test_heads_of_levels_that_were_not_drawn_rest_on_all_ranks():
    found = two_ranks(trained)
    assert found[0] == found[1]
    for levels, moved in found[0][0]:
        assert moved == levels and len(levels) < 4
