import numpy as np
import pytest
import torch

from medssl.rng import Rng
from medssl.views import corrupt
from medssl.views.corrupt import Paint, Shuffle

SIZES = [(30, 24), (20, 16, 12)]


def inside(box: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Voxels of a union of boxes, one by one."""
    grid = np.indices(size)
    one = [np.all([(g >= lo) & (g < hi) for g, (lo, hi) in zip(grid, b, strict=True)], axis=0) for b in box]
    return np.any(one, axis=0)


@pytest.mark.parametrize("size", SIZES)
def test_boxes_lie_within_and_have_the_edges_asked_for(size) -> None:
    boxes = corrupt.sample_boxes(Rng(0, 0), "boxes", 200, size, 3, (0.25, 0.5)).numpy()
    edges = boxes[..., 1] - boxes[..., 0]
    assert (boxes[..., 0] >= 0).all() and (boxes[..., 1] <= size).all()
    assert (edges >= np.floor(np.array(size) * 0.25)).all() and (edges <= np.ceil(np.array(size) * 0.5)).all()
    union = corrupt.inside_boxes(torch.from_numpy(boxes[:4]), size, torch.device("cpu")).numpy()
    for row in range(4):
        assert np.array_equal(union[row], inside(boxes[row], size))


@pytest.mark.parametrize("size", SIZES)
def test_cutout_changes_its_boxes_only_and_puts_the_mean_there(size) -> None:
    images = torch.rand(6, 2, *size)
    boxes = corrupt.sample_cutout(Rng(0, 0), "cutout", 6, size, 0.5, 3, 1 / 7)
    out = corrupt.apply_cutout(images, boxes)
    used = boxes.flatten(1).any(1)
    assert 0 < int(used.sum()) < 6
    for row in range(6):
        hole = torch.from_numpy(inside(boxes[row].numpy(), size))
        assert torch.equal(out[row][:, ~hole], images[row][:, ~hole])
        assert bool((out[row][:, hole] == images[row].mean()).all())
        assert bool(hole.any()) == bool(used[row])


@pytest.mark.parametrize("size", SIZES)
def test_shuffling_moves_voxels_within_their_cell(size) -> None:
    images = torch.rand(6, 2, *size)
    shuffle = corrupt.sample_shuffle(Rng(0, 1), "shuffle", 6, size, 1.0, 1 / 5)
    out = corrupt.apply_shuffle(images, shuffle)
    moved = 0
    for row in range(6):
        where = np.indices(size).reshape(len(size), -1) + shuffle.offset[row].numpy()[:, None]
        cells = where // np.array(shuffle.cell)[:, None]
        old, new = images[row].flatten(1).numpy(), out[row].flatten(1).numpy()
        for cell in np.unique(cells, axis=1).T:
            rows = (cells == cell[:, None]).all(0)
            assert np.array_equal(np.sort(old[:, rows]), np.sort(new[:, rows]))
            if rows.sum() < np.prod(shuffle.cell):  # cut by the border
                assert np.array_equal(old[:, rows], new[:, rows])
        # Channels travel together.
        pairs = {tuple(p) for p in old.T}
        assert all(tuple(p) in pairs for p in new.T)
        moved += (old != new).any()
    assert moved == 6


def test_cells_differ_in_their_permutation_and_samples_in_their_jitter() -> None:
    size = (24, 24)
    images = torch.arange(24.0 * 24).view(1, 1, 24, 24).repeat(2, 1, 1, 1)
    shuffle = corrupt.sample_shuffle(Rng(0, 0), "shuffle", 2, size, 1.0, 1 / 4)
    out = corrupt.apply_shuffle(images, shuffle)
    assert not torch.equal(out[0], out[1])
    still = Shuffle(shuffle.cell, shuffle.orders, torch.zeros(2, 2).long(), shuffle.seeds, shuffle.chosen)
    c, d = still.cell
    jumps = (corrupt.apply_shuffle(images, still) - images)[0, 0, : 24 // c * c, : 24 // d * d]
    each = jumps.reshape(24 // c, c, 24 // d, d).permute(0, 2, 1, 3).reshape(-1, c * d)
    assert len(each.unique(dim=0)) > 1


def test_samples_that_are_not_chosen_keep_their_bits() -> None:
    images = torch.rand(3, 1, 20, 20)
    shuffle = corrupt.sample_shuffle(Rng(0, 0), "shuffle", 3, (20, 20), 1.0, 1 / 5)
    some = Shuffle(shuffle.cell, shuffle.orders, shuffle.offset, shuffle.seeds, torch.tensor([False, True, False]))
    out = corrupt.apply_shuffle(images, some)
    assert torch.equal(out[[0, 2]], images[[0, 2]]) and not torch.equal(out[1], images[1])
    assert torch.equal(out[1], corrupt.apply_shuffle(images, shuffle)[1])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("inner", [True, False])
def test_painting_changes_one_side_of_the_boxes_only(size, inner) -> None:
    images = torch.full((5, 1, *size), 0.123)
    kind = (torch.tensor([True, True, True, True, False]), torch.full((5,), inner))
    paint = corrupt.sample_paint(Rng(0, 0), "paint", 5, size, kind)
    out = corrupt.apply_paint(images, paint, (0.0, 1.0))
    assert torch.equal(out[4], images[4])
    for row in range(4):
        painted = inside(paint.boxes[row].numpy(), size) == inner
        assert 0 < painted.sum() < painted.size
        assert np.array_equal((out[row, 0] != images[row, 0]).numpy(), painted)


def test_paint_is_uniform_in_the_value_range() -> None:
    whole = torch.tensor([[[[0, 64], [0, 64]]]])
    yes = torch.tensor([True])
    out = corrupt.apply_paint(torch.zeros(1, 1, 64, 64), Paint(whole, yes, yes, torch.tensor([7])), (-2.0, 6.0))
    counts = torch.histc(out, bins=8, min=-2, max=6) / out.numel()
    torch.testing.assert_close(counts, torch.full((8,), 1 / 8), atol=0.02, rtol=0)


def test_painting_takes_one_to_five_boxes_of_the_published_edges() -> None:
    kind = corrupt.sample_paint_kind(Rng(0, 0), "paint", 1000, 0.9, 0.2)
    assert abs(float(kind[0].float().mean()) - 0.9) < 0.04 and abs(float(kind[1].float().mean()) - 0.2) < 0.05
    paint = corrupt.sample_paint(Rng(0, 0), "paint", 1000, (84, 84), kind)
    edges = (paint.boxes[..., 1] - paint.boxes[..., 0]).float()
    count = edges.prod(-1).gt(0).sum(1)
    assert int(count.min()) >= 1 and int(count.max()) == 5
    small, large = edges[kind[1], 0], edges[~kind[1], 0]
    assert float(small.min()) >= 14 and float(small.max()) <= 28
    assert float(large.min()) >= 36 and float(large.max()) <= 48
