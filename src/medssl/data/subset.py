"""Which patients a fine-tuning may learn from: nested subsets, the same for every arm of a study.

The labelled patients of train and validation are put in one order, drawn from the seed; the first N are the subset, so
subsets of one seed are nested. Within that order each patient also has a fixed role: a patient that validates among 10
still validates among 100. The test patients are the split's own, always.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import polars as pl

from medssl.errors import UserError
from medssl.rng import stream

FIRST_ROUNDS = 2  # patients of each class that come first, however rare the class
EVERY, THIRD = 5, 2  # of each class the 3rd, 8th, 13th … patient validates: about a fifth, and none of the first two


@dataclass(frozen=True)
class Subset:
    """Row numbers to train on, to choose the best step by, and to test on; patients behind the first two."""

    train: list[int]
    val: list[int]
    test: list[int]
    patients: int


def draw_subset(items: pl.DataFrame, strata: list[str | None], n_labels: int | None, seed: int) -> Subset:
    """The rows of the first ``n_labels`` patients in the order of ``seed``, and of the labelled test patients.

    ``items`` has columns patient, split and hash; ``strata`` gives an item's class for balancing, None where it has no
    label. Without ``n_labels`` all labelled patients take part and the split's own validation patients validate.
    """
    patients, splits = items["patient"].to_list(), items["split"].to_list()
    rows, kinds = _by_patient(patients, splits, items["hash"].to_list(), strata)
    test = [i for i, s in enumerate(strata) if s is not None and splits[i] == "test"]
    if not test:
        raise UserError("no labelled test patients", fix="index again with a test share, or label some of them")
    if not rows:
        raise UserError("no labelled patients outside the test split", fix="label some patients of the train split")
    if n_labels is None and any(splits[r[0]] == "val" for r in rows.values()):
        roles = {p: splits[r[0]] == "val" for p, r in rows.items()}
    else:
        roles = order_patients(kinds, seed)
        chosen = list(roles)[:n_labels]
        _check_enough(n_labels, len(roles))
        roles = {p: roles[p] for p in chosen}
    train = [i for p, validates in roles.items() if not validates for i in rows[p]]
    val = [i for p, validates in roles.items() if validates for i in rows[p]]
    if not train:
        raise UserError("no labelled patients in the train split", fix="give --n-labels, which draws from both splits")
    return Subset(sorted(train), sorted(val), test, len(roles))


def order_patients(kinds: dict[str, str], seed: int) -> dict[str, bool]:
    """All patients in the order in which subsets take them, with whether each validates.

    ``kinds`` gives each patient's class. A seeded shuffle within each class; two patients of each class first, then
    whichever class is furthest behind its share. So every prefix is as balanced as the whole, and small ones hold
    every class.
    """
    shuffled: dict[str, list[str]] = defaultdict(list)
    names = list(kinds)
    for index in stream(seed, "subset").permutation(len(names)):
        shuffled[kinds[names[index]]].append(names[index])
    classes = sorted(shuffled, key=lambda c: (-len(shuffled[c]), c))
    taken = dict.fromkeys(classes, 0)
    order: dict[str, bool] = {}
    while len(order) < len(names):
        left = [c for c in classes if taken[c] < len(shuffled[c])]
        behind = [c for c in left if taken[c] < FIRST_ROUNDS]
        # Ties go to the more frequent class; shares are compared as in Sainte-Laguë's method.
        pick = min(behind or left, key=lambda c: taken[c] if behind else (taken[c] + 0.5) / len(shuffled[c]))
        order[shuffled[pick][taken[pick]]] = taken[pick] % EVERY == THIRD
        taken[pick] += 1
    return order


def rarest_class(matrix: np.ndarray, classes: tuple[str, ...]) -> list[str | None]:
    """For each row of (n, k) truth the rarest class that is true of it: what to balance by. None where all are NaN."""
    counts = np.nansum(matrix, axis=0)
    strata: list[str | None] = []
    for row in matrix:
        true = np.flatnonzero(row == 1)
        if np.isnan(row).all():
            strata.append(None)
        else:
            strata.append(classes[min(true, key=lambda k: (counts[k], k))] if len(true) else "")
    return strata


def _by_patient(
    patients: list[str], splits: list[str], hashes: list[str], strata: list[str | None]
) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Labelled rows of each patient outside the test split, and the rarest stratum among them.

    Patients come in the order of their images' hashes: their ids are salted, so by these the same scans, indexed
    by somebody else, would give other subsets.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    frequency: dict[str, int] = defaultdict(int)
    for i, stratum in enumerate(strata):
        if stratum is not None and splits[i] != "test":
            rows[patients[i]].append(i)
            frequency[stratum] += 1
    rows = dict(sorted(rows.items(), key=lambda entry: sorted(hashes[i] for i in entry[1])))
    kinds = {p: min((strata[i] or "" for i in r), key=lambda s: (frequency[s], s)) for p, r in rows.items()}
    return rows, kinds


def _check_enough(wanted: int | None, there: int) -> None:
    if wanted is not None and wanted < 1:
        raise UserError(f"{wanted} labelled patients asked for", "--n-labels", "give 1 or more")
    if wanted is not None and wanted > there:
        fix = f"give at most {there}, or label more patients"
        raise UserError(f"{there} labelled patients outside the test split, {wanted} asked for", "--n-labels", fix)
