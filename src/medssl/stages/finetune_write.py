"""What a fine-tuning leaves: a network that says how it wants its scans, and masks that lie on the scans."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from PIL import Image
from safetensors.torch import save_file

from medssl import files
from medssl.config import to_table
from medssl.data.store import Store
from medssl.engine.machine import versions
from medssl.fine_tuned import CARD, WEIGHTS
from medssl.networks.weights import export_state
from medssl.stages.finetune_modalities import scan_plan
from medssl.stages.finetune_setup import Setup
from medssl.tasks.task import Task
from medssl.volume import Volume

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_network(folder: Path, setup: Setup, task: Task, result: Mapping[str, Any]) -> None:
    """model.safetensors, and model.json: task, architecture, preprocessing, how it did. No ids, dates, paths."""
    with files.atomic(folder / WEIGHTS) as temporary:
        save_file(export_state(task), temporary)
    told = ("task", "target", "classes", "structures", "init", "n_labels")
    card = {
        "format": files.FORMAT,
        **{name: result[name] for name in told if name in result},
        "tested": {name: result[name] for name in ("metric", "value", "n_test")},
        "network": to_table(setup.config),
        "preprocessing": scan_plan(setup.store).contract(),
        "data_hash": setup.store.hash,
        "versions": versions(),
    }
    files.write_json(folder / CARD, card)


def mask_file(folder: Path, store: Store, row: int) -> Path:
    """Where the predicted mask of an item lies."""
    return folder / f"{store.items['item'][row]}.{'png' if store.plan.dims == 2 else 'nii.gz'}"


def write_prediction(folder: Path, store: Store, row: int, labels: np.ndarray) -> Path:
    """Labels (*spatial) on the stored grid to FOLDER/ITEM.nii.gz or .png, on the voxels of the original file."""
    kind = np.uint8 if labels.max(initial=0) < 256 else np.int16
    volume = store.place_back(row, labels.astype(kind))
    path = mask_file(folder, store, row)
    # The suffix tells ITK and Pillow the format, so the temporary name must end in it.
    with files.atomic(path) as temporary:
        inner = temporary.with_name(temporary.name + path.name)
        if volume.dims == 2:
            Image.fromarray(volume.array[0]).save(inner)
        else:
            sitk.WriteImage(as_itk(volume), str(inner), useCompression=True)
        inner.replace(temporary)
    return path


def as_itk(volume: Volume) -> sitk.Image:
    """The first channel of a volume (C, X, Y, Z) as an ITK image, which counts axes backwards and uses LPS."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array[0].transpose(2, 1, 0)))
    affine = RAS_TO_LPS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing([float(s) for s in spacing])
    image.SetDirection([float(d) for d in (affine[:3, :3] / spacing).ravel()])
    image.SetOrigin([float(o) for o in affine[:3, 3]])
    return image
