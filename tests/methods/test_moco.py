"""MoCo v2: its equation in float64, its teacher and queue, and that it is PCRL without reconstruction."""

import math

import pytest
import torch

from medssl.contract import Batch, Term, backpropagate, one_graph
from medssl.errors import UserError
from medssl.methods.moco import MoCo, MoCoConfig
from medssl.methods.pcrl import PCRL
from medssl.rng import Rng

TINY = {"encoder": "unet", "width": 4}


def make(dims=2, **options):
    return MoCo(**{**TINY, "dims": dims, "patch": (16,) * dims, "embed_dim": 6, "queue": 12, **options})


def views_of(model, ids=(0, 1, 2, 3), step=0):
    images = torch.rand(len(ids), 1, *model.region(), generator=torch.Generator().manual_seed(step))
    views = model.views(Batch.of(images, torch.tensor(ids)), Rng(0, step))
    dtype = next(model.parameters()).dtype
    views.images = {name: image.to(dtype) for name, image in views.images.items()}
    return views


def fill(model, ids):
    """Keys of earlier steps."""
    keys = torch.randn(len(ids), 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model.queue.enqueue(keys / keys.norm(dim=1, keepdim=True), torch.tensor(ids), torch.tensor(ids))


def contrast(model, views):
    with one_graph():
        return next(item.value for item in model.losses(views, 0.0) if isinstance(item, Term))


@torch.no_grad()
def naive(model, views):
    """Eq. 1, a query and a key at a time; keys of the same image or patient are left out."""
    q = model.projector(model.encoder(views["x1"])[-1].flatten(2).mean(2))
    k = model.teacher["projector"](model.teacher["encoder"](views["x2"])[-1].flatten(2).mean(2))
    total = 0.0
    for i in range(len(q)):
        q_i, k_i = q[i] / q[i].norm(), k[i] / k[i].norm()
        positive = math.exp(float(q_i @ k_i) / model.config.temperature)
        below = positive
        for j in range(int(model.queue.filled)):
            if int(model.queue.patients[j]) != int(views["patient"][i]):
                below += math.exp(float(q_i @ model.queue.keys[j]) / model.config.temperature)
        total -= math.log(positive / below)
    return total / len(q)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_loss_equals_its_equation(dims):
    model = make(dims).double()
    fill(model, [7, 8, 1, 9, 3, 1, 7])
    views = views_of(model)
    assert float(contrast(model, views).detach()) == pytest.approx(naive(model, views), abs=1e-12)


def test_constant_features_give_log_of_the_number_of_keys():
    model = make().double()
    for head in (model.projector, model.teacher["projector"]):
        torch.nn.init.zeros_(head.layers[2].weight)
        torch.nn.init.ones_(head.layers[2].bias)
    model.queue.enqueue(
        torch.full((7, 6), 6**-0.5, dtype=torch.float64), torch.arange(100, 107), torch.arange(100, 107)
    )
    assert float(contrast(model, views_of(model)).detach()) == pytest.approx(math.log(8), abs=1e-9)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_it_is_pcrl_without_reconstruction(dims, groups):
    """Widths at which both heads are alike: the same losses, step for step, to the bit."""
    options = {"encoder": "unet", "width": 8, "dims": dims, "patch": (16,) * dims, "queue": 8, "momentum": 0.9}
    options["batch_groups"] = groups
    models = MoCo(**options), PCRL(**options, rebuild_weight=0.0)
    found = []
    for model in models:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        images = [torch.rand(4, 1, *model.region(), generator=torch.Generator().manual_seed(s)) for s in range(4)]
        found.append([model.step(x, optimizer, ids=torch.arange(4) + 4 * s) for s, x in enumerate(images)])
    assert found[0] == found[1] and found[0][-1]["contrast"] > 0


def test_the_teacher_follows_the_recurrence_and_gets_no_gradient():
    model = make(momentum=0.9)
    expected = {n: p.clone() for n, p in model.teacher.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
        backpropagate(model.losses(views_of(model, tuple(range(4 * step, 4 * step + 4)), step), 0.0))
        assert all(p.grad is None for p in model.teacher.parameters())
        optimizer.step()
        model.after_step(0.0)
        students = dict(model.named_parameters())
        expected = {n: 0.9 * v + 0.1 * students[n].detach() for n, v in expected.items()}
    for n, p in model.teacher.named_parameters():
        assert torch.allclose(p, expected[n], atol=1e-6), n


def test_the_queue_takes_each_key_once_after_the_loss():
    model = make(queue=10)
    terms = backpropagate(model.losses(views_of(model), 0.0))
    assert int(model.queue.filled) == 0 and float(terms["contrast"]) == 0  # no negatives yet
    model.after_step(0.0)
    assert int(model.queue.filled) == 4 and model.queue.items[:4].tolist() == [0, 1, 2, 3]
    assert torch.allclose(model.queue.keys[:4].norm(dim=1), torch.ones(4))
    model.after_step(0.0)
    assert int(model.queue.filled) == 4  # without a loss there is nothing to add


def test_a_patient_that_comes_again_is_not_its_own_negative():
    model = make(queue=64)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    images = torch.rand(4, 1, 16, 16)
    for _ in range(3):
        terms = model.step(images, optimizer, ids=torch.full((4,), 3))
    assert int(model.queue.filled) == 12 and terms["contrast"] == 0
    assert model.step(images, optimizer, ids=torch.full((4,), 4))["contrast"] > 0


def test_defaults_follow_the_data_and_the_run():
    found = MoCoConfig().fitted(500, 1200, 32)
    assert (found.queue, found.momentum) == (128, pytest.approx(1 - 20 / 1200))
    kept = MoCoConfig(queue=7, momentum=0.5).fitted(500, 1200, 32)
    assert (kept.queue, kept.momentum) == (7, 0.5)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"momentum": 1.0}, {"queue": 0}, {"batch_groups": 0}, {"embed_dim": 0}]
)
def test_wrong_options_are_told(options):
    with pytest.raises(UserError, match=f"{next(iter(options))} is"):
        make(**options)
