"""What a method that compares modalities needs of the data: who belongs to whom, and the reports as it reads them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medssl.contract import Method
from medssl.data.pairing import about_pairs, subjects
from medssl.data.store import Store
from medssl.errors import UserError


@dataclass(frozen=True)
class Paired:
    """``subjects`` (len(store),) int64; ``text`` (len(rows), L) of the training rows, or None."""

    subjects: np.ndarray
    text: np.ndarray | None


def paired_data(method: Method, store: Store, rows: Sequence[int], by: str | None, tell: bool = True) -> Paired | None:
    """The pairs and reports of the training ``rows``; None for methods that look at each scan by itself."""
    if not method.paired:
        if by is not None:
            raise UserError("--pair-by is for methods that compare scans of a subject", fix="leave it out")
        return None
    subject = subjects(store, by)
    for sentence in about_pairs(store, rows, subject):
        if tell:
            print(sentence, file=sys.stderr)
    text = method.tokens([store.items["text"][row] for row in rows])
    return Paired(subject, None if text is None else text.numpy())
