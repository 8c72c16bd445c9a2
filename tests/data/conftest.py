"""Small prepared folders made without files of scans, so that store and sampler are tested by themselves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medssl.data.catalog import write_index
from medssl.data.plan import Intensity, Plan
from medssl.data.prepared import save, write_prepared
from medssl.data.store import Store
from medssl.rng import stream
from medssl.volume import Volume

MakeStore = Callable[..., Store]


@pytest.fixture
def ct_plan() -> Plan:
    """Volumes at 1 mm, values in a window of Hounsfield units."""
    rules = {"CT": Intensity(normalise="window", low=-1000, high=1000), "other": Intensity()}
    return Plan(dims=3, channels=1, spacing_mm=(1, 1, 1), crop=False, modality=rules)


@pytest.fixture
def picture_plan() -> Plan:
    """8-bit images, short side 24."""
    return Plan(dims=2, channels=1, size=24, crop=False, dtype="uint8")


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """``make_store(plan, volumes, masks)`` writes a prepared folder; scan i belongs to patient i // 2."""

    def make(plan: Plan, volumes: list[Volume], masks: list[Volume | None] | None = None, name: str = "data") -> Store:
        data = tmp_path / name
        rows, records = [], []
        for i, volume in enumerate(volumes):
            item, mask = f"item{i:03d}", masks[i] if masks else None
            records.append(save(data / "store", item, plan.prepare(volume, mask), f"stamp{i}"))
            rows.append(
                {
                    "item": item,
                    "patient": f"p{i // 2}",
                    "path": f"{item}.nii",
                    "modality": volume.modality or None,
                    "hash": f"h{i}",
                    "shape": volume.array.shape[1:],
                }
            )
        plan.write(data / "plan.toml")
        write_prepared(data, records, plan)
        write_index(data, rows, [], {"scans": str(tmp_path)})
        return Store(data)

    return make


@pytest.fixture
def ct_volumes() -> list[Volume]:
    """Volumes of several shapes on a 1 mm grid, every voxel of every scan another value."""
    shapes = [(20, 24, 18), (30, 16, 22), (17, 17, 40), (9, 33, 20), (26, 26, 26)]
    rng = stream(0, "volumes")
    return [Volume(rng.integers(-900, 900, (1, *s)).astype(np.int16), np.eye(4), "CT") for s in shapes]


@pytest.fixture
def ct_masks(ct_volumes: list[Volume]) -> list[Volume]:
    """A large structure 1 and a small structure 2 in every volume."""
    masks = []
    for volume in ct_volumes:
        mask = np.zeros(volume.array.shape, np.int16)
        mask[0, 2:8, 2:12, 3:15] = 1
        mask[0, -2:, -3:, -2:] = 2
        masks.append(Volume(mask, volume.affine))
    return masks
