"""Activations computed again: the same maps, gradients and statistics to the bit, fewer bytes kept."""

import copy

import pytest
import torch

from medssl import distributed
from medssl.config import ModelConfig
from medssl.networks.decoder import decoder_for
from medssl.networks.norms import synchronise
from medssl.networks.pyramid import build_encoder
from medssl.networks.recompute import recomputed, set_recompute


def run(encoder, decoder, x):
    """Image, gradients, buffers, and bytes kept for the backward pass."""
    kept: dict[int, int] = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        image = decoder(encoder(x))
        size = sum(kept.values())  # before the backward pass, in which all is kept for a while
    image.square().mean().backward()
    parts = torch.nn.ModuleList([encoder, decoder])
    return [image, *(p.grad for p in parts.parameters()), *parts.buffers()], size


@pytest.mark.parametrize(("name", "dims"), [("resnet18", 2), ("unet", 3), ("poolunet", 3), ("swin", 2)])
def test_equal_to_the_bit_with_fewer_bytes_kept(name, dims):
    torch.manual_seed(0)
    config = ModelConfig(encoder=name, width=12 if name == "swin" else 8, dims=dims, patch=(32,) * dims)
    encoder = build_encoder(config)
    decoder = decoder_for(config, encoder)
    again = copy.deepcopy(encoder), copy.deepcopy(decoder)
    for part in again:
        set_recompute(part)
    x = torch.rand(2, 1, *(32,) * dims)
    (plain, bytes_kept), (found, fewer) = run(encoder, decoder, x), run(*again, x)
    assert len(plain) == len(found) and all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    assert fewer < 0.6 * bytes_kept
    set_recompute(again[0], on=False)
    assert not again[0].recompute


def test_batch_norm_over_ranks_is_recomputed_and_its_statistics_move_once(monkeypatch):
    monkeypatch.setattr(distributed, "active", lambda: True)
    monkeypatch.setattr(distributed, "add_up", lambda x: x)  # a rank that is alone
    torch.manual_seed(0)
    plain = synchronise(torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.BatchNorm2d(3)))
    again, x = copy.deepcopy(plain), torch.rand(4, 1, 5, 5)
    for model, image in ((plain, plain(x)), (again, recomputed(again, again, x))):
        image.square().sum().backward()
        assert model[1].num_batches_tracked == 1
    for one, other in zip([*plain.parameters()], [*again.parameters()], strict=True):
        assert torch.equal(one.grad, other.grad)
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), again.buffers(), strict=True))


def test_under_autocast_and_without_gradient():
    config = ModelConfig(encoder="unet", width=8, dims=2, patch=(32, 32))
    encoder = build_encoder(config)
    again = copy.deepcopy(encoder)
    set_recompute(again)
    gradients = []
    for one in (encoder, again):
        with torch.autocast("cpu", torch.bfloat16):
            value = one(torch.ones(2, 1, 32, 32))[-1].float().square().mean()
        value.backward()
        gradients.append([p.grad for p in one.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    with torch.no_grad():
        assert not again(torch.ones(2, 1, 32, 32))[-1].requires_grad
