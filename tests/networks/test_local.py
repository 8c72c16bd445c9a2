"""Heads of the local forms: which level, which positions, and a graph where there are none."""

from types import SimpleNamespace

import torch

from medssl.config import ModelConfig
from medssl.networks.heads import at_cells, at_places
from medssl.networks.local import VoxelHeads, WordHeads, per_tower
from medssl.networks.towers import image_towers


def towers_of(share="nothing", size=32):
    torch.manual_seed(0)
    return image_towers([ModelConfig(encoder="unet", width=4, patch=(size, size))] * 2, share)


def test_the_level_is_the_coarsest_with_64_positions():
    for size, level, grid in ((32, 2, (8, 8)), (64, 3, (8, 8)), (16, 1, (8, 8))):
        heads = VoxelHeads(towers_of(size=size), (size, size), 6)
        assert heads.levels == [level, level] and heads.grids == [grid, grid]


def test_voxel_features_are_the_heads_of_the_maps_at_equal_places():
    heads = VoxelHeads(towers_of(), (32, 32), 6)
    maps = {0: torch.randn(3, 16, 8, 8), 1: torch.randn(2, 16, 8, 8)}
    met = SimpleNamespace(codes=(0, 1), rows=(torch.tensor([2, 0]), torch.tensor([1, 0])),
                          cells=torch.randint(0, 64, (2, 5)), there=torch.rand(2, 5, 2) * 2 - 1)  # fmt: skip
    query, key = heads(maps, [met, met])
    expected = (
        heads.heads[0](at_cells(maps[0][[2, 0]], met.cells)),
        heads.heads[1](at_places(maps[1][[1, 0]], met.there)),
    )
    assert query.shape == key.shape == (20, 6)
    assert torch.equal(query[:10], expected[0]) and torch.equal(key[10:], expected[1])


def test_without_a_meeting_there_are_no_rows_and_a_graph():
    heads = VoxelHeads(towers_of(), (32, 32), 6)
    level = torch.randn(3, 16, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    query, key = heads({0: level}, [])
    assert query.shape == key.shape == (0, 6) and query.dtype == torch.float32
    query.sum().backward()
    assert not level.grad.any()


def test_regions_are_positions_and_a_missing_modality_has_none():
    heads, words = WordHeads(towers_of(), 8, (32, 32), 6), torch.randn(3, 7, 8, requires_grad=True)
    coarsest = torch.randn(2, 64, 2, 2)
    regions = heads.regions(1, coarsest, words)
    assert regions.shape == (2, 4, 6) and heads(words).shape == (3, 7, 6)
    assert torch.allclose(regions[1, 2], heads.heads[1](coarsest[1, :, 1, 0][None])[0], atol=1e-6)
    none = heads.regions(0, None, heads(words))
    assert none.shape == (0, 4, 6) and none.requires_grad


def test_towers_that_are_one_have_one_head():
    one, other = per_tower(towers_of("all"), [lambda: torch.nn.Linear(1, 1)] * 2)
    first, second = per_tower(towers_of("trunk"), [lambda: torch.nn.Linear(1, 1)] * 2)
    assert one is other and first is not second
