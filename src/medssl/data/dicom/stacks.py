"""From slices to stacks: what belongs together, in the order of position along the normal, and what is left over."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from medssl.data.dicom.headers import PHASES, X_RAY, Slice
from medssl.data.item import Fault, Item
from medssl.errors import UserError

SAME_MM = 0.01  # positions closer than this are one position
SAME_DIRECTION = 0.01  # of direction cosines
UNEVEN = 0.1  # of a step
FEW = 4  # slices that hardly make a volume
WIDEST_GAP = 3.5  # steps that interpolation bridges; beyond, slices are missing


@dataclass
class Stack:
    """Slices of one item, in order, and what is odd about them."""

    slices: list[Slice]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """Where sorted slices lie: height along the normal (mm), offset in the plane (columns, rows; mm), their step."""

    heights_mm: np.ndarray  # (n,)
    offsets_mm: np.ndarray  # (n, 2)
    step_mm: float
    uneven: bool
    shifted: bool


def stack_up(slices: Iterable[Slice]) -> tuple[list[Item], list[Fault]]:
    """Items of all slices of a folder, a series that is split over folders as one; and what is in none."""
    series: dict[tuple, list[Slice]] = defaultdict(list)
    for one in sorted(slices, key=lambda s: (s.file, s.frame or 0)):
        place = one.series or f"{one.study} {one.file.rpartition('/')[0]}"
        series[(one.patient, place, one.modality, one.shape)].append(one)
    items, faults = [], []
    for members in series.values():
        kept, left = _without_copies(members)
        faults += left
        for part in _by_use(kept):
            stacks, left = _stacks(part)
            faults += left
            items += [_item(stack) for stack in stacks]
    return items, faults


def layout(slices: list[Slice]) -> Layout:
    """Geometry of sorted slices that have positions and one orientation; a UserError where slices are missing."""
    middle = slices[len(slices) // 2]  # stays where it is, so that a tilted stack moves least
    positions = np.array([s.position for s in slices])
    # Along one normal: with its own, off in the last digits, a slice far from the origin would seem to lie elsewhere.
    heights = positions @ middle.normal
    rest = positions - middle.position - np.outer(heights - heights[len(slices) // 2], middle.normal)
    offsets = np.stack([rest @ middle.across, rest @ middle.down], axis=1)
    steps = np.diff(heights)
    step = float(median(sorted(steps))) if len(steps) else 0.0
    if len(steps) and steps.max() > WIDEST_GAP * step:
        k = int(steps.argmax())
        what = f"slices missing: {steps.max():.1f} mm between {slices[k].file} and the next, elsewhere {step:.1f} mm"
        raise UserError(what, fix="add the missing files, or put the parts in series of their own")
    return Layout(
        heights,
        offsets,
        step,
        uneven=bool(len(steps) and np.abs(steps - step).max() > max(UNEVEN * step, SAME_MM)),
        shifted=bool(np.abs(offsets).max() > 0.1 * min(middle.spacing_mm)),
    )


def _without_copies(slices: list[Slice]) -> tuple[list[Slice], list[Fault]]:
    """Files of one SOP instance are copies of each other; unless they lie elsewhere, as after a careless anonymiser."""
    seen: dict[tuple, str] = {}
    kept, faults = [], []
    for one in slices:
        first = seen.setdefault((one.uid or one.file, one.frame, one.position, one.number), one.file)
        if first == one.file:
            kept.append(one)
        elif one.frame in (None, 0):
            faults.append(Fault(one.file, f"a copy of {first} (same SOP instance)", "nothing to do, or delete it"))
    return kept, faults


def _by_use(slices: list[Slice]) -> list[list[Slice]]:
    """Localisers and screenshots apart from the scan they came with."""
    parts: dict[tuple, list[Slice]] = defaultdict(list)
    for one in slices:
        parts[one.localiser, one.secondary].append(one)
    return list(parts.values())


def _stacks(slices: list[Slice]) -> tuple[list[Stack], list[Fault]]:
    first = slices[0]
    if first.localiser:
        fix = "nothing to do; localisers are left out"
        return [], [Fault(f, "a localiser (scout), not a scan", fix) for f in dict.fromkeys(s.file for s in slices)]
    placed: list[Slice] = []
    unplaced: list[Slice] = []
    for one in slices:
        has_place = one.position and one.orientation and one.spacing_mm
        flat = one.modality in X_RAY or one.secondary
        (placed if has_place and not flat else unplaced).append(one)
    stacks = [_without_place(file) for file in _by_file(unplaced)]
    groups = _by_orientation(placed)
    faults: list[Fault] = []
    for group in groups:
        volumes, left = _by_position(group)
        faults += left
        for stack in volumes:
            if len(groups) > 1:
                stack.warnings.append(f"its series mixes {len(groups)} orientations; each is a scan of its own")
            try:
                stack.warnings += _oddities(stack.slices)
                stacks.append(stack)
            except UserError as error:
                faults += [Fault.of(error, file) for file in dict.fromkeys(s.file for s in stack.slices)]
    return stacks, faults


def _without_place(slices: list[Slice]) -> Stack:
    """One file whose slices have no position: an image; frames are a volume only where the header gives a step."""
    first = slices[0]
    if len(slices) == 1:
        tomographic = first.modality in ("CT", "MR", "PT") and not first.secondary
        lacking = "position" if first.spacing_mm else "usable pixel spacing"
        notes = [f"no {lacking} in the header: taken as a 2-D image"] if tomographic else []
        return Stack(slices, notes + _screenshot(first))
    if first.modality in ("CT", "MR", "PT", "NM") and first.step_mm and first.spacing_mm:
        return Stack(slices, [f"no positions in the header: {len(slices)} frames taken as slices in file order"])
    middle = slices[len(slices) // 2]
    return Stack([middle], [f"a cine of {len(slices)} frames: the middle one is used", *_screenshot(first)])


def _screenshot(one: Slice) -> list[str]:
    return ["a secondary capture: look for burnt-in text"] if one.secondary else []


def _by_file(slices: list[Slice]) -> list[list[Slice]]:
    files: dict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        files[one.file].append(one)
    return list(files.values())


def _by_orientation(slices: list[Slice]) -> list[list[Slice]]:
    groups: list[list[Slice]] = []
    for one in slices:
        for group in groups:
            if np.abs(np.subtract(one.orientation, group[0].orientation)).max() < SAME_DIRECTION and np.allclose(
                one.spacing_mm, group[0].spacing_mm, rtol=1e-3
            ):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _by_position(slices: list[Slice]) -> tuple[list[Stack], list[Fault]]:
    """Sorted stacks with one slice a position; repeats become stacks of their own, or are left out."""
    piles = _piles(slices)
    if all(len(pile) == 1 for pile in piles):
        return [Stack([pile[0] for pile in piles])], []
    if len(piles) == 1:
        pile = sorted(piles[0], key=lambda s: (s.number, s.file))
        middle = pile[len(pile) // 2]
        what = f"one of {len(pile)} images at one position; {middle.file} is used"
        others = dict.fromkeys(s.file for s in pile if s.file != middle.file)
        stack = Stack([middle], [f"{len(pile)} images at one position: the middle one is used"])
        return [stack], [Fault(file, what, "give it a series of its own if it is a scan of its own") for file in others]
    for tag in PHASES:
        values = sorted({s.phase.get(tag, "") for s in slices})
        if len(values) != max(map(len, piles)):
            continue
        parts = [_piles([s for s in slices if s.phase.get(tag, "") == value]) for value in values]
        if all(len(pile) == 1 for part in parts for pile in part):
            note = f"its series holds {len(parts)} scans, told apart by {tag}"
            return [Stack([pile[0] for pile in part], [note]) for part in parts], []
    piles = [sorted(pile, key=lambda s: (s.number, s.file)) for pile in piles]
    if len({len(pile) for pile in piles}) == 1:
        n = len(piles[0])
        note = f"its series holds {n} scans at the same positions, told apart by instance number"
        return [Stack([pile[k] for pile in piles], [note]) for k in range(n)], []
    what, fix = "a second slice at the position of {}", "remove it, or give it a series of its own"
    faults = [Fault(s.file, what.format(pile[0].file), fix) for pile in piles for s in pile[1:]]
    used = {pile[0].file for pile in piles}
    stack = Stack([pile[0] for pile in piles], [f"{len(faults)} slices at duplicate positions left out"])
    return [stack], [fault for fault in faults if fault.file not in used]


def _piles(slices: list[Slice]) -> list[list[Slice]]:
    """Slices by height along the normal, those at one position in one pile."""
    normal = slices[0].normal
    piles: list[list[Slice]] = []
    last_mm = -np.inf
    placed = [(float(np.dot(one.position, normal)), one) for one in slices]
    for height_mm, one in sorted(placed, key=lambda p: (p[0], p[1].number, p[1].file)):
        if height_mm - last_mm < SAME_MM:
            piles[-1].append(one)
        else:
            piles.append([one])
        last_mm = height_mm
    return piles


def _oddities(slices: list[Slice]) -> list[str]:
    if len(slices) == 1:
        return []
    found = layout(slices)
    notes = [f"only {len(slices)} slices"] if len(slices) < FEW else []
    if found.uneven:
        steps = np.diff(found.heights_mm)
        notes.append(
            f"uneven slice steps ({steps.min():.2f} to {steps.max():.2f} mm): interpolated to {found.step_mm:.2f} mm"
        )
    if found.shifted:
        notes.append("gantry tilt or shifted slices: straightened by interpolation in the plane")
    if found.step_mm > 0 and len({s.number for s in slices}) == len(slices):
        numbers = [s.number for s in slices]
        if numbers not in (sorted(numbers), sorted(numbers, reverse=True)):
            notes.append("instance numbers do not follow position; sorted by position")
    return notes


def _item(stack: Stack) -> Item:
    first = stack.slices[0]
    framed = any(s.frame is not None for s in stack.slices)
    return Item(
        "dicom",
        [s.file for s in stack.slices],
        frames=[s.frame or 0 for s in stack.slices] if framed else None,
        patient=first.patient,
        study=first.study,
        series=first.series,
        modality=first.modality,
        warnings=list(dict.fromkeys(stack.warnings)),
    )
