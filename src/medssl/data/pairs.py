"""Batches for methods that compare modalities: subjects are drawn, and each gives a region of every modality it has.

A batch is a flat list, balanced over modalities: of b samples and M modalities each has b/M, give or take one. Slots
go subject by subject; where a subject lacks a modality, a scan of another one takes its slot, so that unpaired data
fill the same batches. As for ``sample``, what lies at (seed, step, position) is a pure function of these three.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from medssl.contract import Batch
from medssl.data.place import common_starts, place_of
from medssl.data.sample import check, cut, serve
from medssl.data.store import Store
from medssl.errors import UserError
from medssl.rng import stream

TRIES = 12  # places tried for a region that all scans of a subject can show
REFILLS = 16  # scans tried for an empty slot before one may come twice in a batch


def paired_batches(
    store: Store,
    rows: Sequence[int],
    *,
    region: tuple[int, ...],
    batch: int,
    steps: int,
    seed: int,
    subjects: np.ndarray,
    start: int = 0,
    workers: int = 0,
    masks: bool = False,
    labels: np.ndarray | None = None,
    text: np.ndarray | None = None,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Yield the batches of steps ``start`` to ``steps``, with modality, subject and place of every sample.

    ``batch`` counts all ranks; this one gets its share. ``subjects`` (len(store),) int64: scans with one number belong
    together, see ``subjects``. ``labels`` (len(rows), k) float and ``text`` (len(rows), L) tokens or numbers have a row
    for each of ``rows``. The regions of a subject's scans cover one place in the world where the scans allow it.
    """
    check(store, rows, region, batch, False, labels, world)  # a scan without a mask is one of nothing but background
    if text is not None and len(text) != len(rows):
        raise UserError(f"{len(text)} rows of text for {len(rows)} scans", None, "give one row for each")
    sampler = PairSampler(
        store=store, rows=np.asarray(rows, np.int64), region=tuple(region), batch=batch, seed=seed,
        subjects=np.asarray(subjects, np.int64), masks=masks, labels=labels, text=text, rank=rank, world=world,
    )  # fmt: skip
    yield from serve(sampler, range(start, steps), workers)


@dataclass
class PairSampler(Dataset):
    """``sampler[step]`` is the batch of that step. A UserError is returned, since workers garble what they raise."""

    store: Store
    rows: np.ndarray
    region: tuple[int, ...]
    batch: int
    seed: int
    subjects: np.ndarray
    masks: bool
    labels: np.ndarray | None
    text: np.ndarray | None
    rank: int
    world: int
    _order: np.ndarray = field(init=False)
    _first: np.ndarray = field(init=False)
    _count: np.ndarray = field(init=False)
    _orders: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Positions in ``rows``, sorted so that the scans of a (subject, modality) stand together.
        _, subject = np.unique(self.subjects[self.rows], return_inverse=True)
        _, modality = np.unique(self.store.modalities[self.rows], return_inverse=True)
        self._order = np.lexsort((np.arange(len(self.rows)), modality, subject))
        shape = (int(subject.max()) + 1, int(modality.max()) + 1)
        self._count = np.zeros(shape, np.int64)
        np.add.at(self._count, (subject, modality), 1)
        self._first = (np.cumsum(self._count.ravel()) - self._count.ravel()).reshape(shape)

    def __getitem__(self, step: int) -> Batch | UserError:
        share = self.batch // self.world
        mine = np.arange(self.rank * share, (self.rank + 1) * share)
        drawn, group = self.plan(step)
        starts = self._starts(step, drawn, group, set(group[mine].tolist()))
        chosen = self.rows[drawn[mine]]
        labels = None if self.labels is None else self.labels[drawn[mine]]
        try:
            made = cut(self.store, chosen, [starts[p] for p in mine.tolist()], self.region, self.masks, labels)
        except UserError as error:
            return error
        dims = self.store.plan.dims
        places = [
            place_of(self.store.affines[row], dims, starts[p]) for row, p in zip(chosen, mine.tolist(), strict=True)
        ]
        return replace(
            made,
            subject=torch.from_numpy(self.subjects[chosen]),
            place=torch.from_numpy(np.stack(places)),
            text=None if self.text is None else torch.from_numpy(self.text[drawn[mine]]),
        )

    def plan(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """For all positions of the global batch: position in ``rows``, and group; a group's regions share a place."""
        kinds = self._count.shape[1]
        turn = stream(self.seed, "modalities", step).permutation(kinds)
        which, refill = stream(self.seed, "scan", step).random(self.batch), stream(self.seed, "refill", step)
        others = refill.random((self.batch, REFILLS))
        drawn, group = np.full(self.batch, -1), np.arange(self.batch) // kinds
        for p in range(self.batch):
            cell = self._subject(step * -(-self.batch // kinds) + p // kinds), turn[p % kinds]
            if count := int(self._count[cell]):
                drawn[p] = self._order[self._first[cell] + int(which[p] * count)]
        for p in np.flatnonzero(drawn < 0).tolist():
            drawn[p] = self._other(int(turn[p % kinds]), others[p], set(drawn.tolist()))
            group[p] = self.batch + p  # by itself
        return drawn, group

    def _subject(self, k: int) -> int:
        """The k-th subject of the run: every epoch visits all, in an order of its own."""
        epoch, place = divmod(k, len(self._count))
        if epoch not in self._orders:
            kept = {e: order for e, order in self._orders.items() if e >= epoch - 1}
            self._orders = kept | {epoch: stream(self.seed, "order", epoch).permutation(len(self._count))}
        return int(self._orders[epoch][place])

    def _other(self, modality: int, draws: np.ndarray, taken: set[int]) -> int:
        """A scan of this modality, of any subject; one that the batch does not hold yet, if a few tries find one."""
        total = np.cumsum(self._count[:, modality])
        found = -1
        for draw in draws:
            k = int(draw * total[-1])
            subject = int(np.searchsorted(total, k, side="right"))
            within = k - int(total[subject] - self._count[subject, modality])
            found = int(self._order[self._first[subject, modality] + within])
            if found not in taken:
                break
        return found

    def _starts(self, step: int, drawn: np.ndarray, group: np.ndarray, wanted: set[int]) -> dict[int, tuple[int, ...]]:
        """First voxel of the region at each position whose group is wanted."""
        dims = self.store.plan.dims
        starts: dict[int, tuple[int, ...]] = {}
        for g in wanted:
            members = np.flatnonzero(group == g)
            rows = self.rows[drawn[members]]
            rng = stream(self.seed, "place", step, g)
            draws, apart = rng.random((TRIES, dims)), rng.random((len(members), dims))
            places = [place_of(self.store.affines[row], dims) for row in rows]
            found = common_starts(places, self.store.shapes[rows], self.region, draws, apart)
            starts |= dict(zip(members.tolist(), map(tuple, found.tolist()), strict=True))
        return starts
