"""Patient-wise splits: one patient, and one image whatever its file, never lie on two sides."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medssl.errors import UserError
from medssl.rng import stream

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Member:
    """What a split needs to know of an item.

    ``given`` by the user's table; ``kept`` from an earlier run or as the file itself has it; else drawn.
    """

    name: str
    patient: str
    hash: str
    kept: str | None = None
    given: str | None = None
    stratum: str = ""


class Groups:
    """Patients joined by the images they share (union-find over patients and hashes)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """The group of a patient or a hash."""
        self._parent.setdefault(name, name)
        root = name
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[name] != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, one: str, other: str) -> None:
        """Make two groups one."""
        self._parent[self.find(other)] = self.find(one)


def assign(members: Sequence[Member], fractions: Sequence[float], seed: int) -> dict[str, str | None]:
    """Split of every member, by name; None for one that would tie two sides together, which must not be used.

    A user's split that leaks is an error. Splits of an earlier run are kept; all others are drawn, stratified,
    group by group. Without a split of their own, items go with their patient; where the user gives splits, what
    is in none of them is training data, never test data.
    """
    _check_given(members)
    groups, sides, refused = _grouped(members)
    given = any(m.given for m in members)
    strata: dict[str, list[str]] = defaultdict(list)
    for m in members:
        if m.name not in refused:
            strata[groups.find("p" + m.patient)].append(m.stratum)
    open_groups = {g: _most_common(s) for g, s in strata.items() if g not in sides}
    fixed = [(_most_common(s), sides[g]) for g, s in strata.items() if g in sides]
    drawn = dict.fromkeys(open_groups, "train") if given else _draw(open_groups, fixed, fractions, seed)
    sides = sides | drawn
    return {m.name: None if m.name in refused else sides[groups.find("p" + m.patient)] for m in members}


def _check_given(members: Sequence[Member]) -> None:
    """A user's split must keep patients and images whole; the error counts both and names examples."""
    errors = []
    for what, key in (("patients", lambda m: m.patient), ("images (same voxels)", lambda m: m.hash)):
        sides: dict[str, dict[str, str]] = defaultdict(dict)
        for m in members:
            if m.given:
                sides[key(m)].setdefault(m.given, m.name)
        torn = [seen for seen in sides.values() if len(seen) > 1]
        if torn:
            example = " and ".join(f"{name} ({side})" for side, name in torn[0].items())
            errors.append(f"{len(torn)} {what} on two sides, such as {example}")
    if errors:
        fix = "put each patient and each image on one side, or leave the column split out and let medssl draw it"
        raise UserError(f"the given split leaks: {'; '.join(errors)}", fix=fix)


def _grouped(members: Sequence[Member]) -> tuple[Groups, dict[str, str], set[str]]:
    """Groups, the sides of those that have one, and members refused because they belong to two sides."""
    groups = Groups()
    sides: dict[str, str] = {}
    refused: set[str] = set()
    # What is settled comes first, so that a newcomer is refused, never what was there.
    # Among equals test comes first: a copy is taken from training rather than from the test.
    for m in sorted(
        members, key=lambda m: (m.given is None, m.kept is None, SPLITS[::-1].index(m.kept) if m.kept else 0)
    ):
        patient, image = groups.find("p" + m.patient), groups.find("h" + m.hash)
        there = {sides[g] for g in (patient, image) if g in sides} | ({m.given or m.kept} - {None})
        if len(there) > 1:
            refused.add(m.name)
            continue
        groups.join(patient, image)
        if there:
            sides[groups.find(patient)] = str(there.pop())
    return groups, sides, refused


def _draw(
    groups: dict[str, str], fixed: Iterable[tuple[str, str]], fractions: Sequence[float], seed: int
) -> dict[str, str]:
    """A side for each group: in random order within its stratum, always the side that is furthest behind."""
    have: dict[str, Counter] = defaultdict(Counter)
    total: Counter = Counter()
    for stratum, side in fixed:
        have[stratum][side] += 1
        total[side] += 1
    shares = dict(zip(SPLITS, fractions, strict=True))
    order: dict[str, list[str]] = defaultdict(list)
    for group, stratum in groups.items():
        order[stratum].append(group)
    drawn: dict[str, str] = {}
    for stratum in sorted(order, key=lambda s: (len(order[s]), s)):
        names = order[stratum]
        for k in stream(seed, "split", stratum).permutation(len(names)):
            side = max(shares, key=lambda s: (_behind(have[stratum], s, shares), _behind(total, s, shares)))
            drawn[names[k]] = side
            have[stratum][side] += 1
            total[side] += 1
    _fill_empty(drawn, total, shares)
    return drawn


def _behind(count: Counter, side: str, shares: dict[str, float]) -> float:
    """How many groups a side lacks once one more is placed."""
    return round(shares[side] * (count.total() + 1) - count[side], 9)


def _fill_empty(drawn: dict[str, str], total: Counter, shares: dict[str, float]) -> None:
    """With three patients and more, each side that should have some has one."""
    for side in ("test", "val"):
        spare = [group for group, s in drawn.items() if s == "train"]
        if shares[side] > 0 and not total[side] and total["train"] > 1 and spare:
            drawn[spare[-1]] = side
            total.update({side: 1, "train": -1})


def _most_common(values: Sequence[str]) -> str:
    return max(sorted(set(values)), key=values.count)
