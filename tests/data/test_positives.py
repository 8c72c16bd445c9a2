"""Labels and masks as positives: what two modalities share is told, and what cannot serve is refused."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medssl.data.positives import about_structures, class_labels
from medssl.data.store import Store
from medssl.errors import UserError
from paired_scans import cohort, paired_store

CT_MR = ["a", "b", "a", "a", "b", "", "a", "b", "c", "b", "a", "a"]  # CT and MR in turn; no MR is c


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return paired_store(tmp_path / "data", cohort(), **{"label.kind": CT_MR, "label.site": ["x", "y"] * 6})


def with_masks(store: Store, labels: list[list[int] | None]) -> Store:
    """As if the scans had masks that hold these."""
    found = store.items.with_columns(pl.Series("mask_labels", labels, dtype=pl.List(pl.Int64)))
    store.__dict__["items"] = found
    store.has_mask = np.array([bool(row) for row in labels])
    return store


def test_labels_are_those_of_the_rows_and_shared_ones_are_named(store: Store) -> None:
    rows = [11, 5, 8, 0]
    labels, told = class_labels(store, range(12), "kind", alone=True)
    assert told == "positives: 11 of 12 scans have a label of 'kind'; in two modalities or more: a, b"
    some, _ = class_labels(store, rows, "kind", alone=True)
    assert some.dtype == np.float32 and np.array_equal(some, labels[rows], equal_nan=True)
    assert np.isnan(some[1]).all() and some[[0, 2, 3]].tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_labels_that_no_two_modalities_share_are_refused_unless_reports_do(store: Store) -> None:
    with pytest.raises(UserError, match=r"no class of 'site' occurs in two modalities \(--positives label\): choose"):
        class_labels(store, range(12), "site", alone=True)
    assert class_labels(store, range(12), "site", alone=False)[1].endswith("a label of 'site'")
    with pytest.raises(UserError, match=r"no label column 'kin'.*did you mean 'kind'"):
        class_labels(store, range(12), "kin", alone=True)
    with pytest.raises(UserError, match="several label columns"):
        class_labels(store, range(12), "", alone=True)


def test_structures_that_no_two_modalities_share_are_refused(store: Store) -> None:
    with pytest.raises(UserError, match=r"no scan has a mask \(--positives structure\): index again"):
        about_structures(store, range(12))
    apart = with_masks(store, [[0, 1], [0, 2]] * 6)
    with pytest.raises(UserError, match="no structure occurs in the masks of two modalities"):
        about_structures(apart, range(12))
    shared = with_masks(store, [[0, 1, 3], [0, 2, 3], None, None] * 3)
    assert about_structures(shared, range(12)) == ("positives: 6 of 12 scans have a mask; in two modalities or more: 3")


def test_the_truth_of_test_patients_is_never_learnt_from(store: Store) -> None:
    split = ["train"] * 11 + ["test"]
    store.__dict__["items"] = store.items.with_columns(pl.Series("split", split))
    class_labels(store, range(11), "kind", alone=True)
    for look in (lambda: class_labels(store, range(12), "kind", alone=True), lambda: about_structures(store, [11])):
        with pytest.raises(
            UserError, match=r"learns from truth, and some of these scans are test patients'.*leave one"
        ):
            look()
