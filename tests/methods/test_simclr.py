"""SimCLR against Eq. 1, written out number by number in float64, and what must not change it."""

import math

import pytest
import torch

from medssl import distributed
from medssl.contract import Batch, Term, backpropagate, one_graph
from medssl.errors import UserError
from medssl.methods.pcrl import PCRL
from medssl.methods.simclr import SimCLR
from medssl.rng import Rng
from two_ranks import two_ranks

TINY = {"encoder": "unet", "width": 4}


def make(dims=2, **options):
    return SimCLR(**{**TINY, "dims": dims, "patch": (16,) * dims, "embed_dim": 6, **options})


def views_of(model, ids=(0, 1, 2, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(len(ids), 1, *model.region(), generator=generator)
    views = model.views(Batch.of(images, torch.tensor(ids)), Rng(seed, 0))
    dtype = next(model.parameters()).dtype
    views.images = {name: image.to(dtype) for name, image in views.images.items()}
    return views


def contrast(model, views):
    with one_graph():
        return next(item.value for item in model.losses(views, 0.0) if isinstance(item, Term))


@torch.no_grad()
def naive(model, views):
    """Eq. 1, an anchor and a candidate at a time; another image of the same patient is no candidate."""
    z = model.projector(model.encoder(torch.cat([views["x1"], views["x2"]]))[-1].flatten(2).mean(2))
    z, b = [row / row.norm() for row in z], len(views["x1"])
    total = 0.0
    for i in range(2 * b):
        j = (i + b) % (2 * b)
        below = math.exp(float(z[i] @ z[j]) / model.config.temperature)
        positive = below
        for k in range(2 * b):
            if int(views["patient"][k % b]) != int(views["patient"][i % b]):
                below += math.exp(float(z[i] @ z[k]) / model.config.temperature)
        total -= math.log(positive / below)
    return total / (2 * b)


@pytest.mark.parametrize("ids", [(0, 1, 2, 3), (5, 5, 6, 5)])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_loss_equals_its_equation(dims, ids):
    model = make(dims).double()
    views = views_of(model, ids)
    assert float(contrast(model, views).detach()) == pytest.approx(naive(model, views), abs=1e-12)


def test_neither_order_of_the_batch_nor_exchange_of_the_views_matters():
    model = make(norm="group").double()
    views = views_of(model)
    expected = float(contrast(model, views).detach())
    order = torch.tensor([2, 0, 3, 1])
    views.images = {name: image[order] for name, image in views.images.items()}
    assert float(contrast(model, views).detach()) == pytest.approx(expected, abs=1e-12)
    views.images = {"x1": views["x2"], "x2": views["x1"]}
    assert float(contrast(model, views).detach()) == pytest.approx(expected, abs=1e-12)


def test_constant_features_give_log_of_the_number_of_choices():
    model = make().double()
    torch.nn.init.zeros_(model.projector.layers[2].weight)
    torch.nn.init.ones_(model.projector.layers[2].bias)
    assert float(contrast(model, views_of(model)).detach()) == pytest.approx(math.log(2 * 4 - 1), abs=1e-9)


def test_one_patient_alone_has_no_negative():
    model = make()
    views = views_of(model, (7, 7, 7, 7))
    terms = backpropagate(model.losses(views, 0.0))
    assert float(terms["contrast"]) == 0
    assert all(p.grad is None or float(p.grad.abs().max()) == 0 for p in model.parameters())


def _gradients(model, rows, start=0):
    """One step on some rows of a batch of four, two of one patient; (loss, gradients) averaged over ranks."""
    images = torch.rand(4, 1, *model.region(), generator=torch.Generator().manual_seed(0))
    batch = Batch.of(images[rows], torch.tensor([0, 1, 1, 2])[rows])
    views = model.views(batch, Rng(0, 0, start))
    views.images = {name: image.double() for name, image in views.images.items()}
    loss = float(backpropagate(model.losses(views, 0.0))["contrast"])
    distributed.average_gradients(model.parameters())
    return loss, {n: p.grad.numpy() for n, p in model.named_parameters()}


def _share(rank):
    return _gradients(make(norm="group").double(), slice(2 * rank, 2 * rank + 2), 2 * rank)


def test_two_ranks_learn_what_one_process_would():
    found = two_ranks(_share)
    loss, gradients = _gradients(make(norm="group").double(), slice(0, 4))
    assert (found[0][0] + found[1][0]) / 2 == pytest.approx(loss, abs=1e-10)
    for name, gradient in gradients.items():
        for rank in (0, 1):
            torch.testing.assert_close(found[rank][1][name], gradient, atol=1e-8, rtol=1e-6, msg=name)


@pytest.mark.parametrize("dims", [2, 3])
def test_views_are_those_of_pcrl_to_the_bit(dims):
    ours, pcrl = make(dims), PCRL(**TINY, dims=dims, patch=(16,) * dims, queue=8)
    assert ours.region() == pcrl.region()
    batch = Batch.of(torch.rand(4, 1, *ours.region()))
    found, expected = ours.views(batch, Rng(3, 5)), pcrl.views(batch, Rng(3, 5))
    assert all(torch.equal(found[name], expected[name]) for name in ("x1", "x2"))


def test_both_views_go_through_the_encoder_once():
    model, passes = make(), []
    model.encoder.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    backpropagate(model.losses(views_of(model), 0.0))
    assert passes == [8]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"embed_dim": 0}])
def test_wrong_options_are_told(options):
    with pytest.raises(UserError, match=f"{next(iter(options))} is 0"):
        make(**options)
