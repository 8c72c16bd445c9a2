"""Features of whole scans: what counts, what does not, and that a stored scan and a fresh one agree."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medssl.data.store import Store
from medssl.evaluate.features import Window, embed, embed_image, frozen, pool, windows
from scans import prepared_pictures


class Means(nn.Module):
    """A pyramid whose coarsest map holds the mean of each block: its features are known."""

    dims, channels, strides = 2, (2,), ((8, 8),)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.batches: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> list[Tensor]:
        assert not self.training
        self.batches.append(tuple(x.shape))
        mean = nn.functional.avg_pool2d(x, 8) * self.weight
        return [torch.cat([mean, mean.square()], dim=1)]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(prepared_pictures(tmp_path_factory.mktemp("features"), count=12))


def test_a_scan_of_up_to_two_patches_is_seen_whole():
    assert windows(3, (60, 100), (50, 50), (8, 8)) == [Window(3, (0, 0), (64, 104))]


def test_a_larger_scan_is_covered_by_even_windows():
    found = windows(0, (250, 40), (50, 50), (8, 8))
    assert [w.start for w in found] == [(0, 0), (73, 0), (146, 0)]
    assert {w.size for w in found} == {(104, 40)}
    covered = {i for w in found for i in range(w.start[0], w.start[0] + w.size[0])}
    assert covered == set(range(250))


def test_windows_can_be_fewer_and_stay_spread():
    starts = [w.start[0] for w in windows(0, (1000, 40), (50, 50), (8, 8), most=3)]
    assert len(starts) == 3
    assert (starts[0], starts[-1]) == (0, 1000 - 104)


def test_padding_does_not_count():
    cells = torch.arange(12.0).view(1, 1, 3, 4)
    summed, area = pool(cells, torch.tensor([[16, 20]]), (24, 32))
    # Two rows of cells and two and a half columns lie in the image.
    expected = (cells[0, 0, :2, :2].sum() + 0.5 * cells[0, 0, :2, 2].sum()).item()
    assert summed.item() == pytest.approx(expected)
    assert area.item() == pytest.approx(2 * 2.5)


def test_features_are_means_over_the_scan(store):
    features = embed(Means(), store, range(len(store)), patch=(32, 32), batch=5)
    assert features.shape == (len(store), 2)
    means = [store.normalised(row).mean() for row in range(len(store))]
    np.testing.assert_allclose(features[:, 0], means, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_batch_size_changes_nothing(store, batch):
    whole = embed(Means(), store, range(len(store)), patch=(16, 16), batch=7)
    np.testing.assert_allclose(embed(Means(), store, range(len(store)), patch=(16, 16), batch=batch), whole, rtol=1e-6)


def test_rows_come_back_in_the_order_asked_for(store):
    rows = [5, 0, 3]
    all_rows = embed(Means(), store, range(len(store)), patch=(32, 32))
    np.testing.assert_array_equal(embed(Means(), store, rows, patch=(32, 32)), all_rows[rows])


@pytest.mark.parametrize("patch", [(32, 32), (16, 16)])
def test_one_image_gives_what_the_store_gives(store, patch):
    stored = embed(Means(), store, [4], patch=patch)[0]
    np.testing.assert_allclose(embed_image(Means(), store.normalised(4), patch=patch), stored, rtol=1e-6)


def test_windows_share_batches(store):
    encoder = Means()
    embed(encoder, store, range(len(store)), patch=(32, 32), batch=len(store))
    assert [shape[0] for shape in encoder.batches] == [len(store)]


def test_frozen_puts_the_mode_back():
    for training in (True, False):
        encoder = Means().train(training)
        with frozen(encoder):
            assert not encoder.training
            assert not torch.is_grad_enabled()
        assert encoder.training is training


def test_no_rows_no_features(store):
    assert embed(Means(), store, [], patch=(32, 32)).shape == (0, 2)
