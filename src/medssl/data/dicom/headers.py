"""Headers of DICOM files: one Slice a frame, whether the file holds one frame or a thousand."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import UID

from medssl.errors import UserError

X_RAY = frozenset({"CR", "DX", "PX", "MG", "RF", "XA", "IO", "RG"})
NOT_IMAGES = {
    "SEG": ("a segmentation, not an image", "convert it to NIfTI and name it in the column mask_path"),
    "RTSTRUCT": ("contours, not an image", "convert them to NIfTI and name it in the column mask_path"),
    "RTPLAN": ("a treatment plan, not an image", "nothing to do"),
    "RTDOSE": ("a dose distribution, not an image", "nothing to do"),
    "SR": ("a structured report, not an image", "nothing to do; its text can come in the column text"),
    "PR": ("a presentation state, not an image", "nothing to do"),
    "KO": ("a list of key images, not an image", "nothing to do"),
    "REG": ("a registration, not an image", "nothing to do"),
}
DICOMDIR = "1.2.840.10008.1.3.10"
# What tells repeated acquisitions at one position apart, the most telling first.
PHASES = ("StackID", "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoTime", "EchoNumbers",
          "DiffusionBValue", "TriggerTime", "AcquisitionNumber", "AcquisitionTime", "ImageType")  # fmt: skip
TAGS = [
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription",
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "SpacingBetweenSlices", "SliceThickness",
    "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", *PHASES,
]  # fmt: skip


@dataclass
class Slice:
    """One frame of one file. Geometry in LPS mm as DICOM has it; empty where the header does not say."""

    file: str
    frame: int | None
    patient: str
    study: str
    series: str
    modality: str
    uid: str
    shape: tuple[int, ...]
    number: int = 0
    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    step_mm: float | None = None
    localiser: bool = False
    secondary: bool = False
    phase: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("shape", "position", "orientation", "spacing_mm"):  # lists, where it comes from JSON
            setattr(self, name, tuple(getattr(self, name)))

    @property
    def across(self) -> np.ndarray:
        """Unit vector along a row, towards higher columns."""
        return np.array(self.orientation[:3])

    @property
    def down(self) -> np.ndarray:
        """Unit vector along a column, towards higher rows."""
        return np.array(self.orientation[3:])

    @property
    def normal(self) -> np.ndarray:
        """Unit vector along which slices are stacked."""
        return np.cross(self.across, self.down)


def read_dicom(path: Path, **options: Any) -> pydicom.Dataset:
    """The data set of a file, also without preamble; a UserError where it is no DICOM."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of every odd value; what matters is checked here
            dataset = pydicom.dcmread(path, force=True, **options)
            if "SOPClassUID" not in dataset and "Rows" not in dataset and not _is_directory(dataset):
                raise UserError("not a DICOM image", fix="rename it to what it is, or copy it again")
            return dataset
    except (UserError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # pydicom raises whatever the bytes lead it to
        raise UserError(f"not readable as DICOM: {error}", fix="copy or export it again") from None


def read_slices(path: Path, name: str) -> list[Slice]:
    """The frames of one file; a UserError names an object that is no image."""
    dataset = read_dicom(path, stop_before_pixels=True, specific_tags=TAGS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _check_image(dataset)
            return [_slice(dataset, frame, name) for frame in _frames(dataset)]
        except UserError:
            raise
        except Exception as error:  # a value of a type that its tag forbids
            raise UserError(f"broken DICOM header: {error}", fix="export it again") from None


def functional_groups(dataset: pydicom.Dataset, frame: int) -> list[pydicom.Dataset]:
    """Where an enhanced multi-frame object keeps what belongs to a frame: its own groups, then the shared ones."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    return [*own[frame : frame + 1], *shared[:1]]


def lookup(dataset: pydicom.Dataset, frame: int | None, tag: str) -> Any:
    """A value of one frame: from its functional groups, the shared ones, or the file; None where absent or empty."""
    for group in functional_groups(dataset, frame) if frame is not None else []:
        for element in group:
            for inside in element.value if element.VR == "SQ" and element.value else []:
                if inside.get(tag) not in (None, ""):
                    return inside.get(tag)
    value = dataset.get(tag)
    return None if value == "" else value


def _is_directory(dataset: pydicom.Dataset) -> bool:
    meta = getattr(dataset, "file_meta", None)
    return meta is not None and meta.get("MediaStorageSOPClassUID") == DICOMDIR


def _check_image(dataset: pydicom.Dataset) -> None:
    kind, modality = dataset.get("SOPClassUID", ""), str(dataset.get("Modality", "") or "")
    if (_is_directory(dataset) or kind == DICOMDIR) and "Rows" not in dataset:
        raise UserError("DICOMDIR, a table of contents", fix="nothing to do; the files it lists are indexed themselves")
    if modality in NOT_IMAGES:
        what, fix = NOT_IMAGES[modality]
        raise UserError(f"{modality}: {what}", fix=fix)
    name = UID(kind).name.removesuffix(" Storage") if kind else "DICOM object without a class"
    for tag in ("Rows", "Columns"):
        if not dataset.get(tag):
            raise UserError(f"{name}: no pixels ({tag} is missing)", fix="leave it out, or export the images")


def _frames(dataset: pydicom.Dataset) -> list[int | None]:
    count = int(dataset.get("NumberOfFrames") or 1)
    return list(range(count)) if count > 1 else [0 if "PerFrameFunctionalGroupsSequence" in dataset else None]


def _slice(dataset: pydicom.Dataset, frame: int | None, name: str) -> Slice:
    def get(tag: str) -> Any:
        return lookup(dataset, frame, tag)

    spacing = _numbers(get("PixelSpacing"), 2) or _numbers(get("ImagerPixelSpacing"), 2)
    kinds = [str(k).upper() for k in dataset.get("ImageType") or []]
    step = _numbers(get("SpacingBetweenSlices"), 1) or _numbers(get("SliceThickness"), 1)
    return Slice(
        file=name,
        frame=frame,
        patient=str(dataset.get("PatientID") or "").strip(),
        study=str(dataset.get("StudyInstanceUID") or ""),
        series=str(dataset.get("SeriesInstanceUID") or ""),
        modality=str(dataset.get("Modality") or "").strip().upper(),
        uid=str(dataset.get("SOPInstanceUID") or ""),
        shape=(int(dataset.Rows), int(dataset.Columns)),
        number=int(get("InstanceNumber") or 0) if frame is None else frame,
        position=_numbers(get("ImagePositionPatient"), 3),
        orientation=_directions(get("ImageOrientationPatient")),
        spacing_mm=spacing if spacing and min(spacing) > 0 else (),
        step_mm=abs(step[0]) if step and step[0] else None,
        localiser=_is_localiser(dataset, kinds),
        secondary="Secondary Capture" in UID(dataset.get("SOPClassUID", "")).name or "SCREEN SAVE" in kinds,
        phase={tag: str(get(tag)) for tag in PHASES if get(tag) is not None},
    )


def _is_localiser(dataset: pydicom.Dataset, kinds: list[str]) -> bool:
    if dataset.get("Modality") not in ("CT", "MR", "PT"):
        return False
    words = str(dataset.get("SeriesDescription") or "").lower().replace("_", " ").split()
    named = {"localizer", "localiser", "localizers", "scout", "topogram", "survey", "scanogram", "3-plane", "3plane"}
    return "LOCALIZER" in kinds or bool(named & set(words))


def _numbers(value: Any, count: int) -> tuple[float, ...]:
    """``count`` finite numbers, or none."""
    if value is None:
        return ()
    try:
        found = tuple(float(v) for v in ([value] if isinstance(value, (str, float, int)) else value))
    except (TypeError, ValueError):
        return ()
    return found[:count] if len(found) >= count and all(abs(v) < 1e9 for v in found) else ()


def _directions(value: Any) -> tuple[float, ...]:
    """Six direction cosines of unit length at right angles, or none: some writers leave zeros."""
    found = _numbers(value, 6)
    if not found:
        return ()
    row, column = found[:3], found[3:]
    lengths = [sum(v * v for v in vector) ** 0.5 for vector in (row, column)]
    slant = abs(sum(a * b for a, b in zip(row, column, strict=True)))
    return found if all(abs(n - 1) < 0.02 for n in lengths) and slant < 0.02 else ()
