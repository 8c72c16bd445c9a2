"""Predicted masks as files that lie on the scans they belong to."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

from medssl import files
from medssl.data.store import Store
from medssl.volume import Volume

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_prediction(folder: Path, store: Store, row: int, labels: np.ndarray) -> Path:
    """Labels (*spatial) on the stored grid to FOLDER/ITEM.nii.gz or .png, on the voxels of the original file."""
    kind = np.uint8 if labels.max(initial=0) < 256 else np.int16
    volume = store.place_back(row, labels.astype(kind))
    name = store.items["item"][row]
    path = folder / (f"{name}.png" if volume.dims == 2 else f"{name}.nii.gz")
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
