"""The scans of a subject as one item: the modalities are its channels, on the grid of the scan that carries the truth.

To whatever draws regions or whole items it is a store like any other; ``present`` says which modalities an item has.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from medssl.contract import Batch
from medssl.data.catalog import LABEL, label_names
from medssl.data.pairing import subjects
from medssl.data.place import place_of
from medssl.data.store import Box, Store
from medssl.errors import UserError, raise_all
from medssl.volume import Volume

if TYPE_CHECKING:
    import polars as pl

STEPS = 65534  # of the integers that normalised values are kept in: int16 without its odd one


class FusedStore(Store):
    """Items are subjects (patient and study) with a scan of any of ``modalities``.

    ``members`` (n, M) int64: their rows in ``base``, -1 where there is none; of several scans of one modality
    the first, one with a mask before others. ``reference`` (n,): the scan whose grid the item lies on and whose mask it
    has: the first with a mask, or the first. ``items``: the references' rows, labels from the first scan with any.
    """

    def __init__(self, base: Store, modalities: Sequence[str]) -> None:
        self.base, self.data, self.names_of = base, base.data, tuple(modalities)
        channels = base.plan.channels * len(self.names_of)
        self.plan = replace(base.plan, channels=channels, dtype="int16")
        self.members = _members(base, [base.modality_names.index(name) for name in self.names_of])
        there = self.members >= 0
        masked = there & base.has_mask[self.members]
        first = np.where(masked.any(1), masked.argmax(1), there.argmax(1))
        self.present = there
        self.reference = rows = self.members[np.arange(len(there)), first]
        low, high = base.plan.value_range
        self.names, self.shapes, self.patients = base.names[rows], base.shapes[rows], base.patients[rows]
        self.headers, self.affines, self.has_mask = base.headers[rows], base.affines[rows], base.has_mask[rows]
        self.modality_names, self.modalities = base.modality_names, base.modalities[rows]
        self.gain = np.full(len(rows), (high - low) / STEPS, np.float32)
        self.bias = np.full(len(rows), (high + low) / 2, np.float32)
        self.fill = np.array([self._stored(_background(base, row)) for row in rows], np.int32)

    @cached_property
    def items(self) -> "pl.DataFrame":
        """One row a subject."""
        import polars as pl

        frame, every = self.base.items[self.reference.tolist()], self.base.items
        for column in (LABEL + name for name in label_names(every)):
            cells = every[column].to_list()
            told = [[cells[row] for row in own if row >= 0 and cells[row] not in (None, "")] for own in self.members]
            values = pl.Series(column, [cell[0] if cell else None for cell in told], dtype=every[column].dtype)
            frame = frame.with_columns(values)
        return frame

    @cached_property
    def hash(self) -> str:
        """Of the scans behind it."""
        return self.base.hash

    def read(self, item: int | str, box: Box | None = None) -> np.ndarray:
        """Stored values (M·C, *spatial), modality by modality; an absent one is all background."""
        row = self.row(item)
        whole = tuple(slice(0, int(n)) for n in self.shapes[row])
        cut = (
            whole
            if box is None
            else tuple(slice(*b.indices(int(n))) for b, n in zip(box, self.shapes[row], strict=True))
        )
        size = tuple(b.stop - b.start for b in cut)
        empty = np.full((self.base.plan.channels, *size), self.fill[row], np.int16)
        found = [empty if m < 0 else self._stored(self._aligned(row, int(m), cut)) for m in self.members[row]]
        return np.concatenate(found)

    def read_mask(self, item: int | str, box: Box | None = None) -> np.ndarray:
        """Labels (*spatial) of the reference."""
        return self.base.read_mask(int(self.reference[self.row(item)]), box)

    def points(self, item: int | str) -> np.ndarray:
        """Those of the reference."""
        return self.base.points(int(self.reference[self.row(item)]))

    def place_back(self, item: int | str, labels: np.ndarray) -> Volume:
        """On the voxels of the reference's file."""
        return self.base.place_back(int(self.reference[self.row(item)]), labels)

    def _stored(self, values: np.ndarray | float) -> np.ndarray:
        low, high = self.base.plan.value_range
        return np.rint((np.asarray(values, np.float64) - (high + low) / 2) / ((high - low) / STEPS)).astype(np.int16)

    def _aligned(self, row: int, member: int, box: Box) -> np.ndarray:
        """Normalised (C, *size) of the scan ``member`` at the voxels ``box`` of the item's grid."""
        base, dims = self.base, self.plan.dims
        start = [b.start for b in box]
        to = np.linalg.solve(place_of(base.affines[member], dims), place_of(self.affines[row], dims, start))
        there = np.eye(dims + 1)
        there[:-1, -1] = start
        shape = base.shapes[member]
        if np.array_equal(shape, self.shapes[row]) and np.allclose(to, there, atol=1e-3):
            return base.normalised(member, box)
        voxels = np.indices([b.stop - b.start for b in box]).reshape(dims, -1)
        at = to[:-1, :-1] @ voxels + to[:-1, -1:]  # (dims, v)
        limit = shape[:, None]
        inside = ((at >= -0.5) & (at <= limit - 0.5)).all(0)
        found = np.full((base.plan.channels, at.shape[1]), _background(base, member), np.float32)
        if inside.any():
            low = np.clip(np.floor(at[:, inside].min(1)), 0, shape - 1).astype(int)
            high = np.clip(np.ceil(at[:, inside].max(1)), 0, shape - 1).astype(int) + 1
            values = base.normalised(member, tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)))
            for channel, grey in enumerate(values):
                found[channel, inside] = map_coordinates(grey, at[:, inside] - low[:, None], order=1, mode="nearest")
        return found.reshape(-1, *(b.stop - b.start for b in box))


def shown_by(store: FusedStore, modality: str) -> FusedStore:
    """The items of a store of one modality, shown by their scans of another: on the same grid, with the same truth.

    ``present`` tells which items have such a scan.
    """
    base = store.base
    both = _members(base, [base.modality_names.index(name) for name in (*store.names_of, modality)])
    partner = {int(own): int(other) for own, other in both if own >= 0}
    shown = copy(store)
    shown.members = np.array([[partner[int(own)]] for own in store.members[:, 0]])
    shown.present = shown.members >= 0
    seen = np.where(shown.present, shown.members, store.members)[:, 0]
    shown.fill = np.array([store._stored(_background(base, row)) for row in seen], np.int32)
    return shown


def with_present(made: Iterable[Batch], store: Store) -> Iterator[Batch]:
    """The batches, told which modalities their samples have, where the store is one of several."""
    for batch in made:
        present = present_of(store, batch.item.tolist())
        yield batch if present is None else replace(batch, present=present)


def present_of(store: Store, rows: Sequence[int], keep: Sequence[int] | None = None) -> torch.Tensor | None:
    """(n, M) bool of items, of the modalities ``keep`` only; None where the store is not one of several."""
    if not isinstance(store, FusedStore):
        return None
    present = store.present[list(rows)]
    kept = np.isin(np.arange(present.shape[1]), np.arange(present.shape[1]) if keep is None else list(keep))
    return torch.from_numpy(present & kept)


def check_modalities(base: Store, wanted: Sequence[str], others: Sequence[str] = ()) -> None:
    """Refuse names, ``wanted`` to learn from and ``others`` to be tested on, that no scan has or that come twice."""
    known = ", ".join(name for name in base.modality_names if name) or "none, since no scan names its modality"
    errors = []
    for option, names in (("--modalities", wanted), ("--test-modalities", others)):
        unknown = [name for name in names if name not in base.modality_names]
        errors += [UserError(f"no scan of modality '{name}'", option, f"there are {known}") for name in unknown]
        if len(set(names)) < len(names):
            errors.append(UserError("a modality is named twice", option, "name each once"))
    if others and len(wanted) != 1:
        what = f"to learn from {len(wanted) or 'no'} named modalities and test on others has no one meaning"
        errors.append(UserError(what, "--test-modalities", "name by --modalities the one to learn from"))
    errors += [
        UserError(f"the network learns from '{name}'", "--test-modalities", "leave it out: it is always tested on that")
        for name in others
        if name in wanted
    ]
    raise_all(errors)


def _members(base: Store, codes: Sequence[int]) -> np.ndarray:
    subject = subjects(base)
    # By subject, masks first, then as in the index: the first of each run is the one taken.
    order = np.lexsort((np.arange(len(base)), ~base.has_mask, subject))
    found = np.full((int(subject.max()) + 1, len(codes)), -1, np.int64)
    for column, code in enumerate(codes):
        rows = order[base.modalities[order] == code]
        own, first = np.unique(subject[rows], return_index=True)
        found[own, column] = rows[first]
    first_row = np.full(len(found), len(base))
    np.minimum.at(first_row, subject, np.arange(len(base)))
    kept = np.flatnonzero((found >= 0).any(1))
    return found[kept[np.argsort(first_row[kept])]]


def _background(base: Store, row: int) -> float:
    return float(np.clip(base.fill[row] * base.gain[row] + base.bias[row], *base.plan.value_range))
