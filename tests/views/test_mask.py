"""Masks of patches: exact, a mask a sample, a function of the global position; statistics of patches by loops."""

import itertools

import numpy as np
import pytest
import torch

from medssl.rng import Rng
from medssl.views.mask import patch_statistics, sample_mask, spread


@pytest.mark.parametrize(
    ("grid", "ratio", "hidden"), [((7, 7), 0.75, 37), ((4, 4, 2), 0.6, 19), ((4, 4), 0.01, 1), ((2, 2), 0.99, 3)]
)
def test_the_ratio_is_exact_in_every_sample(grid, ratio, hidden):
    mask = sample_mask(Rng(0, 0), "mask", 16, grid, ratio)
    assert mask.shape == (16, *grid) and mask.flatten(1).sum(1).tolist() == [hidden] * 16


def test_masks_differ_by_sample_and_step_and_every_patch_is_hidden_as_often():
    masks = sample_mask(Rng(0, 0), "mask", 4000, (4, 4), 0.75)
    assert len(masks[:50].flatten(1).unique(dim=0)) > 45
    assert not torch.equal(masks, sample_mask(Rng(0, 1), "mask", 4000, (4, 4), 0.75))
    assert float((masks.float().mean(0) - 0.75).abs().max()) < 0.03


def test_a_rank_draws_what_one_process_draws_for_its_samples():
    whole = sample_mask(Rng(0, 3), "mask", 8, (4, 2, 2), 0.75)
    ranks = [sample_mask(Rng(0, 3, start), "mask", 4, (4, 2, 2), 0.75) for start in (0, 4)]
    assert torch.equal(torch.cat(ranks), whole)


@pytest.mark.parametrize(("grid", "patch"), [((3, 2), (2, 4)), ((2, 3, 2), (4, 1, 3))])
def test_spread_asks_each_voxel_for_its_patch(grid, patch):
    mask = sample_mask(Rng(0, 0), "mask", 2, grid, 0.5)
    found = spread(mask, patch)
    assert found.shape == (2, *(g * p for g, p in zip(grid, patch, strict=True)))
    for b, *place in itertools.product(*map(range, found.shape)):
        assert found[(b, *place)] == mask[(b, *(i // p for i, p in zip(place, patch, strict=True)))]


@pytest.mark.parametrize(("size", "patch"), [((4, 6), (2, 3)), ((4, 2, 6), (2, 2, 3))])
def test_statistics_are_those_of_each_patch(size, patch):
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    mean, deviation = patch_statistics(images, patch)
    grid = [range(n // p) for n, p in zip(size, patch, strict=True)]
    for b, *cell in itertools.product(range(2), *grid):
        box = (b, slice(None), *(slice(i * p, (i + 1) * p) for i, p in zip(cell, patch, strict=True)))
        values = images[box].numpy().ravel()
        np.testing.assert_allclose(mean[box], values.mean(), atol=1e-12)
        np.testing.assert_allclose(deviation[box], np.sqrt(values.var(ddof=1) + 1e-6), atol=1e-12)


def test_a_flat_patch_is_finite():
    mean, deviation = patch_statistics(torch.full((1, 1, 4, 4), 0.3), (2, 2))
    assert bool(((0.3 - mean) / deviation).isfinite().all())
