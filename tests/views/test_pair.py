from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from medssl.rng import Rng
from medssl.views.pair import Pair, PairConfig, equal_positions, make_pair, region_for
from medssl.views.turn import unturn

FLAT = PairConfig.for_size((24, 24), rotate_p=0.5, noise_p=0.5, gamma_p=0.5, shuffle_p=0.5, paint_p=0.5, cutout_p=0.5)
SOLID = PairConfig.for_size((16, 16, 8), rotate_p=0.5, noise_p=0.5, gamma_p=0.5, jitter_p=0.5, cutout_p=0.5)
PLAIN = {"blur_p": 0.0, "jitter_p": 0.0, "cutout_p": 0.0, "shuffle_p": 0.0, "paint_p": 0.0}


def images_of(config: PairConfig, n: int = 4, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, channels, *region_for(config), generator=generator)


def ramps_of(config: PairConfig, n: int) -> torch.Tensor:
    region = region_for(config)
    where = torch.stack(torch.meshgrid(*(torch.arange(float(s)) for s in region), indexing="ij"))
    return where.repeat(n, *(1,) * where.ndim)


def tensors(pair: Pair) -> dict[str, torch.Tensor]:
    return vars(pair)


@pytest.mark.parametrize("config", [FLAT, SOLID])
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-4.0, 4.0)])
def test_views_have_the_size_and_stay_in_the_range(config, value_range) -> None:
    low, high = value_range
    config = replace(config, value_range=value_range)
    pair = make_pair(images_of(config, channels=2) * (high - low) + low, config, Rng(0, 0))
    for name in ("x1", "x2", "clean1", "clean2"):
        image = tensors(pair)[name]
        assert image.shape == (4, 2, *config.size) and image.dtype == torch.float32
        assert low - 1e-5 <= float(image.min()) and float(image.max()) <= high + 1e-5


@pytest.mark.parametrize("config", [FLAT, SOLID])
def test_the_two_views_differ_and_the_same_chance_gives_the_same_bits(config) -> None:
    images = images_of(config)
    pair, again, other = (make_pair(images, config, Rng(0, step)) for step in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(tensors(pair).values(), tensors(again).values(), strict=True))
    for row in range(4):
        assert not torch.equal(pair.x1[row], pair.x2[row])
        assert not torch.equal(pair.x1[row], other.x1[row])


@pytest.mark.parametrize("config", [FLAT, SOLID])
def test_a_views_chance_goes_with_its_place_in_the_global_batch(config) -> None:
    images = images_of(config, 6)
    whole = make_pair(images, config, Rng(3, 9))
    for start, stop in ((0, 2), (2, 6), (5, 6)):
        part = make_pair(images[start:stop], config, Rng(3, 9, start))
        for name, value in tensors(part).items():
            torch.testing.assert_close(value, tensors(whole)[name][start:stop], atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [FLAT, SOLID])
def test_the_mask_marks_exactly_what_was_taken_away(config) -> None:
    local = replace(config, blur_p=0.0, jitter_p=0.0, noise_p=0.0, gamma_p=0.0)
    pair = make_pair(images_of(local, 8, 2), local, Rng(0, 0))
    for x, clean, mask in ((pair.x1, pair.clean1, pair.corrupted1), (pair.x2, pair.clean2, pair.corrupted2)):
        assert torch.equal((x != clean).any(1), mask)
        assert bool(mask.any()) and not bool(mask.all())


@pytest.mark.parametrize("config", [FLAT, SOLID])
def test_without_corruption_the_input_is_the_target(config) -> None:
    quiet = replace(config, noise_p=0.0, gamma_p=0.0, **PLAIN)
    pair = make_pair(images_of(quiet), quiet, Rng(0, 0))
    assert torch.equal(pair.x1, pair.clean1) and torch.equal(pair.x2, pair.clean2)
    assert not bool(pair.corrupted1.any() or pair.corrupted2.any())


def test_grey_changes_alone_take_nothing_away() -> None:
    grey = replace(FLAT, cutout_p=0.0, shuffle_p=0.0, paint_p=0.0, jitter_p=1.0)
    pair = make_pair(images_of(grey), grey, Rng(0, 0))
    assert not torch.equal(pair.x1, pair.clean1)
    assert not bool(pair.corrupted1.any())


@pytest.mark.parametrize("config", [FLAT, SOLID])
def test_the_code_tells_how_to_turn_the_view_back(config) -> None:
    """Before T, a ramp rises along each axis: with small rotations only, every view turned back does so again."""
    quiet = replace(config, noise_p=0.0, gamma_p=0.0, **PLAIN)
    pair = make_pair(ramps_of(quiet, 32), replace(quiet, value_range=(0.0, 1e4)), Rng(0, 0))
    for clean, code in ((pair.clean1, pair.t1), (pair.clean2, pair.t2)):
        upright = unturn(clean, code)
        for axis in range(len(config.size)):
            ramp = upright[:, axis].movedim(axis + 1, -1).flatten(1, -2).mean(1)
            assert bool((ramp[:, -1] > ramp[:, 0]).all())
        assert not torch.equal(upright, clean)


@pytest.mark.parametrize("config", [FLAT, SOLID])
def test_equal_positions_show_the_same_place(config) -> None:
    quiet = replace(config, noise_p=0.0, gamma_p=0.0, value_range=(0.0, 1e4), rotate_p=1.0, **PLAIN)
    pair = make_pair(ramps_of(quiet, 12), quiet, Rng(0, 0))
    grid = tuple(s // 2 for s in quiet.size)
    there, inside = equal_positions(pair, grid)
    pool = F.avg_pool2d if len(grid) == 2 else F.avg_pool3d
    here = pool(pair.clean1, 2)  # of a ramp: its value at the cell's centre
    seen = F.grid_sample(pair.clean2, there, align_corners=False)
    assert 0.05 < float(inside.float().mean()) < 0.98
    # Within a voxel of the border a crop repeats its edge, so the ramp is flat there.
    last = 1 - 2 / torch.tensor(quiet.size).flip(0)
    core = (there.abs() < last).all(-1) & _off_border(grid)
    upscaled = float(quiet.reach) * 1.5
    assert int(core.sum()) > 100 and bool((core <= inside).all())
    error = (here - seen).abs().amax(1)[core]
    assert float(error.median()) < 1e-3 and float((error < upscaled).float().mean()) > 0.97


def _off_border(grid: tuple[int, ...]) -> torch.Tensor:
    off = torch.zeros(grid, dtype=torch.bool)
    off[(slice(1, -1),) * len(grid)] = True
    return off


def test_both_views_of_an_image_are_painted_alike() -> None:
    config = PairConfig.for_size((32, 32, 16), **(PLAIN | {"paint_p": 0.5, "paint_inner": 0.5}))
    pair = make_pair(images_of(config, 24), config, Rng(0, 0))
    share1, share2 = (mask.flatten(1).float().mean(1) for mask in (pair.corrupted1, pair.corrupted2))
    assert torch.equal(share1 > 0, share2 > 0)
    assert torch.equal(share1 > 0.45, share2 > 0.45)  # out-painting leaves at most five boxes of (4/7)³
    assert bool(((share1 > 0) & (share1 < 0.45)).any()) and bool((share1 > 0.45).any())


def test_the_region_holds_the_largest_crop() -> None:
    assert region_for(PairConfig.for_size((224, 224))) == (224, 224)
    assert region_for(PairConfig.for_size((64, 64, 32))) == (112, 112, 56)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_views() -> None:
    for config in (FLAT, SOLID):
        images = images_of(config)
        here, there = make_pair(images, config, Rng(0, 0)), make_pair(images.cuda(), config, Rng(0, 0))
        for name, value in tensors(here).items():
            if value.dtype != torch.bool:
                torch.testing.assert_close(tensors(there)[name].cpu(), value, atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", [(24, 24), (16, 16, 8)])
def test_strength_goes_from_a_patch_as_it_is_to_the_published_recipe(size) -> None:
    full = PairConfig.for_size(size)
    assert PairConfig.for_size(size, strength=1.0) == full
    still = PairConfig.for_size(size, strength=0.0)
    assert region_for(still) == region_for(full)
    pair = make_pair(images_of(still), still, Rng(0, 0))
    for x, clean, place in ((pair.x1, pair.clean1, pair.place1), (pair.x2, pair.clean2, pair.place2)):
        torch.testing.assert_close(x, clean, atol=1e-6, rtol=0)
        steps = place[:, : len(size), : len(size)].abs()  # one voxel of the view is one voxel of the region
        torch.testing.assert_close(steps.sum(1), torch.ones(4, len(size)), atol=1e-4, rtol=0)
        torch.testing.assert_close(steps.amax(1), torch.ones(4, len(size)), atol=1e-4, rtol=0)
    half = PairConfig.for_size(size, strength=0.5)
    assert full.scale[0] < half.scale[0] < still.scale[0] and still.scale[1] <= half.scale[1] <= full.scale[1]
    assert half.paint_p == full.paint_p / 2 and half.cutout_p == full.cutout_p / 2
    wide = PairConfig.for_size(size, cutout_p=0.5, strength=0.5)
    assert wide.cutout_p == 0.25  # what a caller changes is weakened too
