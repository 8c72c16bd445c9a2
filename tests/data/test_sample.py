"""A sample is a pure function of (seed, step, position): of nothing else, and of all three."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from medssl.contract import Batch
from medssl.data.plan import Plan
from medssl.data.sample import batches, central, tiles, whole_batches
from medssl.data.store import Store
from medssl.errors import UserError
from medssl.volume import Volume

REGION = (16, 16, 12)


@pytest.fixture
def store(make_store, ct_plan: Plan, ct_volumes, ct_masks) -> Store:
    return make_store(ct_plan, ct_volumes, ct_masks)


def equal(a: Batch, b: Batch) -> bool:
    pairs = [(value, getattr(b, name)) for name, value in vars(a).items() if isinstance(value, torch.Tensor)]
    return a.value_range == b.value_range and all(torch.equal(x, y) for x, y in pairs)


def draw(store: Store, **options) -> list[Batch]:
    labels = np.arange(len(store), dtype=np.float32)[:, None]
    usual = {"region": REGION, "batch": 4, "steps": 5, "seed": 3, "masks": True, "labels": labels, "foreground": 0.5}
    return list(batches(store, range(len(store)), **(usual | options)))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_worker_counts_change_nothing(store: Store, workers: int) -> None:
    for a, b in zip(draw(store), draw(store, workers=workers), strict=True):
        assert equal(a, b)


def test_a_resumed_run_sees_what_it_would_have_seen(store: Store) -> None:
    through = draw(store, steps=7)
    resumed = draw(store, steps=7, start=3)
    assert len(resumed) == 4
    assert all(equal(a, b) for a, b in zip(through[3:], resumed, strict=True))


def test_ranks_share_the_global_batch(store: Store) -> None:
    parts = [draw(store, rank=rank, world=2) for rank in range(2)]
    for whole, first, second in zip(draw(store), *parts, strict=True):
        assert torch.equal(whole.image, torch.cat([first.image, second.image]))
        assert torch.equal(whole.item, torch.cat([first.item, second.item]))


def test_seeds_and_steps_differ(store: Store) -> None:
    a, b = draw(store), draw(store, seed=4)
    assert not torch.equal(a[0].image, b[0].image)
    assert not torch.equal(a[0].image, a[1].image)


def test_every_epoch_visits_every_scan_once_in_an_order_of_its_own(store: Store) -> None:
    drawn = torch.cat([b.item for b in draw(store, batch=3, steps=10)]).tolist()
    epochs = [drawn[i : i + 5] for i in range(0, 30, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3


def test_regions_are_cut_from_where_they_say(store: Store, ct_volumes, ct_masks) -> None:
    """Every voxel of the phantom has its own value often enough that a region fits in one place only."""
    for batch in draw(store, region=(9, 9, 9), foreground=0.0):
        for image, mask, row, label in zip(batch.image, batch.mask, batch.item, batch.label, strict=True):
            whole, marks = ct_volumes[row].array[0], ct_masks[row].array[0]
            windows = np.lib.stride_tricks.sliding_window_view(whole, (9, 9, 9))
            [place] = np.argwhere((windows == image[0].numpy()).all(axis=(3, 4, 5)))
            box = tuple(slice(p, p + 9) for p in place)
            np.testing.assert_array_equal(mask.numpy(), marks[box])
            assert label.item() == row


def test_places_are_drawn_evenly(make_store, ct_plan: Plan) -> None:
    ramp = np.arange(-20, 0, dtype=np.int16)[None, :, None, None] * np.ones((1, 20, 8, 8), np.int16)
    store = make_store(ct_plan, [Volume(ramp, np.eye(4), "CT")])
    starts = Counter()
    for batch in batches(store, [0], region=(16, 8, 8), batch=100, steps=5, seed=0):
        starts.update(batch.image[:, 0, 0, 0, 0].tolist())
    assert sorted(starts) == [-20, -19, -18, -17, -16]
    assert all(60 < n < 140 for n in starts.values())


def test_small_scans_stand_in_the_middle_of_their_background(make_store, ct_plan: Plan) -> None:
    image = np.full((1, 6, 30, 8), 100, np.int16)
    image[0, 0, 0, 0] = -800
    store = make_store(ct_plan, [Volume(image, np.eye(4), "CT")], [Volume(np.ones_like(image), np.eye(4))])
    [batch] = batches(store, [0], region=(10, 16, 12), batch=1, steps=1, seed=0, masks=True)
    assert batch.image.shape == (1, 1, 10, 16, 12)
    assert (batch.mask[0, 2:8, :, 2:10] == 1).all()
    assert batch.mask.sum() == 6 * 16 * 8
    outside = batch.mask[0] == 0
    # Most of the border is 100, so that is what lies around this scan.
    assert (batch.image[0, 0][outside] == 100).all()


def test_structures_are_met_as_often_as_each_other(store: Store) -> None:
    drawn = draw(store, region=(5, 5, 5), batch=50, steps=4, foreground=1.0)
    found = [set(torch.unique(mask).tolist()) for batch in drawn for mask in batch.mask]
    shares = {label: np.mean([label in labels for labels in found]) for label in (1, 2)}
    # Structure 2 fills a hundredth of a scan: regions anywhere would meet it far more seldom.
    assert all(0.3 < share < 0.7 for share in shares.values())
    assert all(labels & {1, 2} for labels in found)
    chance = draw(store, region=(5, 5, 5), batch=50, steps=4, foreground=0.0)
    assert np.mean([2 in mask for batch in chance for mask in batch.mask]) < 0.15


def test_the_image_foreground_draws_regions_too(make_store, ct_plan: Plan) -> None:
    image = np.full((1, 60, 60, 20), -1000, np.int16)
    image[0, 40:50, 40:50, 5:15] = 30
    image[0, 0, 0, 0] = -900
    store = make_store(ct_plan, [Volume(image, np.eye(4), "CT")])
    for batch in batches(store, [0], region=(12, 12, 12), batch=8, steps=3, seed=0, foreground=1.0):
        assert (batch.image == 30).flatten(1).any(dim=1).all()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1])
def test_every_sample_knows_its_modality(make_store, ct_plan: Plan, ct_volumes, workers: int) -> None:
    kinds = ["PT", "CT", "MR", "CT", "PT"]
    mixed = make_store(
        ct_plan, [replace(volume, modality=kind) for volume, kind in zip(ct_volumes, kinds, strict=True)]
    )
    for batch in draw(mixed, masks=False, foreground=0.0, workers=workers):
        assert batch.modality.dtype == torch.int64
        assert [mixed.modality_names[code] for code in batch.modality] == [kinds[row] for row in batch.item]


def test_whole_batches_give_every_row_once_from_its_middle(store: Store, ct_volumes) -> None:
    rows = [4, 1, 2]
    made = list(whole_batches(store, rows, region=(8, 8, 8), batch=2, masks=True))
    assert [len(b) for b in made] == [2, 1]
    assert torch.cat([b.item for b in made]).tolist() == rows
    np.testing.assert_array_equal(made[0].image[0], ct_volumes[4].array[:, 9:17, 9:17, 9:17])


def test_tiles_cover_a_scan() -> None:
    shape, region = (50, 16, 7), (16, 16, 12)
    covered = np.zeros(shape, int)
    for start in tiles(shape, region, overlap=0.25):
        covered[tuple(slice(max(0, s), s + r) for s, r in zip(start, region, strict=True))] += 1
    assert covered.min() == 1
    assert {start[2] for start in tiles(shape, region)} == {central((7,), (12,))[0]}
    assert len(tiles((64, 64), (32, 32))) == 4


def test_images_are_sampled_like_volumes(make_store, picture_plan: Plan) -> None:
    colour = replace(picture_plan, channels=3)
    arrays = np.random.default_rng(0).integers(0, 255, (3, 3, 24, 40)).astype(np.uint8)
    images = [Volume(array, np.eye(4)) for array in arrays]
    store = make_store(colour, images)
    [batch] = batches(store, [0, 2], region=(24, 24), batch=6, steps=1, seed=0)
    assert batch.image.shape == (6, 3, 24, 24)
    assert batch.image.dtype == torch.uint8
    assert set(batch.item.tolist()) == {0, 2}
    normal = batch.normalised()
    assert 0 <= normal.min() < 0.1
    assert 0.9 < normal.max() <= 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"region": (8, 8)}, "2 axes"),
        ({"batch": 3, "world": 2}, "a batch of 3 on 2 ranks"),
        ({"labels": np.zeros((2, 1))}, "2 rows of labels for 5 scans"),
    ],
)
def test_wrong_requests_are_refused(store: Store, options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        draw(store, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_scan_that_vanished_is_named(store: Store, workers: int) -> None:
    (store.data / "store" / "item002.b2nd").unlink()
    with pytest.raises(UserError) as error:
        draw(store, workers=workers)
    assert error.value.what == "the prepared scan is gone"
    assert "item002" in str(error.value.where)
