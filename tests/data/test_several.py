"""Subjects as items: modalities on one grid, by world place; labels, masks and what is absent."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from medssl.data.plan import Intensity, Plan
from medssl.data.sample import batches
from medssl.data.several import FusedStore, check_modalities, present_of, shown_by, with_present
from medssl.data.store import Store
from medssl.errors import UserError
from medssl.volume import Volume

MakeStore = Callable[..., Store]
SHAPE = (12, 10, 8)
RULES = {"CT": Intensity(normalise="window", low=0, high=1000), "MR": Intensity(normalise="window", low=0, high=1000)}
PLAN = Plan(
    dims=3,
    channels=1,
    spacing_mm=(1, 1, 1),
    crop=False,
    modality=RULES | {"other": Intensity()},
    value_range=(0.0, 1.0),
)


def ramp(shift: tuple[float, ...], modality: str, shape: tuple[int, ...] = SHAPE) -> Volume:
    """Values are 10·x + 20·y + 30·z of the world place in mm, so that any resampling has a known answer."""
    affine = np.eye(4)
    affine[:3, 3] = shift
    voxels = np.indices(shape).astype(float) + np.reshape(shift, (3, 1, 1, 1))
    return Volume((voxels * np.reshape([10, 20, 30], (3, 1, 1, 1))).sum(0)[None].astype(np.float32), affine, modality)


def mask(shape: tuple[int, ...] = SHAPE) -> Volume:
    labels = np.zeros((1, *shape), np.int16)
    labels[0, 2:5, 2:5, 2:5] = 1
    return Volume(labels, np.eye(4), "")


@pytest.fixture
def base(make_store: MakeStore) -> Store:
    """Patient 0: CT with a mask, and a larger MR half a voxel off. Patient 1: CT without a mask, MR with one."""
    volumes = [
        ramp((0, 0, 0), "CT"),
        ramp((-1.5, -2, 0.5), "MR", (16, 14, 6)),
        ramp((0, 0, 0), "CT"),
        ramp((0, 0, 0), "MR"),
    ]
    return make_store(PLAN, volumes, [mask(), None, None, mask()])


def test_scans_lie_on_the_grid_of_the_one_with_the_mask(base: Store) -> None:
    store = FusedStore(base, ("CT", "MR"))
    assert store.reference.tolist() == [0, 3] and store.members.tolist() == [[0, 1], [2, 3]]
    assert store.has_mask.all() and store.items["item"].to_list() == ["item000", "item003"]
    image = store.normalised(0)
    assert image.shape == (2, *SHAPE)
    np.testing.assert_allclose(image[0], base.normalised(0)[0], atol=2e-5)
    world = ramp((0, 0, 0), "MR").array[0] / 1000
    np.testing.assert_allclose(image[1][:, :, 1:6], world[:, :, 1:6], atol=2e-4)  # within the MR, which begins at .5 mm
    assert (image[1][:, :, 7] == image[1][0, 0, 7]).all()  # beyond its end: background
    np.testing.assert_array_equal(store.read_mask(0), base.read_mask(0))
    np.testing.assert_array_equal(store.points(1), base.points(3))


def test_a_box_is_cut_from_the_whole(base: Store) -> None:
    store = FusedStore(base, ("CT", "MR"))
    box = (slice(3, 9), slice(0, 4), slice(2, 8))
    for row in (0, 1):
        np.testing.assert_array_equal(store.read(row, box), store.read(row)[(slice(None), *box)])


def test_absent_modalities_are_told_and_batches_carry_them(make_store: MakeStore) -> None:
    volumes = [ramp((0, 0, 0), "CT"), ramp((0, 0, 0), "MR"), ramp((0, 0, 0), "MR"), ramp((0, 0, 0), "US")]
    store = FusedStore(make_store(PLAN, volumes, [mask()] * 3 + [None]), ("CT", "MR"))
    assert store.present.tolist() == [[True, True], [False, True]]
    made = with_present(batches(store, [0, 1], region=(8, 8, 8), batch=2, steps=2, seed=0, masks=True), store)
    for batch in made:
        assert batch.image.shape == (2, 2, 8, 8, 8) and batch.present is not None and batch.mask is not None
        assert batch.present.tolist() == store.present[batch.item.numpy()].tolist()
    only = present_of(store, [0, 1], [0])
    assert only is not None and only.tolist() == [[True, False], [False, False]]
    assert present_of(store.base, [0]) is None


def test_plain_batches_pass_unchanged(base: Store) -> None:
    made = next(with_present(batches(base, [0, 1], region=(4, 4, 4), batch=2, steps=1, seed=0), base))
    assert made.present is None and made.image.shape[1] == 1


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (("CT", "PET"), "no scan of modality 'PET'.*there are CT, MR"),
        (("CT", "CT"), "named twice"),
    ],
)
def test_names_that_no_scan_has_or_that_come_twice_are_refused(base: Store, wanted: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_modalities(base, wanted)


@pytest.mark.parametrize(
    ("wanted", "others", "told"),
    [
        (("CT", "MR"), ("MR",), "to learn from 2 named modalities and test on others.*the one to learn from"),
        ((), ("MR",), "to learn from no named modalities"),
        (("CT",), ("CT",), "the network learns from 'CT'.*leave it out"),
        (("CT",), ("PET",), "no scan of modality 'PET'"),
        (("PT",), ("PET", "PET"), "(?s)modality 'PT'.*modality 'PET'.*named twice"),  # all at once
    ],
)
def test_what_cannot_be_tested_on_is_refused(
    base: Store, wanted: tuple[str, ...], others: tuple[str, ...], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        check_modalities(base, wanted, others)


def test_items_shown_by_another_modality_keep_their_grid_and_truth(base: Store, make_store: MakeStore) -> None:
    both, alone = FusedStore(base, ("CT", "MR")), FusedStore(base, ("CT",))
    shown = shown_by(alone, "MR")
    assert shown.present.tolist() == [[True], [True]] and shown.names_of == ("CT",) and len(shown) == len(alone)
    assert shown.items.equals(alone.items) and shown.patients is alone.patients
    np.testing.assert_array_equal(shown.read(0), both.read(0)[1:])  # the MR on the CT's grid
    np.testing.assert_array_equal(shown.read_mask(0), base.read_mask(0))
    np.testing.assert_array_equal(alone.read(0), both.read(0)[:1])  # the original is as it was
    # Patient 1's CT has no mask: a store of CT alone has none either, though its MR has one.
    assert alone.has_mask.tolist() == shown.has_mask.tolist() == [True, False]
    lonely = [ramp((0, 0, 0), "CT"), ramp((0, 0, 0), "US"), ramp((0, 0, 0), "CT"), ramp((0, 0, 0), "MR")]
    store = make_store(PLAN, lonely, [mask(), None, mask(), None], "lonely")
    assert shown_by(FusedStore(store, ("CT",)), "MR").present.tolist() == [[False], [True]]


def test_a_turned_scan_is_brought_upright(make_store: MakeStore) -> None:
    """The MR's axes are turned by 25° about an oblique axis: linear values of the world stay what they are."""
    angle, axis = np.deg2rad(25), np.array([1, 2, 3]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    turn = np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    affine, shape = np.eye(4), (26, 26, 26)
    middle = (np.array(SHAPE) - 1) / 2 - 3
    affine[:3, :3] = turn
    affine[:3, 3] = middle - turn @ ((np.array(shape) - 1) / 2)
    world = np.einsum("ij,jxyz->ixyz", turn, np.indices(shape)) + affine[:3, 3].reshape(3, 1, 1, 1)
    values = (world * np.reshape([10, 20, 30], (3, 1, 1, 1))).sum(0)[None].astype(np.float32)
    wide = Intensity(normalise="window", low=-1000, high=1000)  # nothing is clipped, so interpolation is exact
    plan = replace(PLAN, modality={"CT": wide, "MR": wide, "other": wide})
    base = make_store(plan, [ramp((-3, -3, -3), "CT"), Volume(values, affine, "MR")], [mask(), None])
    assert not np.allclose(base.affines[1][:3, :3], np.eye(3), atol=0.05)  # it is stored as turned as it came
    expected = (ramp((-3, -3, -3), "CT").array[0] + 1000) / 2000
    store = FusedStore(base, ("CT", "MR"))
    for image in store.normalised(0):
        np.testing.assert_allclose(image, expected, atol=1e-4)
    box = (slice(2, 9), slice(3, 8), slice(1, 6))
    np.testing.assert_array_equal(store.read(0, box), store.read(0)[(slice(None), *box)])
