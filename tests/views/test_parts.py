"""Small views: boxes where and as large as asked for, and the same ones for the same rng."""

import numpy as np
import pytest
import torch

from medssl.rng import Rng
from medssl.views import geometry
from medssl.views.pair import PairConfig, region_for
from medssl.views.parts import make_parts, sample_part

RATIO = (3 / 4, 4 / 3)


@pytest.mark.parametrize(("region", "size"), [((64, 48), (16, 12)), ((40, 40, 20), (8, 8, 8))])
def test_boxes_lie_in_the_region_and_have_the_share_and_proportions_asked_for(region, size):
    box = sample_part(Rng(0, 0), "part", 400, region, size, (0.05, 0.3), RATIO)
    low, edge = box.low.numpy(), box.edge.numpy()
    assert (low >= 0).all() and (low + edge <= region).all() and (low == low.round()).all()
    whole = (edge < region).all(1)  # a box as long as the region is cut
    share = edge.prod(1) / np.prod(region)
    assert share[whole].min() > 0.04 and share.max() < 0.34 and share.max() - share.min() > 0.2
    stretch = edge / np.array(size)
    assert (stretch.max(1) / stretch.min(1))[whole & (edge > 7).all(1)].max() < 4 / 3 * 1.2  # rounding


def test_near_boxes_begin_within_three_voxels_of_what_the_pair_shows():
    region, size = (60, 60, 60), (8, 8, 8)
    pair = geometry.sample_box_pair(Rng(0, 0), 300, region, (0.02, 0.05), RATIO, 0.3)
    box = sample_part(Rng(0, 0), "part", 300, region, size, (0.003, 0.01), RATIO, pair)
    start = torch.minimum(pair[0].low, pair[1].low) - 3
    end = torch.maximum(pair[0].low + pair[0].edge, pair[1].low + pair[1].edge) + 3
    room = torch.tensor(region) - box.edge
    assert bool((box.low >= torch.minimum(start.clamp(min=0), room)).all()) and bool((box.low <= end).all())
    anywhere = sample_part(Rng(0, 0), "part", 300, region, size, (0.003, 0.01), RATIO)
    assert not bool((anywhere.low >= start).all())


@pytest.mark.parametrize("size", [(32, 32), (16, 16, 8)])
def test_parts_are_a_function_of_images_and_rng_and_ranks_agree(size):
    pair = PairConfig.for_size(size)
    part = (8,) * len(size)
    images = torch.rand(6, 2, *region_for(pair), generator=torch.Generator().manual_seed(0))
    options = {"count": 3, "size": part, "scale": (0.05, 0.3), "near": len(size) == 3}
    one, again = (make_parts(images, pair, Rng(0, 2), **options) for _ in range(2))
    assert [tuple(x.shape) for x in one] == [(6, 2, *part)] * 3
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], one[1]) and not torch.equal(
        one[0], make_parts(images, pair, Rng(0, 3), **options)[0]
    )
    later = make_parts(images[3:], pair, Rng(0, 2, 3), **options)
    assert all(torch.allclose(a[3:], b, atol=1e-6) for a, b in zip(one, later, strict=True))


def test_a_part_shows_what_lies_in_its_box():
    """Without grey changes and rotations, on an image whose values tell where they lie."""
    pair = PairConfig.for_size((32, 32), blur_p=0.0, jitter_p=0.0, rotate_p=0.0)
    grid = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")) / 31
    options = {"count": 1, "size": (8, 8), "scale": (0.05, 0.3), "near": False, "mirror": False}
    found = make_parts(grid.expand(20, 2, 32, 32).contiguous(), pair, Rng(0, 0), **options)[0] * 31
    box = sample_part(Rng(0, 0), "views/part1/box", 20, (32, 32), (8, 8), (0.05, 0.3), pair.ratio)
    for shown, low, edge in zip(found, box.low, box.edge, strict=True):
        for axis in range(2):
            middle = float(low[axis] + (edge[axis] - 1) / 2)
            assert float(shown[axis].mean()) == pytest.approx(middle, abs=1e-3)
            assert float(low[axis]) - 1e-3 <= float(shown[axis].min())
            assert float(shown[axis].max()) <= float(low[axis] + edge[axis] - 1) + 1e-3
