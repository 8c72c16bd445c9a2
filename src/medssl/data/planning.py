"""From the index to a plan: what most scans have in common, and how much disk it will take."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from medssl.data.plan import OTHER, Plan, replace
from medssl.data.scale import Intensity
from medssl.errors import UserError
from medssl.volume import family

ANISOTROPIC = 3.0  # an axis this much coarser than the others is planned with care
LARGEST_SIZE = 256
ZSCORE_RANGE = (-5.0, 5.0)
PACKED = 0.75  # stored bytes ÷ raw bytes before cropping, of int16 MR with little air; CT takes less

Report = Callable[[str], None]


def make_plan(
    frame: pl.DataFrame,
    *,
    dims: int | None = None,
    spacing_mm: tuple[float, ...] | None = None,
    size: int | None = None,
    window_hu: tuple[float, float] | None = None,
    mr: str | None = None,
) -> Plan:
    """Plan from the rows of the index; what is given wins over what the scans suggest."""
    if frame.is_empty():
        raise UserError("the index lists no usable scan", fix="see problems.csv, then run `medssl index` again")
    dims = dims or Counter(frame["dims"].to_list()).most_common(1)[0][0]
    rows = frame.filter(pl.col("dims") == dims).to_dicts()
    if not rows:
        kind = "images" if dims == 2 else "volumes"
        raise UserError(f"the index lists no {kind}", fix=f"prepare with --dims {5 - dims}")
    _refuse_size(size, dims)
    _refuse_rules(rows, window_hu, mr)
    range_ = ZSCORE_RANGE if mr == "zscore" else (0.0, 1.0)
    plan = Plan(
        dims=dims,
        channels=Counter(row["channels"] for row in rows).most_common(1)[0][0],
        spacing_mm=_spacing(rows, dims, spacing_mm),
        size=_size(rows, size) if dims == 2 and spacing_mm is None else None,
        crop=dims == 3,
        value_range=range_,
        dtype="uint8" if all(row["dtype"] == "uint8" for row in rows) else "int16",
        modality={OTHER: Intensity()},
        fingerprint=_facts(rows),
    )
    return with_modalities(plan, rows, window_hu, mr)


def changed(
    plan: Plan,
    frame: pl.DataFrame,
    *,
    spacing_mm: tuple[float, ...] | None = None,
    size: int | None = None,
    window_hu: tuple[float, float] | None = None,
    mr: str | None = None,
) -> Plan:
    """An existing plan with the options given now, and with a rule for every modality that came since."""
    rows = frame.filter(pl.col("dims") == plan.dims).to_dicts()
    rules = dict(plan.modality)
    if spacing_mm is not None:
        plan = replace(plan, spacing_mm=_spacing(rows, plan.dims, spacing_mm), size=None)
    _refuse_size(size, plan.dims)
    _refuse_rules(rows, window_hu, mr)
    if size is not None:
        plan = replace(plan, size=size, spacing_mm=None)
    if window_hu is not None:
        rules = {name: rule for name, rule in rules.items() if family(name) != "CT"}
    if mr is not None:
        rules = {name: rule for name, rule in rules.items() if family(name) != "MR"}
        plan = replace(plan, value_range=ZSCORE_RANGE if mr == "zscore" else (0.0, 1.0))
    return with_modalities(replace(plan, modality=rules), rows, window_hu, mr)


def with_modalities(
    plan: Plan, rows: list[dict[str, Any]], window_hu: tuple[float, float] | None = None, mr: str | None = None
) -> Plan:
    """The plan with a rule for every modality of the rows; rules that it has stay."""
    low, high = window_hu or (-1000.0, 1000.0)
    defaults = {
        "CT": Intensity(normalise="window", low=low, high=high),
        "MR": Intensity(normalise="zscore" if mr == "zscore" else "percentile", over="foreground"),
        "PT": Intensity(over="foreground"),
        "NM": Intensity(over="foreground"),
    }
    present = sorted({row["modality"] for row in rows if row["modality"]})
    known = defaults | plan.modality  # a rule for MR holds for an MR-T1 that comes later
    return replace(plan, modality={m: known.get(family(m), Intensity()) for m in present} | plan.modality)


def stored_voxels(plan: Plan, row: dict[str, Any]) -> float:
    """Values that a scan will have in the store, before cropping."""
    shape = _in_ras(row, np.asarray(row["shape"], float))
    if plan.spacing_mm is not None and row["spacing_mm"] is not None:
        shape = shape * _spacing_ras(row) / np.asarray(plan.spacing_mm)
    elif plan.size:
        shape = shape * plan.size / shape.min()
    return float(np.prod(np.maximum(1, shape)) * plan.channels)


def disk_bytes(plan: Plan, rows: list[dict[str, Any]]) -> int:
    """Disk the store of these rows will take, masks and compression counted; an estimate."""
    values = sum(stored_voxels(plan, row) for row in rows)
    masks = sum(stored_voxels(plan, row) / plan.channels for row in rows if row["mask_path"])
    return int(values * np.dtype(plan.dtype).itemsize * PACKED + masks * 0.05 + len(rows) * 8192)


def _spacing(rows: list[dict[str, Any]], dims: int, given: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if given is not None:
        if len(given) not in (1, dims):
            raise UserError(f"--spacing-mm has {len(given)} numbers", fix=f"give 1, or {dims}")
        if rows and all(row["spacing_mm"] is None for row in rows):
            raise UserError("--spacing-mm is for scans with a spacing, and none of these has one", fix="give --size")
        return tuple(float(s) for s in (given * dims if len(given) == 1 else given))
    if dims == 2:
        return None
    known = [row for row in rows if row["spacing_mm"] is not None]
    if not known:
        return (1.0, 1.0, 1.0)
    spacings = np.array([_spacing_ras(row) for row in known])
    sizes = np.median([_in_ras(row, np.asarray(row["shape"], float)) for row in known], axis=0)
    target = np.median(spacings, axis=0)
    # As nnU-Net plans it: where slices are thick, the median would throw away what the finer scans resolve.
    worst = int(np.argmax(target))
    others = [i for i in range(dims) if i != worst]
    if target[worst] > ANISOTROPIC * max(target[others]) and sizes[worst] * ANISOTROPIC < min(sizes[others]):
        target[worst] = max(np.percentile(spacings[:, worst], 10), max(target[others]))
    return tuple(round(float(s), 4) for s in target)


def _refuse_size(size: int | None, dims: int) -> None:
    if size is not None and dims == 3:
        raise UserError("--size is for images, and these are volumes", fix="give --spacing-mm")


def _refuse_rules(rows: list[dict[str, Any]], window_hu: tuple[float, float] | None, mr: str | None) -> None:
    present = {family(row["modality"] or "") for row in rows}
    for option, given, modality in (("--window-hu", window_hu, "CT"), ("--mr", mr, "MR")):
        if given is not None and modality not in present:
            raise UserError(f"{option} is for {modality}, and none of these scans is", fix=f"leave {option} out")


def _size(rows: list[dict[str, Any]], given: int | None) -> int:
    return given if given is not None else int(min(LARGEST_SIZE, np.median([min(row["shape"]) for row in rows])))


def _in_ras(row: dict[str, Any], values: np.ndarray) -> np.ndarray:
    """Values an axis of the file in the order of the axes R, A, S."""
    letters = row.get("orientation") or ""
    pairs = ("RL", "AP", "SI")
    order = [i for pair in pairs for i, letter in enumerate(letters) if letter in pair]
    return values[order] if len(values) == 3 and sorted(order) == [0, 1, 2] else values


def _spacing_ras(row: dict[str, Any]) -> np.ndarray:
    return _in_ras(row, np.asarray(row["spacing_mm"], float))


def _facts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    spacings = [_spacing_ras(row) for row in rows if row["spacing_mm"] is not None]
    shapes = np.array([_in_ras(row, np.asarray(row["shape"])) for row in rows])
    facts: dict[str, Any] = {
        "scans": len(rows),
        "masks": sum(bool(row["mask_path"]) for row in rows),
        "modalities": dict(Counter(row["modality"] or "unknown" for row in rows)),
        "channels": {str(c): n for c, n in Counter(row["channels"] for row in rows).items()},
        "median_shape": np.median(shapes, axis=0).astype(int).tolist(),
    }
    if spacings:
        low, middle, high = np.percentile(spacings, (10, 50, 90), axis=0).round(4).tolist()
        facts |= {"spacing_mm_p10": low, "spacing_mm_median": middle, "spacing_mm_p90": high}
    return facts
