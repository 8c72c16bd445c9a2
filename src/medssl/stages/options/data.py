"""What a person can say about data: index, prepare, preview, phantom. No heavy imports: help answers at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from medssl.methods import METHODS


@dataclass(frozen=True, kw_only=True)
class Index:
    """Find every usable scan in a folder; list the rest with what is wrong and how to fix it."""

    scans: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCANS")]
    """Folder of scans: any mixture of DICOM, NIfTI, NRRD, MHA, PNG, JPEG, TIFF and MedMNIST .npz."""
    out: Path
    """Folder to write: index.parquet, problems.csv, sheet.png. Running again adds what is new."""
    table: Path | None = None
    """CSV with a row a file: path, patient_id, study_id, modality, split, mask_path, text; any other column is a
    label. SCANS/labels.csv is read unasked. A report may also lie beside its scan: a.txt for a.nii.gz."""
    patient_regex: str | None = None
    """Regular expression on the relative path; its first group (or all of it) is the patient id."""
    modality: str | None = None
    """Modality (CT, MR, CR, US, …) of files whose header and table name none."""
    keep_ids: bool = False
    """Keep patient, study and series ids as they are; by default the index holds salted hashes."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of patients in train, validation and test."""
    stratify: str | None = None
    """Label column whose classes are spread evenly over the splits; by default the first with few classes."""
    seed: int = 0
    """Seed of the split."""
    workers: int = 0
    """Processes that read files; 0 takes one a core."""


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Bring indexed scans to one orientation, spacing and intensity, in a store made for random crops.

    The plan is kept in DATA/plan.toml, which a person can edit. Running again does what is missing or changed.
    """

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Folder that `medssl index` wrote."""
    spacing_mm: tuple[float, ...] | None = None
    """Target voxel size in mm; by default the median of the scans."""
    size: int | None = None
    """Short side in pixels for 2D images without a spacing; by default the median, at most 256."""
    dims: Literal[2, 3] | None = None
    """Prepare images (2) or volumes (3) where the folder holds both; by default the more frequent kind."""
    window_hu: tuple[float, float] | None = None
    """CT window (low, high) in Hounsfield units; by default -1000 to 1000."""
    mr: Literal["percentile", "zscore"] | None = None
    """MR intensities: foreground percentiles to [0, 1] (default), or foreground mean 0 and standard deviation 1."""
    register: bool = False
    """Align each subject's volumes rigidly, by mutual information, into DATA/registration.json; for CT beside MR."""
    pair_by: str | None = None
    """With --register: column of the index, or label, that tells a subject; by default patient and study."""
    plan_only: bool = False
    """Write plan.toml and the disk estimate, then stop, so that the plan can be edited."""
    workers: int = 0
    """Processes; 0 takes one a core."""
    cluster: str | None = None
    """Address of a Dask scheduler (tcp://…) that runs the jobs instead of local processes."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Draw the views a method would train on, before any training."""

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Folder that `medssl prepare` filled."""
    method: Annotated[str, tyro.conf.arg(help=f"Method whose views are drawn: {', '.join(METHODS)}.")] = "pcrl"
    """Method whose views are drawn, by its name in METHODS."""
    out: Path | None = None
    """Picture to write; by default DATA/preview-METHOD.png."""
    rows: int = 6
    """Samples to draw."""
    seed: int = 0
    """Seed of the samples and their views."""


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """Write a set of generated scans as a user's folder would look: images, masks, labels.csv with reports."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to write."""
    patients: int = 24
    """Number of patients."""
    dims: Literal[2, 3] = 3
    """Volumes (NIfTI) or images (PNG)."""
    seed: int = 0
    """Seed of the anatomy, lesions and nuisance."""
    size: int = 64
    """Voxels along the longest side."""
    modalities: tuple[str, ...] = ()
    """Scans of each study: CT, MR-T1, MR-T2, of one body in one place; by default all three. Images are CR."""
    misregister_mm: float = 0.0
    """How far at most the body has moved between the CT and each MR of a study."""
    missing: float = 0.0
    """Share of scans and reports left out; every study keeps a scan."""
