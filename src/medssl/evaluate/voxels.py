"""A probe for segmentation: does the encoder know, voxel by voxel, what structure it looks at?"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medssl.data.sample import cut
from medssl.data.store import Store
from medssl.evaluate.features import frozen
from medssl.evaluate.probe import Split, probe
from medssl.networks.pyramid import Pyramid
from medssl.rng import stream

PER_LABEL = 24  # voxels a scan and label


def voxel_probe(
    encoder: Pyramid,
    store: Store,
    rows: Sequence[int],
    split: Split,
    *,
    patch: Sequence[int],
    batch: int = 16,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> dict[str, float]:
    """Balanced accuracy ``probe.voxel`` of a linear probe on the maps of all levels, over ``rows`` that have masks.

    One region of the size of ``patch`` a scan, about a voxel of a structure. Voxels of one patient are on one side.
    """
    features, labels, owners = [], [], []
    with frozen(encoder):
        for first in range(0, len(rows), batch):
            part = np.asarray(rows[first : first + batch])
            starts = [_about_a_structure(store, int(row), patch, seed) for row in part]
            regions = cut(store, part, starts, tuple(patch), masks=True)
            maps = encoder(regions.to(torch.device(device)).normalised())
            assert regions.mask is not None
            for i, row in enumerate(part.tolist()):
                mask = regions.mask[i].numpy()
                places = _drawn(mask, stream(seed, "voxels", row))
                features.append(_at([m[i] for m in maps], places, patch))
                labels.append(mask[tuple(places.T)])
                owners.append(np.full(len(places), first + i))
    known, owner = np.concatenate(labels).astype(float), np.concatenate(owners)
    sides = Split(*(np.flatnonzero(np.isin(owner, side)) for side in (split.fit, split.score)))
    found = probe(np.concatenate(features), known[:, None], sides, kinds=("linear",))
    return {"probe.voxel": found["probe.linear"]} if found else {}


def _about_a_structure(store: Store, row: int, patch: Sequence[int], seed: int) -> tuple[int, ...]:
    """Start of a region in whose middle lies a voxel of a structure; of the image where the mask is empty."""
    points = store.points(row)
    marked = points[points[:, 0] > 0]
    centre = store.shapes[row] // 2
    if len(marked):
        centre = marked[stream(seed, "voxel", row).integers(len(marked)), 1:]
    room = store.shapes[row] - np.asarray(patch)
    # Where the scan is smaller than the region it lies in its middle, as in training.
    start = np.where(room > 0, np.clip(centre - np.asarray(patch) // 2, 0, np.maximum(room, 0)), room // 2)
    return tuple(start.tolist())


def _drawn(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices (n, axes) of at most ``PER_LABEL`` voxels of every label there is, background included."""
    chosen = []
    for label in np.unique(mask):
        there = np.flatnonzero(mask == label)
        chosen.append(rng.choice(there, min(PER_LABEL, len(there)), replace=False))
    return np.stack(np.unravel_index(np.concatenate(chosen), mask.shape), axis=1)


def _at(maps: Sequence[Tensor], places: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Features (n, channels of all levels) of the cells in which voxels ``places`` of a region ``size`` lie."""
    columns = []
    for level in maps:
        shape = np.asarray(level.shape[1:])
        cells = torch.from_numpy(places * shape // np.asarray(size)).to(level.device)
        columns.append(level[(slice(None), *cells.T)].T.float().cpu().numpy())
    return np.concatenate(columns, axis=1)
