"""What the store gives back is what was prepared, by row or by id, in this process and in another."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medssl.data.plan import Plan
from medssl.data.store import FROM_INDEX, FROM_PREPARED, Store
from medssl.errors import UserError
from medssl.volume import Volume


def test_boxes_masks_and_normalised_values(make_store, ct_plan: Plan, ct_volumes, ct_masks) -> None:
    store = make_store(ct_plan, ct_volumes, ct_masks)
    assert len(store) == len(ct_volumes)
    for row, (volume, mask) in enumerate(zip(ct_volumes, ct_masks, strict=True)):
        np.testing.assert_array_equal(store.read(row), volume.array)
        box = (slice(2, 9), slice(0, 16), slice(5, 6))
        np.testing.assert_array_equal(store.read(f"item{row:03d}", box), volume.array[(slice(None), *box)])
        np.testing.assert_array_equal(store.read_mask(row, box), mask.array[0][box])
        wanted = np.clip((volume.array + 1000) / 2000, 0, 1)
        np.testing.assert_allclose(store.normalised(row), wanted, atol=1e-6)
    assert store.items["mask_labels"][0].to_list() == [1, 2]
    assert store.items["file_shape"][0].to_list() == [20, 24, 18]
    assert store.patients.tolist() == [0, 0, 1, 1, 2]


def test_small_scans_are_kept_up_to_a_limit(make_store, ct_plan: Plan, ct_volumes, monkeypatch) -> None:
    monkeypatch.setattr("medssl.data.store.KEPT_BYTES", 40_000)
    store = make_store(ct_plan, ct_volumes)
    for _ in range(2):
        for row, volume in enumerate(ct_volumes):
            first = store.read(row)
            np.testing.assert_array_equal(first, volume.array)
            first[:] = 0  # what a caller does with it touches nobody else
    assert 0 < sum(array.nbytes for array in store._kept.values()) <= 40_000


def test_a_pickled_store_is_small_and_reads_the_same(make_store, ct_plan: Plan, ct_volumes) -> None:
    store = make_store(ct_plan, ct_volumes)
    store.read(0)
    packed = pickle.dumps(store)
    assert len(packed) < 5000
    np.testing.assert_array_equal(pickle.loads(packed).read(3), store.read(3))


def test_predictions_return_to_the_grid_of_the_file(make_store, ct_plan: Plan) -> None:
    image = np.full((1, 40, 36, 20), -1000, np.int16)
    image[0, 8:30, 8:28, 4:16] = 50
    labels = np.zeros(image.shape, np.int16)
    labels[0, 10:20, 12:20, 6:12] = 3
    affine = np.array([[0, -1.0, 0, 30], [0, 0, 2.0, -5], [1.0, 0, 0, 4], [0, 0, 0, 1]])
    plan = replace(ct_plan, crop=True)
    store = make_store(plan, [Volume(image, affine, "CT")], [Volume(labels, affine)])
    back = store.place_back(0, store.read_mask(0))
    np.testing.assert_allclose(back.affine, affine)
    assert back.array.shape == labels.shape
    dice = 2 * ((back.array == 3) & (labels == 3)).sum() / ((back.array == 3).sum() + (labels == 3).sum())
    assert dice == 1
    with pytest.raises(UserError, match="labels have shape"):
        store.place_back(0, np.zeros((3, 3, 3), np.uint8))


def test_modalities_are_codes_into_their_sorted_names(make_store, ct_plan: Plan, ct_volumes) -> None:
    kinds = ["PT", "CT", "", "CT", "MR"]
    volumes = [replace(volume, modality=kind) for volume, kind in zip(ct_volumes, kinds, strict=True)]
    store = make_store(ct_plan, volumes)
    assert store.modality_names == ("", "CT", "MR", "PT")
    assert store.modalities.dtype == np.int64 and store.modalities.tolist() == [3, 1, 0, 1, 2]
    kept = pickle.loads(pickle.dumps(store))
    assert kept.modality_names == store.modality_names and kept.modalities.tolist() == store.modalities.tolist()


def test_the_hash_names_scans_and_plan(make_store, ct_plan: Plan, ct_volumes) -> None:
    first = make_store(ct_plan, ct_volumes, name="a")
    assert make_store(ct_plan, ct_volumes, name="b").hash == first.hash
    assert make_store(ct_plan, ct_volumes[:-1], name="c").hash != first.hash
    assert make_store(replace(ct_plan, spacing_mm=(2, 2, 2)), ct_volumes, name="d").hash != first.hash


def test_what_is_missing_is_told(make_store, ct_plan: Plan, ct_volumes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `medssl prepare"):
        Store(tmp_path)
    store = make_store(ct_plan, ct_volumes)
    with pytest.raises(UserError, match="no item 'x'"):
        store.row("x")
    with pytest.raises(UserError, match="has no mask"):
        store.read_mask(0)
    (store.data / "store" / "item001.b2nd").unlink()
    with pytest.raises(UserError, match="is gone"):
        store.read(1)
    replace(ct_plan, spacing_mm=(2, 2, 2)).write(store.data / "plan.toml")
    with pytest.raises(UserError, match=r"plan\.toml is not what"):
        Store(store.data)


def test_a_store_opens_by_few_columns_and_reads_the_rest_when_asked(
    make_store, ct_plan: Plan, ct_volumes, ct_masks, monkeypatch
) -> None:
    data, read, asked = make_store(ct_plan, ct_volumes, ct_masks).data, pl.read_parquet, []

    def spied(path, columns=None):
        asked.append(columns)
        return read(path, columns=columns)

    monkeypatch.setattr(pl, "read_parquet", spied)
    store = Store(data)
    assert sorted(asked) == sorted([FROM_INDEX, FROM_PREPARED])
    index, prepared = read(data / "index.parquet"), read(data / "prepared.parquet")
    rows = {row["item"]: row for row in prepared.rows(named=True)}
    items = [item for item in index["item"] if item in rows]
    assert store.items["item"].to_list() == [name.decode() for name in store.names] == items
    assert asked[2:] == [None, None]
    assert {*index.columns, *prepared.columns} <= {*store.items.columns}
    for at, item in enumerate(items):
        row, found = rows[item], store.items.row(at, named=True)
        assert {name: found[name] for name in row} == row
        assert store.shapes[at].tolist() == row["shape"]
        assert store.headers[at].ravel().tolist() == row["affine"]
        assert (store.fill[at], store.has_mask[at]) == (row["fill"], row["has_mask"])
        assert (store.gain[at], store.bias[at]) == (np.float32(row["gain"]), np.float32(row["bias"]))
        assert store.modality_names[store.modalities[at]] == (found["modality"] or "")
    for name, codes in (("patient", store.patients), ("modality", store.modalities)):
        told = store.items[name].fill_null("").to_list()
        assert codes.tolist() == [sorted(set(told)).index(value) for value in told]


def test_tables_written_anew_under_an_open_store_are_told(make_store, ct_plan: Plan, ct_volumes) -> None:
    store = make_store(ct_plan, ct_volumes)
    store = Store(store.data)
    path = store.data / "prepared.parquet"
    pl.read_parquet(path)[1:].write_parquet(path)
    with pytest.raises(UserError, match="written anew"):
        _ = store.items
