"""Which scans belong together, and whether they can be compared: the sentences that a run begins with."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from medssl.data.catalog import LABEL, label_names
from medssl.data.place import overlap, place_of
from medssl.data.store import Store
from medssl.errors import UserError

PAIRING = ("patient", "study", "series")  # columns of the index that scans can be paired by, beside labels
CHECKED = 5000  # pairs whose places are compared, evenly taken
Pair = tuple[int, int]


def subjects(store: Store, by: str | None = None) -> np.ndarray:
    """(len(store),) int64: equal for scans that show one subject at one time: patient and study, or the column ``by``.

    ``by`` is a column of the index or a label. A scan without a value there is a subject of its own.
    """
    frame = store.items
    item = frame["item"].to_numpy().astype(str)
    if by is None:
        patient, study = (frame[name].fill_null("").to_numpy().astype(str) for name in ("patient", "study"))
        keys = np.char.add(np.char.add(patient, "/"), study)
    else:
        column = by if by in frame.columns else LABEL + by
        if column not in frame.columns:
            known = [*(c for c in frame.columns if c in PAIRING), *label_names(frame)]
            raise UserError(f"no column '{by}' in the index", "--pair-by", f"choose one of {', '.join(known)}")
        values = np.array([str(v) if v is not None else "" for v in frame[column].to_list()])
        keys = np.where(values == "", np.char.add("item/", item), values)
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def pairs_of(store: Store, rows: Sequence[int], subject: np.ndarray) -> list[Pair]:
    """All pairs of rows of one subject and two modalities."""
    chosen = np.asarray(rows, np.int64)
    order = chosen[np.argsort(subject[chosen], kind="stable")]
    borders = np.flatnonzero(np.diff(subject[order])) + 1
    groups = (group.tolist() for group in np.split(order, borders) if len(group) > 1)
    kind = store.modalities
    return [(a, b) for group in groups for a, b in combinations(group, 2) if kind[a] != kind[b]]


def about_pairs(store: Store, rows: Sequence[int], subject: np.ndarray) -> list[str]:
    """What a person should know of the pairs among ``rows``; a UserError where no pair lies in one place."""
    chosen = np.asarray(rows, np.int64)
    names = {int(code): store.modality_names[code] or "unknown" for code in np.unique(store.modalities[chosen])}
    pairs = pairs_of(store, rows, subject)
    paired = len({int(subject[a]) for a, _ in pairs})
    total = len(np.unique(subject[chosen]))
    told = [f"pairs: {paired} of {total} subjects have scans of two or more modalities ({', '.join(names.values())})"]
    for code, name in names.items():
        alone = len(np.unique(subject[chosen][store.modalities[chosen] == code])) == 1
        if alone and total > 1:
            what = f"warning: modality '{name}' appears in one subject only, so nothing tells its subjects apart"
            told.append(f"{what}: add scans of it, or leave it out of the index")
    if not pairs and len(names) > 1:
        fix = "--pair-by names the column that pairs scans"
        told.append(f"warning: no subject has scans of two modalities, so no two scans are known to match: {fix}")
    return told + _about_place(store, pairs)


def _about_place(store: Store, pairs: list[Pair]) -> list[str]:
    if not pairs or store.plan.spacing_mm is None:  # pictures without a spacing lie nowhere
        return []
    pairs = pairs[:: -(-len(pairs) // CHECKED)]
    dims, shapes = store.plan.dims, store.shapes
    place = {row: place_of(store.affines[row], dims) for pair in pairs for row in pair}
    apart = sum(overlap(place[a], shapes[a], place[b], shapes[b]) == 0 for a, b in pairs)
    fix = f"`medssl prepare {store.data} --register` aligns them, if their headers are wrong"
    if apart == len(pairs):
        raise UserError(f"none of the {apart} pairs of scans overlaps in world space", store.data, fix)
    if not apart:
        return []
    return [f"warning: {apart} of {len(pairs)} pairs of scans do not overlap in world space: {fix}"]
