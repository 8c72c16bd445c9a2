"""Whole items in one shape: proportions, values, order."""

from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medssl.data.whole import WholeItems, fit_into, whole_size


def test_a_shrunk_image_holds_the_means_of_its_cells() -> None:
    image = torch.rand(2, 8, 12)
    expected = image.reshape(2, 4, 2, 6, 2).mean((2, 4))
    torch.testing.assert_close(fit_into(image, (4, 6), 0.0), expected)


@pytest.mark.parametrize("shape", [(30, 60), (90, 20), (10, 10), (64, 64, 20), (7, 50, 9)])
def test_proportions_stay_and_the_rest_is_fill(shape: tuple[int, ...]) -> None:
    size = (32,) * len(shape)
    out = fit_into(torch.ones(1, *shape), size, -5.0)
    assert out.shape == (1, *size)
    inside = out[0] == 1
    assert ((out == 1) | (out == -5)).all()
    longest = max(shape)
    for axis, n in enumerate(shape):
        lines = inside.any(dim=tuple(d for d in range(len(shape)) if d != axis)) if len(shape) > 1 else inside
        assert abs(int(lines.sum()) - 32 * n / longest) <= 1
        low, high = int(lines.int().argmax()), 31 - int(lines.flip(0).int().argmax())
        assert abs(low - (31 - high)) <= 1


def test_what_fits_exactly_is_left_alone() -> None:
    image = torch.rand(1, 5, 6, 7)
    assert torch.equal(fit_into(image, (5, 6, 7), 0.0), image)


@pytest.mark.parametrize(
    ("shape", "voxels", "size"),
    [
        ((64, 64), 224 * 224, (64, 64)),
        ((512, 512), 224 * 224, (224, 224)),
        ((400, 200), 224 * 224, (320, 160)),
        ((36, 50, 36), 131072, (32, 48, 32)),
        ((128, 128, 128), 32**3, (32, 32, 32)),
        ((2000, 4), 64, (176, 8)),
    ],
)
def test_sizes_keep_proportions_within_a_budget(shape: tuple, voxels: int, size: tuple) -> None:
    assert whole_size(shape, voxels) == size


class Numbers:
    """A store whose item i is filled with i."""

    def __init__(self, n: int) -> None:
        self.gain, self.bias = np.full(n, 0.5, np.float32), np.arange(n, dtype=np.float32)
        self.fill, self.patients = np.zeros(n, np.int32), np.arange(n) // 2
        self.plan = SimpleNamespace(value_range=(0.0, 100.0))
        self.reads = 0

    def read(self, row: int) -> np.ndarray:
        self.reads += 1
        return np.full((1, 6, 6), row, np.int16)


def items(rows: list[int], n: int = 10) -> WholeItems:
    return WholeItems(Numbers(n), rows, (6, 6), np.arange(len(rows))[:, None] * 1.0)  # type: ignore[arg-type]


def test_a_batch_holds_the_items_asked_for() -> None:
    batch = items([7, 3, 5]).batch([2, 0])
    assert batch.image[:, 0, 0, 0].tolist() == [5, 7]
    assert batch.item.tolist() == [5, 7] and batch.patient.tolist() == [2, 3]
    assert batch.label is not None and batch.label[:, 0].tolist() == [2, 0]
    assert batch.normalised()[:, 0, 0, 0].tolist() == [5 * 0.5 + 5, 7 * 0.5 + 7]


def test_every_epoch_shows_each_item_once_and_batches_are_full() -> None:
    made = items(list(range(5)))
    drawn = [int(i) for batch in made.training(batch=4, steps=10, seed=0) for i in batch.item]
    assert len(drawn) == 40
    assert all(sorted(drawn[e * 5 : e * 5 + 5]) == [0, 1, 2, 3, 4] for e in range(8))
    assert drawn[:5] != drawn[5:10]


def test_a_run_resumed_sees_what_it_would_have_seen() -> None:
    whole = [b.item.tolist() for b in items(list(range(7))).training(batch=3, steps=9, seed=2)]
    rest = [b.item.tolist() for b in items(list(range(7))).training(batch=3, steps=9, seed=2, start=4)]
    assert rest == whole[4:]
    other = [b.item.tolist() for b in items(list(range(7))).training(batch=3, steps=9, seed=3)]
    assert other != whole


def test_items_are_read_once_while_there_is_room() -> None:
    made = items([1, 2])
    list(islice(made.training(batch=2, steps=5, seed=0), 5))
    assert made.store.reads == 2  # type: ignore[attr-defined]
    made._kept.clear()
    made._room = 0
    list(made.once(2))
    list(made.once(2))
    assert made.store.reads == 6  # type: ignore[attr-defined]


def test_once_is_in_order_and_complete(tmp_path: Path) -> None:
    assert [b.item.tolist() for b in items([4, 2, 9]).once(2)] == [[4, 2], [9]]
