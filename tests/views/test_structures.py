"""Masks follow their views, and slivers show no structure."""

import itertools

import pytest
import torch

from medssl.rng import Rng
from medssl.views.pair import PairConfig
from medssl.views.single import single_view
from medssl.views.structures import mask_of_view, structures


@pytest.mark.parametrize("size", [(6, 4), (4, 6, 3)])
def test_each_voxel_of_a_view_is_asked_for_its_place(size):
    dims, generator = len(size), torch.Generator().manual_seed(0)
    mask = torch.randint(0, 4, (2, *(8,) * dims), generator=generator, dtype=torch.int16)
    place = torch.eye(dims + 1).repeat(2, 1, 1) + 0.3 * torch.randn(2, dims + 1, dims + 1, generator=generator)
    place[:, dims] = torch.eye(dims + 1)[dims]
    place[1, :dims, dims] += 6  # in part beyond the region
    found, outside = mask_of_view(mask, place, size), 0
    for b in range(2):
        for voxel in itertools.product(*map(range, size)):
            there = (place[b] @ torch.tensor([*voxel, 1.0]))[:dims].round().long().tolist()
            inside = all(0 <= i < 8 for i in there)
            outside += not inside
            assert int(found[b][voxel]) == (int(mask[b][tuple(there)]) if inside else 0)
    assert outside > 0


@pytest.mark.parametrize("dims", [2, 3])
def test_the_mask_of_a_crop_lies_where_its_image_does(dims):
    config = PairConfig.for_size((32,) * dims, (0.0, 1.0), (32,) * dims, scale=(0.5, 0.9),
                                 cutout_p=0.0, shuffle_p=0.0, paint_p=0.0)  # fmt: skip
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, 40),) * dims, indexing="ij"))
    blob = ((grid - 0.1).square().sum(0) < 0.4).repeat(4, *(1,) * dims)  # round, off the middle
    view = single_view(blob[:, None].float(), config, Rng(0, 0), mirror=True)
    mask = mask_of_view(blob.short(), view.place, (32,) * dims)
    wrong = (mask.bool() != (view.clean[:, 0] > 0.5)).float().mean()
    assert 0.1 < float(mask.float().mean()) < 0.9 and float(wrong) < 0.02  # interpolation differs at the edge alone


def test_structures_are_told_sample_by_sample_and_slivers_are_none():
    mask = torch.zeros(3, 50, 50, dtype=torch.int16)
    mask[0, :10, :10], mask[0, 20:, 20:], mask[2, :5, :5] = 7, 2, 7
    mask[1, 0, :2] = 2  # two of 2500 voxels; it takes three
    sample, label = structures(mask)
    assert list(zip(sample.tolist(), label.tolist(), strict=True)) == [(0, 2), (0, 7), (2, 7)]
    nothing = structures(torch.zeros_like(mask))
    assert [len(x) for x in nothing] == [0, 0]
