"""Augmentation of labelled images: masks move with their images, and nothing else changes."""

import numpy as np
import pytest
import torch

from medssl.rng import Rng
from medssl.tasks.augment import apply_classes, apply_images, centred, mirrored, region_of, sample_change

SHAPES = [((40, 36), (32, 28)), ((20, 18, 16), (16, 14, 12))]


def blocks(region: tuple[int, ...], b: int = 4, n: int = 4) -> torch.Tensor:
    """Class numbers in blocks of n voxels."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 3, (b, *(-(-r // n) for r in region)), generator=g)
    for axis in range(len(region)):
        coarse = coarse.repeat_interleave(n, dim=axis + 1)
    return coarse[(slice(None), *(slice(r) for r in region))]


@pytest.mark.parametrize(("region", "size"), SHAPES)
def test_masks_move_with_their_images(region: tuple[int, ...], size: tuple[int, ...]) -> None:
    classes = blocks(region)
    change = sample_change(Rng(0, 3), 4, region, 0.85, mirror=True)
    assert change.angles.ne(0).any() and change.mirror.any()
    plain = type(change)(change.boxes, change.angles, change.mirror, torch.tensor([[1.0, 0.0, 1.0]]).repeat(4, 1))
    # A picture of a class is close to 1 exactly where the moved mask says so.
    moved = apply_classes(classes, 3, change, size)
    for number in range(3):
        picture = apply_images((classes == number).float()[:, None], plain, size, (0.0, 1.0))[:, 0]
        assert (moved[picture > 0.51] == number).all()
        assert (moved[picture < 0.3] != number).all()


@pytest.mark.parametrize(("region", "size"), SHAPES)
def test_the_middle_is_cut_out_exactly(region: tuple[int, ...], size: tuple[int, ...]) -> None:
    classes = blocks(region)
    images = torch.rand(4, 2, *region, generator=torch.Generator().manual_seed(1))
    box = tuple(slice((r - s) // 2, (r - s) // 2 + s) for r, s in zip(region, size, strict=True))
    change = centred(4, region, size)
    torch.testing.assert_close(apply_images(images, change, size, (0.0, 1.0)), images[(..., *box)])
    assert torch.equal(apply_classes(classes, 3, change, size), classes[(slice(None), *box)])


def test_only_left_and_right_are_exchanged() -> None:
    image, volume = torch.rand(2, 1, 4, 5), torch.rand(2, 1, 4, 5, 6)
    chosen = torch.tensor([True, False])
    assert torch.equal(mirrored(image, chosen), torch.stack([image[0].flip(2), image[1]]))
    assert torch.equal(mirrored(volume, chosen), torch.stack([volume[0].flip(1), volume[1]]))


def test_without_leave_nothing_is_mirrored() -> None:
    assert not sample_change(Rng(0, 0), 64, (32, 32), 0.9, mirror=False).mirror.any()


def test_values_stay_in_their_range_and_keep_their_order() -> None:
    ramp = torch.linspace(-1, 1, 32).expand(8, 1, 32, 32).clone()
    change = centred(8, (32, 32), (32, 32))
    change.tone[:] = sample_change(Rng(0, 1), 8, (32, 32), 1.0, mirror=False).tone
    out = apply_images(ramp, change, (32, 32), (-1.0, 1.0))
    assert out.min() >= -1 and out.max() <= 1
    assert (out.diff(dim=3) >= 0).all()
    assert not torch.allclose(out, ramp)


def test_chance_is_a_function_of_seed_step_and_position() -> None:
    whole = sample_change(Rng(5, 2), 8, (32, 32), 0.9, mirror=True)
    part = sample_change(Rng(5, 2, start=4), 4, (32, 32), 0.9, mirror=True)
    torch.testing.assert_close(whole.tone[4:], part.tone)
    torch.testing.assert_close(whole.boxes.low[4:], part.boxes.low)
    other = sample_change(Rng(5, 3), 8, (32, 32), 0.9, mirror=True)
    assert not torch.equal(whole.tone, other.tone)


def test_boxes_lie_in_the_region_and_lose_little() -> None:
    region = region_of((32, 48))
    assert region == (38, 58)
    change = sample_change(Rng(1, 0), 200, region, 1 / 1.2, mirror=False)
    low, edge = change.boxes.low.numpy(), change.boxes.edge.numpy()
    assert (low >= 0).all() and (low + edge <= np.array(region)).all()
    assert (edge >= np.floor(np.array(region) / 1.2)).all()
