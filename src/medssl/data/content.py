"""Scans by what is in them: names that are the same for everybody who has the scans, and say nothing of a person.

Ids are salted, so they differ by who indexed the scans; what one person records, another finds by these names.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from medssl.data.several import FusedStore
from medssl.data.stats import content_hash
from medssl.data.store import Store


def stamp(words: Iterable[str]) -> str:
    """16 letters for a set of words, whatever their order."""
    return hashlib.blake2b("\n".join(sorted(words)).encode(), digest_size=8).hexdigest()


class Contents:
    """``items`` and ``patients``: a name for each row of a store, of its voxels and of all scans of its patient."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.items = _distinct(_fused(store) if isinstance(store, FusedStore) else store.items["hash"].to_list())
        self.patients = self.groups(store.patients)
        self._masks: dict[int, str] = {}

    def groups(self, codes: Sequence[int] | np.ndarray) -> list[str]:
        """A name for each row, equal where ``codes`` are: of the items that have this code."""
        members: dict[int, list[str]] = defaultdict(list)
        for code, name in zip(codes, self.items, strict=True):
            members[int(code)].append(name)
        names = {code: stamp(own) for code, own in members.items()}
        return [names[int(code)] for code in codes]

    def of(self, rows: Iterable[int], *columns: Sequence[object], masks: bool = False) -> str:
        """A stamp of these rows: voxels, place, modality, patient, and each of ``columns``, which are over all rows.

        With ``masks`` also their masks: only then are these read, once each.
        """
        kinds = [self.store.modality_names[code] for code in self.store.modalities]
        told = (self.items, self.patients, _places(self.store), kinds, *columns)
        return stamp(
            "|".join([*(str(column[row]) for column in told), self._mask(row) if masks else ""]) for row in rows
        )

    def _mask(self, row: int) -> str:
        if row not in self._masks:
            has = self.store.has_mask[row]
            self._masks[row] = content_hash(self.store.read_mask(row)) if has else ""
        return self._masks[row]


def _distinct(names: Sequence[str]) -> list[str]:
    """Short names; scans of equal voxels are counted, since each is tested by itself."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name[:16] if seen[name] == 1 else f"{name[:16]}-{seen[name]}")
    return found


def _fused(store: FusedStore) -> list[str]:
    """Of subjects with several modalities: all their scans."""
    hashes = store.base.items["hash"].to_list()
    return [
        stamp(f"{name} {hashes[row]}" for name, row in zip(store.names_of, own, strict=True) if row >= 0)
        for own in store.members.tolist()
    ]


def _places(store: Store) -> list[str]:
    """The affine of each row, of all its scans where it has several."""
    found = store.affines
    if isinstance(store, FusedStore):
        there = (store.members >= 0)[:, :, None, None]
        found = np.where(there, store.base.affines[store.members], 0.0)
    # To seven digits: affines are computed, and the last bits are the machine's. +0 turns -0 into 0.
    return [affine.tobytes().hex() for affine in found.astype("<f4") + np.float32(0)]
