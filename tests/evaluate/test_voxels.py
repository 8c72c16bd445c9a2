"""The voxel probe on scans whose structures an encoder knows, or cannot know."""

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from medssl.data import catalog
from medssl.data.plan import Plan
from medssl.data.prepared import save, write_prepared
from medssl.data.store import Store
from medssl.evaluate.probe import split_patients
from medssl.evaluate.voxels import voxel_probe
from medssl.files import FORMAT, write_toml
from medssl.rng import stream
from medssl.volume import Volume


class Blocks(nn.Module):
    """Fine and coarse maps of block means, or of nothing but noise."""

    dims, channels, strides = 2, (1, 1), ((2, 2), (8, 8))

    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.blind = blind

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [nn.functional.avg_pool2d(x, s) for s in (2, 8)]
        noise = stream(0, "noise")
        return [torch.from_numpy(noise.random(tuple(m.shape))).float() if self.blind else m for m in maps]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Sixteen pictures with a bright disc (1) and a dark one (2), of several sizes, the last without any."""
    data = tmp_path_factory.mktemp("voxels") / "data"
    plan = Plan(dims=2, channels=1, crop=False, dtype="uint8")
    rows, records = [], []
    for i in range(16):
        side = (48, 56, 20)[i % 3]
        y, x = np.mgrid[:side, :side]
        mask = np.zeros((side, side), np.int16)
        if i < 15:
            for label, shift in ((1, 0.3), (2, 0.7)):
                mask[np.hypot(x - shift * side, y - 0.5 * side) < 0.15 * side] = label
        image = 100 + 100.0 * (mask == 1) - 90.0 * (mask == 2) + stream(0, "picture", i).normal(0, 5, mask.shape)
        scan, truth = (Volume(a[None], np.eye(4)) for a in (image.clip(0, 255).astype(np.uint8), mask))
        records.append(save(data / "store", f"item{i}", plan.prepare(scan, truth), f"stamp{i}"))
        rows.append({"item": f"item{i}", "patient": f"p{i // 2}", "shape": mask.shape})
    plan.write(data / "plan.toml")
    write_prepared(data, records, plan)
    frame = pl.DataFrame(rows)
    rest = {name: pl.lit(None, kind) for name, kind in catalog._schema(()).items() if name not in frame.columns}
    frame.with_columns(**rest).write_parquet(data / "index.parquet")
    write_toml(data / "index.toml", {"format": FORMAT, "scans": str(data)})
    return Store(data)


def score(store: Store, blind: bool, batch: int = 5) -> float:
    split = split_patients(store.patients.tolist(), 0)
    return voxel_probe(Blocks(blind), store, range(len(store)), split, patch=(32, 32), batch=batch)["probe.voxel"]


def test_what_the_maps_show_is_found_and_what_they_hide_is_not(store):
    assert score(store, blind=False) > 0.85
    assert 0.2 < score(store, blind=True) < 0.5  # three labels: 1/3 by chance


def test_it_repeats_and_the_batch_size_changes_nothing(store):
    assert score(store, blind=False, batch=1) == score(store, blind=False, batch=16)


def test_nothing_to_tell_apart_gives_no_metric(store):
    split = split_patients([0], 0)
    assert voxel_probe(Blocks(False), store, [15], split, patch=(32, 32)) == {}
