"""Scans are named by what is in them: whoever indexes them finds the same names, and other scans have others."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from medssl.data.content import Contents


class Scans(SimpleNamespace):
    """A store in memory: two patients with two scans each; ``order`` of its rows and ``salt`` of its ids are free."""

    def __init__(self, order=(0, 1, 2, 3), salt="", hashes="abcd", owners="ppqq") -> None:
        chosen = list(order)
        self.items = pl.DataFrame({"hash": [hashes[i] * 32 for i in chosen]})
        self.patients = np.unique([salt + owners[i] for i in chosen], return_inverse=True)[1]
        self.modality_names, self.modalities = ("CT",), np.zeros(4, int)
        self.affines = np.tile(np.eye(4), (4, 1, 1))
        self.has_mask = np.array([i != 3 for i in chosen])
        self.masks = [np.full((2, 2), i) for i in chosen]

    def read_mask(self, row: int) -> np.ndarray:
        return self.masks[row]


def test_names_are_the_contents_own_whatever_ids_and_order():
    one, other = Contents(Scans()), Contents(Scans(order=(2, 0, 3, 1), salt="z"))
    assert [other.items[i] for i in (1, 3, 0, 2)] == one.items
    assert [other.patients[i] for i in (1, 3, 0, 2)] == one.patients
    assert one.patients[0] == one.patients[1] != one.patients[2] == one.patients[3]
    assert one.of([0, 2, 3], masks=True) == other.of([0, 1, 2], masks=True)


def test_equal_scans_stay_two_and_their_patients_too():
    contents = Contents(Scans(hashes="aaaa"))
    assert len({*contents.items}) == 4 and len({*contents.patients}) == 2


@pytest.fixture
def changes() -> Iterator[tuple[str, Scans]]:
    """The same scans with one thing changed."""

    def changed():
        yield "voxels", Scans(hashes="abce")
        yield "patients", Scans(owners="pqqq")
        moved, masked, named = Scans(), Scans(), Scans()
        moved.affines[2, 0, 3] = 1.0
        yield "place", moved
        masked.masks[1] = masked.masks[1] + 1
        yield "mask", masked
        named.modality_names = ("MR",)
        yield "modality", named

    return changed()


def test_what_a_result_may_depend_on_changes_the_stamp(changes):
    rows, before = [0, 1, 2], Contents(Scans()).of([0, 1, 2, 3], masks=True)
    assert Contents(Scans()).of(rows, masks=True) != before
    stamps = {what: Contents(scans).of([0, 1, 2, 3], masks=True) for what, scans in changes}
    assert before not in stamps.values() and len({*stamps.values()}) == len(stamps)
    contents, truth = Contents(Scans()), ["a", "b", "c", "d"]
    assert contents.of(rows, truth) != contents.of(rows, truth[::-1])
    assert contents.of(rows, truth) == contents.of(rows[::-1], truth)


def test_the_last_bits_of_an_affine_are_not_looked_at():
    scans = Scans()
    scans.affines = scans.affines * (1 + 1e-15) - 0.0
    scans.affines[0, 0, 3] = -0.0
    assert Contents(scans).of([0, 1]) == Contents(Scans()).of([0, 1])


def test_masks_are_read_once_and_only_where_they_are_asked_for():
    scans, asked = Scans(), []
    scans.read_mask = lambda row: asked.append(row) or np.zeros((2, 2))
    contents = Contents(scans)
    contents.of([0, 1])
    assert asked == []
    contents.of([0, 1, 3], masks=True)
    contents.of([0, 1, 3], masks=True)
    assert asked == [0, 1]
