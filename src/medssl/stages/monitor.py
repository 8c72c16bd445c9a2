"""Looks at the encoder while it trains: does it collapse, and does it know more than before?"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch

from medssl.data.catalog import label_names
from medssl.data.store import Store
from medssl.data.target import read_target
from medssl.errors import UserError
from medssl.evaluate.collapse import collapse_metrics
from medssl.evaluate.features import embed
from medssl.evaluate.probe import Split, probe, split_patients
from medssl.evaluate.voxels import voxel_probe
from medssl.networks.pyramid import Pyramid
from medssl.rng import stream

SCANS = 512  # of the training split, at most
MASKED = 64  # of these, those with masks that the voxel probe looks at, at most
WINDOWS = 4  # of a scan that is larger than two patches


class Monitor:
    """Probes on the training split alone: the patients of a study's test set stay unseen.

    What it finds in the untrained encoder is what the rest is judged by.
    """

    def __init__(
        self, store: Store, rows: Sequence[int], target: str | None, seed: int, patch: Sequence[int], batch: int
    ) -> None:
        train = [row for row in rows if store.items["split"][row] == "train"]
        chosen = stream(seed, "monitor").permutation(len(train))[:SCANS]
        self.store, self.seed, self.patch, self.batch = store, seed, patch, batch
        self.rows = [train[i] for i in sorted(chosen)]
        self.masked = [row for row in self.rows if store.has_mask[row]][:MASKED]
        frame = store.items[self.rows]
        self.split = split_patients(frame["patient"].to_list(), seed)
        self.label, self.truth = usable_truth(frame, target, self.split)

    def __call__(self, encoder: Pyramid, device: torch.device) -> dict[str, float]:
        """Metrics of the encoder as it is."""
        if len(self.rows) < 2:
            return {}
        features = self.features(encoder, device)
        found = collapse_metrics(features)
        if self.truth is not None:
            found |= probe(features, self.truth, self.split)
        if self.masked:
            split = split_patients(self.store.patients[self.masked].tolist(), self.seed)
            found |= voxel_probe(
                encoder,
                self.store,
                self.masked,
                split,
                patch=self.patch,
                batch=self.batch,
                device=device,
                seed=self.seed,
            )
        return found

    @property
    def probes(self) -> bool:
        """True where there is a label or a mask to probe for, beyond looking for collapse."""
        return len(self.rows) > 1 and (self.truth is not None or bool(self.masked))

    def features(self, encoder: Pyramid, device: torch.device) -> np.ndarray:
        """(n, d) features of the watched scans."""
        return embed(encoder, self.store, self.rows, patch=self.patch, batch=self.batch, device=device, most=WINDOWS)


def usable_truth(frame: pl.DataFrame, target: str | None, split: Split) -> tuple[str, np.ndarray | None]:
    """Name and class numbers (n, k) of the label to probe: ``target``, or the first both sides of ``split`` know."""
    columns = label_names(frame)
    for name in [target] if target else columns:
        try:
            found = read_target(frame, name)
        except UserError as error:
            if target:
                error.where = "--probe-target"
                raise
            continue
        truth = found.matrix
        if found.kind == "one":
            known = ~np.isnan(truth).all(axis=1)
            truth = np.where(known, np.nan_to_num(truth).argmax(axis=1), np.nan)[:, None]
        if any(_both_sides(column, split) for column in truth.T):
            return name, truth
    return target or (columns[0] if columns else ""), None


def _both_sides(column: np.ndarray, split: Split) -> bool:
    return all(len(np.unique(column[part][~np.isnan(column[part])])) > 1 for part in (split.fit, split.score))
