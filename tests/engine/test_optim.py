"""Schedules, groups, and the memory layout of an optimiser's state."""

import io

import pytest
import torch
from torch import nn

from medssl.engine.optim import load_state, make_optimizer, set_lr, warmup_cosine


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))
        self.decoder = nn.ConvTranspose2d(4, 2, 2)
        self.head = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2, 2))
        self.teacher = nn.Linear(2, 2).requires_grad_(False)


def names(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict]:
    of = {id(p): name for name, p in module.named_parameters()}
    return {of[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


def test_the_rate_rises_then_falls_to_zero():
    assert warmup_cosine(0.0, 2.0, 0.1) == 0.0
    assert warmup_cosine(0.05, 2.0, 0.1) == pytest.approx(1.0)
    assert warmup_cosine(0.1, 2.0, 0.1) == pytest.approx(2.0)
    assert warmup_cosine(0.55, 2.0, 0.1) == pytest.approx(1.0)
    assert warmup_cosine(1.0, 2.0, 0.1) == pytest.approx(0.0)
    assert warmup_cosine(0.0, 2.0, 0.0) == 2.0


def test_only_weights_of_convolutions_and_linear_layers_decay():
    net = Net()
    decaying = {n for n, g in names(net, make_optimizer(net, weight_decay=0.1)).items() if g["weight_decay"] > 0}
    assert decaying == {"encoder.0.weight", "decoder.weight", "head.weight"}


def test_frozen_weights_are_left_alone():
    net = Net()
    assert not any(name.startswith("teacher") for name in names(net, make_optimizer(net)))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_part_may_learn_at_a_multiple_of_the_rate(kind):
    net = Net()
    optimizer = make_optimizer(net, name=kind, scales={"encoder": 0.1})
    set_lr(optimizer, 0.5)
    for name, group in names(net, optimizer).items():
        assert group["lr"] == pytest.approx(0.05 if name.startswith("encoder") else 0.5)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("saved_as", [torch.channels_last, torch.contiguous_format])
def test_state_takes_the_layout_of_its_weight(kind, saved_as):
    """Fused updates walk weight and state side by side in memory: other strides give silently wrong weights."""

    def one(layout: torch.memory_format) -> nn.Conv2d:
        torch.manual_seed(0)
        return nn.Conv2d(3, 5, 3).to(memory_format=layout)

    def steps(net: nn.Conv2d, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for k in range(first, last):
            torch.manual_seed(k)
            optimizer.zero_grad()
            net(torch.rand(2, 3, 8, 8)).square().mean().backward()
            optimizer.step()

    straight = one(torch.channels_last)
    optimizer = make_optimizer(straight, name=kind, lr=0.1)
    steps(straight, optimizer, 0, 6)

    first = one(saved_as)
    optimizer = make_optimizer(first, name=kind, lr=0.1)
    steps(first, optimizer, 0, 3)
    file = io.BytesIO()
    torch.save({"net": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)

    second = one(torch.channels_last)
    second.load_state_dict(state["net"])
    optimizer = make_optimizer(second, name=kind, lr=0.1)
    load_state(optimizer, state["optimizer"])
    moments = [v for v in optimizer.state[second.weight].values() if v is not None and v.ndim == 4]
    assert moments
    assert all(v.stride() == second.weight.stride() for v in moments)
    steps(second, optimizer, 3, 6)
    torch.testing.assert_close(second.weight, straight.weight)
