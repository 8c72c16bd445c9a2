"""What a fine-tuning leaves: a network that says how it wants its scans, and masks that lie on the scans."""

import gzip
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from PIL import Image
from safetensors.torch import save_file

from medssl import files
from medssl.config import to_table
from medssl.data.itk import FLIP
from medssl.data.store import Store
from medssl.engine.machine import versions
from medssl.fine_tuned import CARD, WEIGHTS, as_mask
from medssl.networks.weights import export_state
from medssl.stages.finetune_modalities import scan_plan
from medssl.stages.finetune_setup import Setup
from medssl.tasks.task import Task
from medssl.volume import Volume


def write_weights(folder: Path, task: Task) -> None:
    """model.safetensors: encoder and head."""
    with files.atomic(folder / WEIGHTS) as temporary:
        save_file(export_state(task), temporary)


def write_model_card(folder: Path, setup: Setup, result: Mapping[str, Any]) -> None:
    """model.json: task, architecture, preprocessing, how it did. No ids, dates, paths."""
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
    volume = store.place_back(row, as_mask(labels))
    path = mask_file(folder, store, row)
    # The suffix tells ITK and Pillow the format, so the temporary name must end in it.
    with files.atomic(path) as temporary:
        inner = temporary.with_name(temporary.name + path.name)
        if volume.dims == 2:
            Image.fromarray(volume.array[0]).save(inner)
        else:
            write_nifti(inner, volume)
        inner.replace(temporary)
    return path


def write_nifti(path: Path, mask: Volume) -> None:
    """The first channel of a volume (C, X, Y, Z) with its affine, sheared or not, which ITK alone would straighten."""
    array = sitk.GetImageFromArray(np.ascontiguousarray(mask.array[0].transpose(2, 1, 0)))  # ITK's axes run backwards
    affine = FLIP @ mask.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / spacing
    straight = np.allclose(direction.T @ direction, np.eye(3), atol=1e-4)
    array.SetSpacing([float(s) for s in spacing])
    array.SetOrigin([float(o) for o in affine[:3, 3]])
    array.SetDirection([float(d) for d in (direction if straight else np.eye(3)).ravel()])
    sitk.WriteImage(array, str(path), useCompression=True)
    if not straight:
        raw = bytearray(gzip.decompress(path.read_bytes()))
        struct.pack_into("=hh", raw, 252, 0, 1)  # qform_code, which cannot say it, and sform_code
        struct.pack_into("=12f", raw, 280, *mask.affine[:3].ravel())
        path.write_bytes(gzip.compress(raw))
