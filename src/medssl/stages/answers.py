"""What a fine-tuned network says of whole scans: class probabilities, or the values of a mask."""

from collections.abc import Sequence

import numpy as np
import torch
from lightning.fabric import Fabric

from medssl.data.several import present_of
from medssl.data.store import Store
from medssl.data.whole import WholeItems
from medssl.tasks.classify import Classify
from medssl.tasks.segment import Segment

BATCH = 32


def probabilities(task: Classify, fabric: Fabric, items: WholeItems, keep: Sequence[int] | None = None) -> np.ndarray:
    """(n, k) of whole items; of several modalities from those in ``keep`` only."""
    task.eval()
    found = []
    for batch in items.once(BATCH):
        present = _present(items.store, batch.item.tolist(), keep, fabric)
        with fabric.autocast():
            found.append(task.predict(fabric.to_device(batch).normalised(), present).cpu())
    return torch.cat(found).double().numpy()


def mask_values(task: Segment, fabric: Fabric, store: Store, row: int, keep: Sequence[int] | None = None) -> np.ndarray:
    """(*spatial) of an item, on the stored grid; ``keep`` as above."""
    task.eval()
    image = torch.from_numpy(store.normalised(row)).to(fabric.device)
    fill = float(np.clip(store.fill[row] * store.gain[row] + store.bias[row], *task.config.value_range))
    present = _present(store, [row], keep, fabric)
    with fabric.autocast():
        return task.predict(image, fill, None if present is None else present[0]).cpu().numpy()


def _present(store: Store, rows: list[int], keep: Sequence[int] | None, fabric: Fabric) -> torch.Tensor | None:
    present = present_of(store, rows, keep)
    return None if present is None else present.to(fabric.device)
