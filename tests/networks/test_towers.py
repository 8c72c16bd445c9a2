"""Towers that share weights: which are one, which are each modality's own, and that they stay so."""

import copy

import pytest
import torch

from medssl.config import ModelConfig
from medssl.errors import UserError
from medssl.networks.pyramid import ENCODERS, build_encoder
from medssl.networks.towers import OWN, image_towers
from medssl.networks.weights import export_state, load_state


def config_of(encoder="unet", dims=2, **options):
    return ModelConfig(**{"encoder": encoder, "width": 4, "dims": dims, "patch": (64,) * dims, **options})


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_trunk_is_one_and_stems_and_normalisation_are_each_ones_own(encoder):
    torch.manual_seed(0)
    width = 12 if encoder == "swin" else 4
    a, b = image_towers([config_of(encoder, width=width)] * 2, "trunk")
    kinds = dict(a.named_modules())
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        own = isinstance(kinds[name.rpartition(".")[0]], OWN) or name.startswith(a.stem)
        assert (p is q) != own, name
    assert any(p is q for p, q in zip(a.parameters(), b.parameters(), strict=True))
    stem_weight = next(iter(a.parameters()))
    assert not any(stem_weight is q for q in b.parameters())


def test_ties_outlive_a_copy_and_another_precision_and_each_tower_loads_by_itself():
    torch.manual_seed(0)
    towers = torch.nn.ModuleList(image_towers([config_of()] * 2, "trunk"))
    again = copy.deepcopy(towers).double()
    shared = [p is q for p, q in zip(towers[0].parameters(), towers[1].parameters(), strict=True)]
    assert shared == [p is q for p, q in zip(again[0].parameters(), again[1].parameters(), strict=True)]
    assert len(list(again.parameters())) == 2 * len(shared) - sum(shared)
    plain = build_encoder(config_of()).eval()
    load_state(plain, export_state(towers[1]))
    x = torch.rand(2, 1, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(plain(x), towers.eval()[1](x), strict=True))


def test_a_step_on_one_modality_moves_the_trunk_of_the_other():
    torch.manual_seed(0)
    a, b = image_towers([config_of(norm="group")] * 2, "trunk")
    x = torch.rand(2, 1, 32, 32)
    before = b(x)
    a(x)[-1].square().mean().backward()
    with torch.no_grad():
        for p in a.parameters():
            p -= 0.1 * p.grad
    after = b(x)
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[-1], after[-1])


def test_all_is_one_encoder_and_nothing_is_none():
    one, same = image_towers([config_of()] * 2, "all")
    assert one is same
    a, b = image_towers([config_of(), config_of("resnet18")], "nothing")
    assert not {id(p) for p in a.parameters()} & {id(p) for p in b.parameters()}


@pytest.mark.parametrize("share", ["trunk", "all"])
def test_encoders_of_two_kinds_share_nothing(share):
    with pytest.raises(UserError, match="resnet18 and unet cannot share weights") as caught:
        image_towers([config_of(), config_of("resnet18")], share)
    assert caught.value.fix
