"""Scans as users have them, written by other libraries than those that read them where there is one."""

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import polars as pl
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medssl.stages.index import run
from medssl.stages.options.data import Index

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
OBLIQUE = np.array([[0.0, -0.8, 0.6, 10.0], [0.9, 0.0, 0.0, -20.0], [0.0, 0.6, 2.4, 5.0], [0, 0, 0, 1.0]])


def noise(seed: int, *shape: int) -> np.ndarray:
    """16-bit values that no two scans share."""
    return np.random.default_rng(seed).integers(-900, 900, shape).astype(np.int16)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """A NIfTI-1 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def write_slice(path: Path, pixels: np.ndarray, drop: tuple[str, ...] = (), **tags: Any) -> Path:
    """A CT slice of ``pixels`` (rows, columns) or (frames, rows, columns); ``tags`` are set last, ``drop`` removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CT_IMAGE
    meta.MediaStorageSOPInstanceUID = tags.get("SOPInstanceUID", generate_uid())
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    signed = int(np.issubdtype(pixels.dtype, np.signedinteger))
    bits = 8 * pixels.dtype.itemsize
    values = {
        "SOPClassUID": CT_IMAGE, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT",
        "PatientID": "Ann Example", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "InstanceNumber": 1,
        "ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.8, 0.5],
        "RescaleSlope": 1, "RescaleIntercept": 0, "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1,
        "Rows": pixels.shape[-2], "Columns": pixels.shape[-1], "BitsAllocated": bits, "BitsStored": bits,
        "HighBit": bits - 1, "PixelRepresentation": signed,
    }  # fmt: skip
    if pixels.ndim == 3:
        values["NumberOfFrames"] = len(pixels)
    for name, value in (values | tags).items():
        if name not in drop:
            setattr(dataset, name, value)
    if "PixelData" not in drop:
        dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, volume: np.ndarray, step_mm: float = 2.0, **tags: Any) -> list[Path]:
    """An axial series of ``volume`` (slices, rows, columns), stacked upwards; file names in reverse order."""
    n = len(volume)
    return [
        write_slice(
            folder / f"{n - k:03d}.dcm",
            pixels,
            **({"ImagePositionPatient": [-10, -20, 30 + k * step_mm], "InstanceNumber": k + 1} | tags),
        )
        for k, pixels in enumerate(volume)
    ]


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A CSV with the columns of the first row."""
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def index(scans: Path, out: Path, **options: Any) -> tuple[pl.DataFrame, dict[str, str]]:
    """Run the verb in this process; the index, and what problems.csv says by file."""
    run(Index(scans=scans, out=out, **({"workers": 1} | options)))
    return pl.read_parquet(out / "index.parquet"), problems(out)


def problems(out: Path) -> dict[str, str]:
    """What problems.csv says, by file."""
    with (out / "problems.csv").open() as handle:
        return {row["file"]: row["what"] for row in csv.DictReader(handle)}
