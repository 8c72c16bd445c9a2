"""Noise of a known variance, loss of resolution by the formula, channels that are masked."""

import pytest
import torch

from medssl.rng import Rng
from medssl.views.disrupt import add_noise, coarsen, sample_kept
from medssl.views.noise import sample_seeds


def test_noise_has_its_variance_and_is_independent():
    clean = torch.full((4, 1, 64, 64, 16), 0.5)
    noise = add_noise(clean, sample_seeds(Rng(0, 0), "noise", 4), 0.1**0.5) - clean
    assert noise.flatten(1).var(1).tolist() == pytest.approx([0.1] * 4, rel=0.02)
    assert noise.flatten(1).mean(1).tolist() == pytest.approx([0] * 4, abs=0.005)
    assert float(noise.min()) < -0.5 - 0.3 and float(noise.max()) > 0.8  # not held in the range of the images
    matrix = torch.corrcoef(torch.cat([noise.flatten(1), noise.roll(1, dims=2).flatten(1)]))
    assert float((matrix - torch.eye(8)).abs().max()) < 0.02


def weights(n, m):
    """(m, n) weights of linear resampling from n to m samples, pixel centres aligned, number by number."""
    rows = []
    for i in range(m):
        at = min(max((i + 0.5) * n / m - 0.5, 0), n - 1)
        rows.append([max(0.0, 1 - abs(at - j)) for j in range(n)])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("size", [(16, 24), (8, 16, 12), (3, 8)])
def test_resolution_is_lost_linearly_along_every_axis(size):
    x = torch.rand(2, 2, *size, dtype=torch.float64)
    expected = x
    for axis, n in enumerate(size, start=2):
        both = weights(max(1, n // 4), n) @ weights(n, max(1, n // 4))
        expected = torch.tensordot(expected, both, dims=([axis], [1])).movedim(-1, axis)
    torch.testing.assert_close(coarsen(x, 4), expected, rtol=0, atol=1e-12)
    assert torch.equal(coarsen(torch.full_like(x, 0.25), 4), torch.full_like(x, 0.25))


@pytest.mark.parametrize(("channels", "share", "kept"), [(48, 0.6, 19), (48, 0.4, 29), (10, 0.0, 10), (4, 0.99, 1)])
def test_the_share_of_channels_is_hidden_in_every_sample(channels, share, kept):
    found = sample_kept(Rng(0, 0), "mask", 64, channels, share)
    assert found.shape == (64, channels) and found.sum(1).tolist() == [kept] * 64
    if 1 < kept < channels:
        assert len({tuple(row) for row in found.tolist()}) == 64  # drawn for each sample
        assert float((found.float().mean(0) - kept / channels).abs().max()) < 0.25  # any channel may be hidden


def test_what_a_sample_loses_does_not_depend_on_the_rank():
    whole = sample_kept(Rng(0, 5), "mask", 6, 12, 0.5)
    assert torch.equal(whole[4:], sample_kept(Rng(0, 5, start=4), "mask", 2, 12, 0.5))
