"""Exchanged normalisation layers, and BatchNorm in groups."""

import pytest
import torch
from torch import nn

from medssl.networks.norms import evaluating, set_norm


def network(dims=2):
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return nn.Sequential(conv(1, 4, 3), nn.Sequential(norm(4), nn.ReLU()), conv(4, 6, 1), norm(6))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("norm", "kind"), [("group", nn.GroupNorm), ("instance", nn.modules.instancenorm._InstanceNorm)]
)
def test_names_stay_and_layers_change(dims, norm, kind):
    before = network(dims)
    names = [name for name, _ in before.named_parameters()]
    after = set_norm(before, norm)
    assert [name for name, _ in after.named_parameters()] == names
    assert sum(isinstance(m, kind) for m in after.modules()) == 2
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in after.modules())


@pytest.mark.parametrize("dims", [2, 3])
def test_groups_have_statistics_of_their_own(dims):
    torch.manual_seed(0)
    x = torch.randn(6, 4, *(3,) * dims) * torch.arange(1, 7).view(-1, *(1,) * (dims + 1))
    plain = (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(4)
    split = set_norm(nn.Sequential(type(plain)(4)), "batch", 2)[0]
    expected = torch.cat([plain(x[:3]), plain(x[3:])])
    assert torch.equal(split(x), expected)
    assert torch.equal(split.running_mean, plain.running_mean)
    assert torch.equal(split.eval()(x), plain.eval()(x))
    assert split.state_dict().keys() == plain.state_dict().keys()


def test_an_image_does_not_feel_the_other_group():
    split = set_norm(nn.Sequential(nn.BatchNorm2d(4)), "batch", 2)
    x = torch.randn(4, 4, 3, 3)
    changed = torch.cat([x[:2], x[2:] * 9])
    assert torch.equal(split(x)[:2], split(changed)[:2])
    whole = nn.BatchNorm2d(4)
    assert not torch.equal(whole(x)[:2], whole(changed)[:2])


def test_wrong_number_of_axes_is_refused():
    split = set_norm(nn.Sequential(nn.BatchNorm3d(4)), "batch", 2)
    with pytest.raises(ValueError):
        split(torch.randn(4, 4, 3, 3))


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_looks_and_leaves_no_trace(training):
    module = nn.BatchNorm1d(2).train(training)
    with pytest.raises(ZeroDivisionError), evaluating(module):
        assert not module.training and not module(torch.randn(4, 2)).requires_grad
        raise ZeroDivisionError
    assert module.training == training and torch.is_grad_enabled() and not module.running_mean.any()
