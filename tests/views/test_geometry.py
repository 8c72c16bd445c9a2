import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medssl.rng import Rng
from medssl.views import geometry
from medssl.views.geometry import Boxes, apply_crop, crop_straight, crop_turned, sample_box_pair, view_matrix
from medssl.views.turn import sample_turn, turn


def ramps(n: int, size: tuple[int, ...]) -> torch.Tensor:
    """(n, dims, *size): channel i holds the voxel index along axis i, so that linear resampling is exact."""
    where = torch.stack(torch.meshgrid(*(torch.arange(float(s)) for s in size), indexing="ij"))
    return where.repeat(n, *(1,) * where.ndim)


def drawn(n: int, region: tuple[int, ...], seed: int = 0, min_iou: float = 0.2) -> tuple[Boxes, Boxes]:
    return sample_box_pair(Rng(seed, 0), n, region, (0.1, 1.0), (3 / 4, 4 / 3), min_iou)


regions = st.lists(st.integers(3, 40), min_size=2, max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@example(region=(3, 9, 24), seed=53, min_iou=0.875, least=0.375)  # low and edge of a pulled box both rounded up
@given(region=regions, seed=st.integers(0, 2**31), min_iou=st.floats(0, 1), least=st.floats(0.01, 1))
def test_pairs_overlap_as_promised_within_the_region(region, seed, min_iou, least) -> None:
    first, second = sample_box_pair(Rng(seed, 3), 5, region, (least, 1.0), (3 / 4, 4 / 3), min_iou)
    for row in range(5):
        cover = []
        for boxes in (first, second):
            low, edge = boxes.low[row].numpy(), boxes.edge[row].numpy()
            assert (low >= 0).all() and (edge >= 1).all() and (low + edge <= region).all()
            assert (low == low.round()).all() and (edge == edge.round()).all()
            grid = np.indices(region).reshape(len(region), -1).T
            cover.append(((grid >= low) & (grid < low + edge)).all(1))
        assert (cover[0] & cover[1]).sum() >= min_iou * (cover[0] | cover[1]).sum() - 1e-6


def test_boxes_of_a_pair_differ_and_show_the_shares_asked_for() -> None:
    first, second = sample_box_pair(Rng(0, 0), 2000, (100, 60, 80), (0.2, 0.6), (3 / 4, 4 / 3), 0.0)
    share = first.edge.prod(1) / (100 * 60 * 80)
    assert abs(float(share.mean()) - 0.4) < 0.02
    assert float(share.min()) > 0.17 and float(share.max()) < 0.63
    aspect = (first.edge / torch.tensor([100.0, 60, 80])).log()
    assert float((aspect.max(1).values - aspect.min(1).values).max()) < np.log(4 / 3) + 0.05  # whole voxels
    assert float((first.low != second.low).any(1).float().mean()) > 0.95


@pytest.mark.parametrize(("region", "size"), [((30, 24), (16, 20)), ((20, 16, 12), (8, 12, 10))])
def test_a_crop_of_a_ramp_has_the_ramp_of_its_box(region, size) -> None:
    boxes, _ = drawn(4, region)
    out = crop_straight(ramps(4, region), boxes, size)
    for row in range(4):
        for axis in range(len(size)):
            low, edge = float(boxes.low[row, axis]), float(boxes.edge[row, axis])
            wanted = low + ((np.arange(size[axis]) + 0.5) * edge / size[axis] - 0.5).clip(0, edge - 1)
            line = out[row, axis].movedim(axis, -1).reshape(-1, size[axis])
            np.testing.assert_allclose(line.numpy(), np.broadcast_to(wanted, line.shape), atol=1e-4)


@pytest.mark.parametrize(("region", "size"), [((30, 24), (16, 20)), ((20, 16, 12), (8, 12, 10))])
def test_matrices_grid_and_interpolate_give_the_same_crop(region, size) -> None:
    images = torch.rand(5, 2, *region)
    boxes, _ = drawn(5, region)
    straight = crop_straight(images, boxes, size)
    zero = torch.zeros(5, 1 if len(size) == 2 else 3)
    torch.testing.assert_close(crop_turned(images, boxes, zero, size), straight, atol=2e-5, rtol=0)
    for row in range(5):
        cut = tuple(slice(int(l), int(l + e)) for l, e in zip(boxes.low[row], boxes.edge[row], strict=True))
        mode = "bilinear" if len(size) == 2 else "trilinear"
        one = torch.nn.functional.interpolate(images[row][(None, slice(None), *cut)], size, mode=mode)
        torch.testing.assert_close(straight[row : row + 1], one, atol=2e-5, rtol=0)


def test_the_whole_box_at_its_own_size_is_the_identity() -> None:
    images = torch.rand(2, 1, 9, 7, 5)
    whole = Boxes(torch.zeros(2, 3), torch.tensor([[9.0, 7, 5]] * 2))
    torch.testing.assert_close(apply_crop(images, whole, torch.zeros(2, 3), (9, 7, 5)), images)


def test_a_quarter_rotation_is_rot90() -> None:
    images = torch.rand(1, 1, 8, 8)
    whole = Boxes(torch.zeros(1, 2), torch.full((1, 2), 8.0))
    turned = crop_turned(images, whole, torch.tensor([[np.pi / 2]], dtype=torch.float32), (8, 8))
    torch.testing.assert_close(turned, images.rot90(-1, (2, 3)), atol=1e-4, rtol=0)


def test_only_the_rotated_rows_are_rotated() -> None:
    images = torch.rand(3, 1, 16, 16)
    boxes, _ = drawn(3, (16, 16))
    angles = torch.tensor([[0.0], [0.15], [0.0]])
    out = apply_crop(images, boxes, angles, (12, 12))
    straight = crop_straight(images, boxes, (12, 12))
    assert torch.equal(out[[0, 2]], straight[[0, 2]])
    assert not torch.allclose(out[1], straight[1], atol=1e-2)


def test_angles_are_rare_small_and_of_both_signs() -> None:
    angles = geometry.sample_angles(Rng(0, 0), "rotate", 1000, 3, 0.3, 10.0)
    assert abs(float(angles.ne(0).any(1).float().mean()) - 0.3) < 0.05
    assert float(angles.abs().max()) <= np.radians(10) and float(angles.min()) < -0.1 < 0.1 < float(angles.max())


@pytest.mark.parametrize(("region", "size"), [((40, 40), (16, 16)), ((26, 26, 20), (12, 12, 8))])
def test_the_matrix_of_a_view_names_its_voxels_in_the_region(region, size) -> None:
    n, dims = 6, len(size)
    # Larger than the view and far from the border: nothing is clamped, so the map is linear everywhere.
    boxes = Boxes(torch.full((n, dims), 6.0), torch.tensor([[float(r - 12) for r in region]] * n))
    angles = geometry.sample_angles(Rng(1, 0), "rotate", n, dims, 1.0, 10.0)
    code = sample_turn(Rng(1, 0), "turn", n, size)
    view = turn(apply_crop(ramps(n, region), boxes, angles, size), code)
    index = torch.cat([ramps(1, size)[0].flatten(1), torch.ones(1, int(np.prod(size)))])
    named = (view_matrix(boxes, angles, code, size) @ index)[:, :dims].view(n, dims, *size)
    torch.testing.assert_close(view, named, atol=2e-3, rtol=0)
