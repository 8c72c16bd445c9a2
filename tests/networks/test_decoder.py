"""The decoder: shapes of the papers, the way back to full resolution, what a head may say."""

import itertools

import pytest
import torch

from medssl.config import ModelConfig
from medssl.networks.attention import TransformAttention
from medssl.networks.decoder import Decoder, LevelImage, decoder_for
from medssl.networks.heads import Projector
from medssl.networks.pyramid import build_encoder


def count(*modules):
    return sum(p.numel() for m in modules for p in m.parameters()) / 1e6


@pytest.mark.parametrize(
    ("encoder", "dims", "up", "widths", "millions"),
    [("resnet18", 2, "nearest", [256, 128, 64, 32, 16], 14.5), ("poolunet", 3, "transposed", [256, 128, 64], 19.3)],
)
def test_the_papers_networks(encoder, dims, up, widths, millions):
    network = build_encoder(ModelConfig(encoder=encoder, dims=dims))
    decoder = Decoder(network.channels, network.strides, dims, 1, up=up)
    assert [block.convs[0].out_channels for block in decoder.blocks] == widths
    assert decoder.head.kernel_size == ((3, 3) if dims == 2 else (1, 1, 1))
    heads = Projector(512), TransformAttention(dims + 4, 512, dims)
    assert count(network, decoder, *heads) == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("up", ["nearest", "transposed"])
@pytest.mark.parametrize(
    "strides", [((1, 1), (2, 2), (4, 4)), ((2, 2), (4, 4), (8, 8)), ((1, 1), (2, 1), (4, 1)), ((4, 2), (8, 4))]
)
def test_comes_back_to_full_resolution(skips, up, strides):
    channels = [8, 16, 24][: len(strides)]
    decoder = Decoder(channels, strides, 2, 3, skips=skips, up=up)
    maps = [torch.randn(2, c, 16 // s[0], 8 // s[1]) for c, s in zip(channels, strides, strict=True)]
    assert decoder(maps).shape == (2, 3, 16, 8)


def test_a_level_is_computed_when_it_is_asked_for():
    decoder = Decoder([8, 16, 24], [(2, 2), (4, 4), (8, 8)], 2, 1, skips=False).eval()
    maps, run = [torch.randn(1, c, 32 // s, 32 // s) for c, s in ((8, 2), (16, 4), (24, 8))], []
    for i, block in enumerate(decoder.blocks):
        block.register_forward_hook(lambda *_, i=i: run.append(i))
    found = list(itertools.islice(decoder.levels(maps), 2))
    assert run == [0, 1] and [level.shape[1] for level in found] == decoder.channels[:2]
    *_, finest = decoder.levels(maps)
    assert torch.equal(decoder.finish(finest), decoder(maps))


@pytest.mark.parametrize(
    ("dims", "value_range", "head", "bounded"),
    [(2, (0, 1), "auto", 0), (3, (0, 1), "auto", 1), (3, (-4, 4), "auto", 0), (3, (0, 1), "linear", 0)],
)
def test_the_head_follows_dims_and_range(dims, value_range, head, bounded):
    config = ModelConfig(encoder="poolunet", width=4, dims=dims, value_range=value_range, norm="group")
    decoder = decoder_for(config, build_encoder(config), head=head)
    assert decoder.sigmoid == bool(bounded) and decoder.blocks[0].up is not None


def test_without_skips_only_the_coarsest_map_counts():
    decoder = Decoder([8, 16], [(1, 1), (2, 2)], 2, 1, skips=False).eval()
    coarse = torch.randn(1, 16, 4, 4)
    a, b = decoder([torch.randn(1, 8, 8, 8), coarse]), decoder([torch.randn(1, 8, 8, 8), coarse])
    assert torch.equal(a, b)


def test_a_sigmoid_stays_within_zero_and_one():
    decoder = Decoder([8, 16], [(1, 1), (2, 2)], 2, 1, head="sigmoid")
    found = decoder([100 * torch.randn(1, 8, 8, 8), 100 * torch.randn(1, 16, 4, 4)])
    assert float(found.min()) >= 0 and float(found.max()) <= 1


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize(("dims", "layers"), [(2, 4), (3, 2)])
def test_an_image_of_a_level_has_full_size(dims, layers, bounded):
    head = LevelImage(6, 2, dims, bounded=bounded, norm="group")
    found = head(10 * torch.randn(3, 6, *(3, 4, 2)[:dims]), (12, 16, 8)[:dims])
    assert found.shape == (3, 2, *(12, 16, 8)[:dims]) and len(head.layers) == layers
    assert (float(found.detach().min()) >= 0 and float(found.detach().max()) <= 1) == bounded
