"""One view of an image, and where views of two modalities show the same place in the world."""

import math

import pytest
import torch

from medssl.networks.heads import at_cells, at_places
from medssl.rng import Rng
from medssl.views.pair import PairConfig
from medssl.views.single import meetings, single_view

PLAIN = {"blur_p": 0.0, "jitter_p": 0.0, "cutout_p": 0.0, "shuffle_p": 0.0, "paint_p": 0.0}


def shown_places(place, region):
    """(b, d, *region): every voxel shows where it lies in the world."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in region), indexing="ij"))
    flat = place[:, :-1, :-1] @ grid.flatten(1) + place[:, :-1, -1:]
    return flat.unflatten(2, region)


def places(n, dims):
    """Each image has a grid, a turn and an origin of its own."""
    generator = torch.Generator().manual_seed(0)
    made = torch.eye(dims + 1).double().repeat(n, 1, 1)
    for one in made:
        angle, scale = 0.3 * torch.rand(2, generator=generator).double()
        turn = torch.eye(dims).double()
        turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        one[:dims, :dims] = turn * (0.8 + scale)
        one[:dims, dims] = 4 * torch.rand(dims, generator=generator)
    return made


@pytest.mark.parametrize("size", [(16, 16), (16, 12), (8, 8, 6)])
@pytest.mark.parametrize("mirror", [False, True])
def test_place_tells_where_each_voxel_of_the_view_was(size, mirror):
    dims, region = len(size), tuple(2 * n for n in size)
    whole = torch.eye(dims + 1).double().repeat(5, 1, 1)
    config = PairConfig.for_size(size, value_range=(0.0, 100.0), **{**PLAIN, "rotate_p": 0.5, "scale": (0.3, 0.5)})
    view = single_view(shown_places(whole, region).float(), config, Rng(0, 1), mirror)
    assert torch.equal(view.x, view.clean) and view.x.shape == (5, dims, *size)
    expected = shown_places(view.place.double(), size)
    inside = ((expected > 1) & (expected < torch.tensor(region).view(-1, *(1,) * dims) - 2)).all(1, keepdim=True)
    error = ((view.x - expected).abs() * inside).amax()
    assert bool(inside.float().mean() > 0.4) and float(error) < 0.05


def test_views_are_a_function_of_the_stream_and_ranks_draw_what_one_would():
    images = torch.rand(4, 1, 24, 24)
    config = PairConfig.for_size((16, 16))
    whole, part = single_view(images, config, Rng(0, 2), True), single_view(images[2:], config, Rng(0, 2, 2), True)
    assert torch.equal(whole.x[2:], part.x) and torch.equal(whole.place[2:], part.place)
    assert not torch.equal(whole.x, single_view(images, config, Rng(0, 3), True).x)
    assert not torch.equal(whole.x, whole.clean)  # corrupted, as the options say


@pytest.mark.parametrize("dims", [2, 3])
def test_meetings_are_the_same_places_in_the_world(dims):
    size, grid = (16,) * dims, (8,) * dims
    codes, subjects = [0, 1, 1, 0, 2, 0], [5, 5, 6, 6, 6, 7]
    place = places(6, dims)
    met = meetings(codes, subjects, place, size, [grid] * 3, 20, Rng(0, 0))
    assert [g.codes for g in met.groups] == [(0, 1), (0, 2), (1, 2)]
    assert [[r.tolist() for r in g.rows] for g in met.groups] == [[[0, 1], [0, 1]], [[1], [0]], [[1], [0]]]
    assert met.sample.tolist() == [i for i in (0, 3, 3, 2) for _ in range(20)] and bool(met.shown.any())
    shown = torch.nn.functional.avg_pool2d if dims == 2 else torch.nn.functional.avg_pool3d
    maps = shown(shown_places(place, size), 2)  # a feature map whose features are its cells' places
    first = torch.cat([at_cells(maps[[i for i, c in enumerate(codes) if c == g.codes[0]]][g.rows[0]], g.cells)
                       for g in met.groups])  # fmt: skip
    second = torch.cat([at_places(maps[[i for i, c in enumerate(codes) if c == g.codes[1]]][g.rows[1]], g.there)
                        for g in met.groups])  # fmt: skip
    assert torch.allclose(first, met.world_mm.double(), atol=1e-4)
    near = (first - second).abs().amax(1)[met.shown]
    assert float(near.median()) < 1e-4  # beyond the last centre a map goes on with its border
    assert float(near.max()) < 1.5


def test_without_a_pair_there_is_no_meeting():
    met = meetings([0, 1, 0], [1, 2, 3], places(3, 2), (16, 16), [(8, 8)] * 2, 9, Rng(0, 0))
    assert met.groups == [] and len(met.sample) == len(met.shown) == 0 and met.world_mm.shape == (0, 2)
