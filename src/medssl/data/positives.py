"""Positives that come from truth instead of pairs: what there is of it, and whether two modalities share any."""

from collections.abc import Sequence

import numpy as np

from medssl.data.store import Store
from medssl.data.target import read_target
from medssl.errors import UserError

SUBJECT = "--positives subject needs none"


def class_labels(store: Store, rows: Sequence[int], column: str, alone: bool) -> tuple[np.ndarray, str]:
    """(len(rows), k) labels of the scans, NaN where nobody told, and a sentence about them.

    ``column``: of the index; empty takes the only usable one. ``alone``: nothing but another modality's scans can share
    a label with a scan, so two modalities must.
    """
    _refuse_test(store, rows, "label")
    target = read_target(store.items, column or None)
    matrix = target.matrix[np.asarray(rows)]
    known = ~np.isnan(matrix).any(1)
    kinds, number = np.unique(-matrix[known], axis=0, return_inverse=True)  # the first class first
    names = ["+".join(c for c, yes in zip(target.classes, row, strict=True) if yes) or "none" for row in kinds]
    shared = _shared(number.ravel(), names, store.modalities[np.asarray(rows)][known])
    if alone and not shared:
        fix = f"choose another --label; {SUBJECT}"
        raise UserError(f"no class of '{target.name}' occurs in two modalities", "--positives label", fix)
    told = f"positives: {known.sum()} of {len(rows)} scans have a label of '{target.name}'"
    return matrix.astype(np.float32), told + (f"; in two modalities or more: {', '.join(shared)}" if shared else "")


def about_structures(store: Store, rows: Sequence[int]) -> str:
    """A sentence about the masks among ``rows``; a UserError where two modalities share no structure."""
    _refuse_test(store, rows, "structure")
    in_mask = store.items["mask_labels"].to_list()
    found = [(row, label) for row in rows for label in (in_mask[row] or []) if label > 0]
    labels = np.array([label for _, label in found], np.int64)
    kinds, number = np.unique(labels, return_inverse=True)
    modality = store.modalities[np.array([row for row, _ in found], np.int64)]
    shared = _shared(number, [str(k) for k in kinds], modality)
    masks = int(store.has_mask[np.asarray(rows)].sum())
    if not shared:
        what = "no scan has a mask" if not masks else "no structure occurs in the masks of two modalities"
        raise UserError(what, "--positives structure", f"index again with mask_path; {SUBJECT}")
    return f"positives: {masks} of {len(rows)} scans have a mask; in two modalities or more: {', '.join(shared)}"


def _shared(number: np.ndarray, names: Sequence[str], modality: np.ndarray) -> list[str]:
    """Names of the kinds that occur in two modalities or more."""
    return [name for k, name in enumerate(names) if len(np.unique(modality[number == k])) > 1]


def _refuse_test(store: Store, rows: Sequence[int], positives: str) -> None:
    if any(store.items["split"][int(row)] == "test" for row in rows):
        what = f"--positives {positives} learns from truth, and some of these scans are test patients'"
        raise UserError(what, "--transductive", "leave one of them out")
