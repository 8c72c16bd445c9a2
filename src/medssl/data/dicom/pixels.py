"""Pixels of DICOM: decoded, rescaled (HU for CT), as a viewer shows them for X-rays, stacked by position."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medssl.data.dicom.headers import X_RAY, Slice, lookup, read_dicom
from medssl.errors import UserError

AS_MEASURED = frozenset({"CT", "PT", "NM", "MR"})  # values mean something here: MONOCHROME1 only tells how to show them
AIR_HU = -1024.0


def decode(root: Path, slices: list[Slice]) -> list[np.ndarray]:
    """Physical values of slices, each (C, rows, columns); a UserError names the first file that has none."""
    images, opened, name = [], None, ""
    for one in slices:
        if opened is None or one.file != name:
            opened, name = read_dicom(root / one.file), one.file
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                images.append(_image(opened, one.frame, root / one.file))
        except UserError as error:
            raise UserError(error.what, root / one.file, error.fix) from None
    return images


def _image(dataset: pydicom.Dataset, frame: int | None, path: Path) -> np.ndarray:
    if not any(tag in dataset for tag in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UserError("no pixels in the file", fix="export it again with its pixel data")
    _complete_meta(dataset)
    try:
        with _silent_codecs():
            raw = pixel_array(dataset, index=frame or 0)
    except Exception as error:  # plugins raise whatever the bytes lead them to
        return _by_itk(dataset, frame, path, error)
    if raw.ndim == 3 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        return _colour(dataset, raw)
    return _gray(dataset, frame, raw)[None]


@contextmanager
def _silent_codecs() -> Iterator[None]:
    """Codecs in C write to the terminal what the error they raise says again: their stderr goes nowhere."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _complete_meta(dataset: pydicom.Dataset) -> None:
    """Old files have no transfer syntax; then it is how the header was found to be written."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _colour(dataset: pydicom.Dataset, raw: np.ndarray) -> np.ndarray:
    """(3, rows, columns) bytes."""
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        raw = apply_color_lut(raw, dataset)
        bits = 16 if raw.dtype.itemsize > 1 else 8
    else:
        bits = int(dataset.get("BitsStored") or 8)
    if bits > 8:
        raw = raw >> (bits - 8)
    return raw.transpose(2, 0, 1)[:3].astype(np.uint8)


def _gray(dataset: pydicom.Dataset, frame: int | None, raw: np.ndarray) -> np.ndarray:
    """(rows, columns) in physical units; for X-rays within the window of the header."""
    modality = str(dataset.get("Modality") or "")
    padding = _padding(dataset, raw)
    values = _rescaled(dataset, frame, raw)
    if modality == "CT":
        values = np.maximum(values, AIR_HU)  # outside the tube scanners write anything
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1" and modality not in AS_MEASURED
    if padding.any() and not padding.all():  # black, as a viewer shows it
        values = np.where(padding, values[~padding].max() if inverted else values[~padding].min(), values)
    if modality in X_RAY:
        shown = _windowed(dataset, values, raw)
        values = shown if np.ptp(shown) > 0 else values
    if inverted:
        values = values.max() + values.min() - values
    return values


def _padding(dataset: pydicom.Dataset, raw: np.ndarray) -> np.ndarray:
    """Where the header says that there is no image."""
    low = dataset.get("PixelPaddingValue")
    if not isinstance(low, int):
        return np.zeros(raw.shape, bool)
    high = dataset.get("PixelPaddingRangeLimit")
    high = high if isinstance(high, int) else low
    return (raw >= min(low, high)) & (raw <= max(low, high))


def _rescaled(dataset: pydicom.Dataset, frame: int | None, raw: np.ndarray) -> np.ndarray:
    table = dataset.get("ModalityLUTSequence")
    if table and table[0].get("LUTDescriptor") is not None:
        return np.asarray(apply_modality_lut(raw, dataset), np.float32)
    slope, intercept = _number(lookup(dataset, frame, "RescaleSlope"), 1.0), 0.0
    if lookup(dataset, frame, "RescaleIntercept") is not None:
        intercept = _number(lookup(dataset, frame, "RescaleIntercept"), 0.0)
    return raw.astype(np.float32) * np.float32(slope or 1.0) + np.float32(intercept)


def _windowed(dataset: pydicom.Dataset, values: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Values of interest as the header's first LUT or window has them; all of them where it has none."""
    try:
        if dataset.get("VOILUTSequence") and np.issubdtype(raw.dtype, np.integer):
            return np.asarray(apply_voi_lut(values.astype(np.int32), dataset, index=0), np.float32)
        if _number(dataset.get("WindowWidth"), 0.0) > 0:
            return np.asarray(apply_voi_lut(values, dataset, index=0, prefer_lut=False), np.float32)
    except Exception:  # a window that pydicom cannot make sense of is none
        return values
    return values


def _number(value: Any, default: float) -> float:
    """The first number of a value that may be a list, text or nothing."""
    try:
        return float(value[0] if isinstance(value, (list, pydicom.multival.MultiValue)) else value)
    except (TypeError, ValueError, IndexError):
        return default


def _by_itk(dataset: pydicom.Dataset, frame: int | None, path: Path, error: Exception) -> np.ndarray:
    """ITK's own codecs read what pydicom's plugins do not: 12-bit JPEG, HTJ2K. It rescales itself."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_private and not syntax.is_compressed:
        raise UserError(f"broken pixel data: {_short(error)}", fix="copy or export the file again") from None
    try:
        with _silent_codecs():
            image = sitk.ReadImage(str(path))
    except RuntimeError:
        fix = "decompress it, for example with dcmdjpeg or gdcmconv --raw, or export it again"
        raise UserError(f"pixels not decodable ({syntax.name})", fix=fix) from None
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        return array.reshape(-1, *array.shape[-3:])[frame or 0].transpose(2, 0, 1)[:3].astype(np.uint8)
    values = array.reshape(-1, *array.shape[-2:])[frame or 0].astype(np.float32)
    plain = dataset.copy()
    for tag in ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PixelPaddingValue"):
        if tag in plain:
            del plain[tag]
    return _gray(plain, frame, values)[None]


def _short(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:160]
