"""How far brightness alone gives a scan's modality away: what an encoder must beat to have learnt more than that."""

from collections.abc import Sequence

import numpy as np
import torch

from medssl.data.sample import whole_batches
from medssl.data.store import Store
from medssl.evaluate.probe import Split, balanced_accuracy

BATCH = 16


def by_mean_intensity(store: Store, rows: Sequence[int], split: Split, region: Sequence[int]) -> float | None:
    """Balanced accuracy of guessing each scan's modality from the scan whose mean intensity is nearest.

    Means are of the central ``region`` of each of ``rows``, normalised as networks see it; ``split`` says which scans
    are asked and which are known. None where either side knows one modality only.
    """
    seen = list(whole_batches(store, rows, region=tuple(region), batch=BATCH))
    means = torch.cat([batch.normalised().flatten(1).mean(1) for batch in seen]).numpy()
    modality = store.modalities[np.asarray(rows, np.int64)]
    known, asked = modality[split.fit], modality[split.score]
    if len(np.unique(known)) < 2 or len(np.unique(asked)) < 2:
        return None
    nearest = np.abs(means[split.score][:, None] - means[split.fit]).argmin(axis=1)
    return balanced_accuracy(asked, known[nearest])
