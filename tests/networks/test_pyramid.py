"""Precision of short maps on a CPU."""

import pytest
import torch
from torch import nn

from medssl.config import ModelConfig
from medssl.networks.pyramid import build_encoder, in_safe_precision


def weight_gradient(conv, x, probe):
    conv.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = in_safe_precision(conv, min(x.shape[2:]), x)
    (y.float() * probe).sum().backward()
    return conv.weight.grad.clone()


@pytest.mark.parametrize("shape", [(2, 2, 1), (1, 1, 1), (2, 4, 4)])
def test_short_axes_run_in_float32(shape):
    # A strided bfloat16 convolution of such a map has an infinite weight gradient in torch 2.13 on AMX machines.
    torch.manual_seed(0)
    layout = torch.channels_last_3d
    conv = nn.Conv3d(16, 16, 3, stride=2, padding=1, bias=False).to(memory_format=layout)
    x = torch.randn(2, 16, *shape).contiguous(memory_format=layout)
    probe = torch.randn_like(conv(x))
    (conv(x) * probe).sum().backward()
    exact = conv.weight.grad.clone()
    assert torch.allclose(weight_gradient(conv, x, probe), exact, atol=1e-5)


def test_long_axes_run_in_bfloat16_and_the_short_levels_in_float32():
    encoder = build_encoder(ModelConfig(encoder="unet", width=8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = encoder(torch.randn(2, 1, 32, 32))
    assert [m.dtype for m in maps] == [torch.bfloat16] * 4 + [torch.float32]


def test_without_autocast_nothing_changes():
    encoder = build_encoder(ModelConfig(encoder="unet", width=8)).double()
    assert {m.dtype for m in encoder(torch.randn(2, 1, 16, 16, dtype=torch.float64))} == {torch.float64}
