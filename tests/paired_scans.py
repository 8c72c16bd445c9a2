"""A prepared folder of two modalities whose voxels are their own world coordinates along one axis."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.catalog import write_index
from medssl.data.plan import Intensity, Plan
from medssl.data.prepared import save, write_prepared
from medssl.data.store import Store
from medssl.volume import Volume

PLAN = Plan(dims=3, channels=1, spacing_mm=(1, 1, 1), crop=False,
            modality={"CT": Intensity(normalise="window", low=-1000, high=1000), "other": Intensity()})  # fmt: skip
Scan = tuple[str, str, str, Sequence[int], Sequence[float]]  # patient, study, modality, shape, origin in mm


def world_volume(shape: Sequence[int], origin: Sequence[float], modality: str) -> Volume:
    """Each voxel holds -900 + 12·(x mod 30) + 5·(y mod 30) + (z mod 5), a code of where it lies."""
    x, y, z = (np.arange(n).reshape([-1 if i == axis else 1 for i in range(3)]) + int(o)
               for axis, (n, o) in enumerate(zip(shape, origin, strict=True)))  # fmt: skip
    affine = np.eye(4)
    affine[:3, 3] = origin
    array = (-900 + 12 * (x % 30) + 5 * (y % 30) + z % 5).astype(np.int16)
    return Volume(np.broadcast_to(array, tuple(shape))[None].copy(), affine, "CT" if modality == "CT" else modality)


def paired_store(data: Path, scans: Sequence[Scan], plan: Plan = PLAN, **columns: Sequence[Any]) -> Store:
    """A store of ``scans``; ``columns`` are further columns of the index."""
    rows, records = [], []
    for i, (patient, study, modality, shape, origin) in enumerate(scans):
        item = f"item{i:03d}"
        volume = world_volume(shape, origin, "CT")  # so that all are normalised alike and can be compared
        records.append(save(data / "store", item, plan.prepare(volume), f"stamp{i}"))
        rows.append({
            "item": item, "patient": patient, "study": study or None, "modality": modality, "path": f"{item}.nii",
            "hash": f"h{i}", "shape": list(shape), "split": "train", **{k: v[i] for k, v in columns.items()},
        })  # fmt: skip
    plan.write(data / "plan.toml")
    write_prepared(data, records, plan)
    write_index(data, rows, [k.removeprefix("label.") for k in columns if k.startswith("label.")], {"scans": str(data)})
    return Store(data)


def cohort(subjects: int = 6) -> list[Scan]:
    """CT and MR of each subject, overlapping but of other extent; two patients have a second study."""
    scans: list[Scan] = []
    for s in range(subjects):
        patient, study = (f"p{s}", "1") if s < subjects - 2 else (f"p{s - subjects + 2}", "2")
        scans.append((patient, study, "CT", (40 + s, 36, 30), (0, 0, 0)))
        scans.append((patient, study, "MR", (30, 40 + s, 28), (6, -3 - s, 2)))
    return scans
