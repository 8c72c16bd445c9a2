"""Generated patients: a torso as CT and as MR, or radiographs of it, written as a user's folder would look.

Everything follows from (seed, patient, study, modality), so patients are made in any order and in parallel. The scans
of a study show one body in one place, each on its own grid.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, sin
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from medssl.data.phantom_anatomy import HEART, LESION, LUNG, ORGANS, Findings, Patient, draw_patient
from medssl.data.phantom_mr import CONTRASTS, T1, T2, mr_scanner, painter, voxel_mm
from medssl.data.phantom_report import report
from medssl.data.phantom_shapes import Canvas, Paint, smooth_field
from medssl.files import atomic, write_text
from medssl.rng import stream

__all__ = [
    "COLUMNS",
    "MODALITIES",
    "STRUCTURES",
    "PhantomScan",
    "make_scan",
    "names_of",
    "write_patient",
    "write_table",
]

COLUMNS = ("path", "patient_id", "study_id", "modality", "mask_path", "lesion", "lesion_site", "effusion", "text")
MODALITIES = {3: ("CT", T1, T2), 2: ("CR",)}
STRUCTURES = {3: {1: "liver", 2: "heart", 3: "spleen", 4: "lesion"}, 2: {1: "lung", 2: "heart", 3: "lesion"}}
FIELD_MM = (372.0, 279.0, 340.0)  # right-left, front-back, along the body


@dataclass(frozen=True)
class PhantomScan:
    """``array`` (X, Y, Z) HU int16 in RAS, or a radiograph (H, W) uint8; ``mask`` alike, STRUCTURES[dims]."""

    array: np.ndarray
    mask: np.ndarray
    spacing_mm: tuple[float, ...]
    labels: dict[str, str]


def studies_of(seed: int, patient: int) -> int:
    """One study; one patient in four has two."""
    return 2 if stream(seed, "phantom", patient, "studies").random() < 0.25 else 1


def names_of(seed: int, patient: int, dims: int, modalities: Sequence[str] = (), missing: float = 0.0) -> list[str]:
    """File names of a patient's scans; without ``modalities`` those of the first one."""
    modalities = modalities or MODALITIES[dims][:1]
    return [
        _name(patient, study, modality)
        for study in range(1, studies_of(seed, patient) + 1)
        for modality in present(seed, patient, study, modalities, missing)
        if modality
    ]


def present(seed: int, patient: int, study: int, modalities: Sequence[str], missing: float) -> list[str]:
    """What there is of a study, "" standing for its report; ``missing`` is the share left out. A scan always stays."""
    names = [*modalities, ""]
    drawn = stream(seed, "phantom", patient, "missing", study).random(len(names)).tolist()
    safe = max(range(len(modalities)), key=drawn.__getitem__)
    return [name for i, name in enumerate(names) if drawn[i] >= missing or i == safe]


def _name(patient: int, study: int, modality: str) -> str:
    ending = ".png" if modality == "CR" else ".nii.gz"
    return f"P{patient + 1:03d}_S{study}{f'_{modality}' if modality in CONTRASTS else ''}{ending}"


def make_patient(seed: int, patient: int, dims: int = 3) -> Patient:
    """Build, organs and findings of one patient; a radiograph cannot show lesions of the liver."""
    rng = stream(seed, "phantom", patient, "build")
    width = rng.uniform(148, 176)
    jitter = {organ: rng.normal(size=6).clip(-2, 2).tolist() for organ in ORGANS}
    return Patient(
        width=width,
        depth=width * rng.uniform(0.64, 0.74),
        fat=float(np.exp(rng.uniform(np.log(7), np.log(24)))),
        muscle=rng.uniform(13, 19),
        jitter=jitter,
        findings=_findings(stream(seed, "phantom", patient, "findings"), width, dims),
    )


def _findings(rng: np.random.Generator, width: float, dims: int) -> Findings:
    lesions = []
    if rng.random() < 0.5:
        site = "lung" if rng.random() < 0.5 or dims == 2 else "liver"
        side = int(rng.choice([-1, 1]))
        for _ in range(rng.integers(1, 4)):
            if site == "lung":
                centre = (side * rng.uniform(62, 105), rng.uniform(-50, 45), rng.uniform(28, 105))
            else:
                centre = (rng.uniform(45, 105), rng.uniform(-40, 45), rng.uniform(-75, -25))
            grown = width / 170
            radius = rng.uniform(8, 19) if dims == 3 else rng.uniform(12, 25)  # a radiograph hides small ones
            lesions.append((site, tuple(float(x * grown) for x in centre), float(radius)))
    effusion = (int(rng.choice([-1, 1])), float(rng.uniform(22, 58))) if rng.random() < 0.4 else None
    return Findings(tuple(lesions), effusion)  # type: ignore[arg-type]


def make_scan(
    seed: int,
    patient: int,
    study: int = 1,
    dims: int = 3,
    size: int = 64,
    modality: str = "CT",
    moved_mm: Sequence[float] = (0.0, 0.0, 0.0),
) -> PhantomScan:
    """One scan of a study, ``size`` voxels along a CT's longest side; ``moved_mm`` (RAS) shifts the body in it."""
    person = make_patient(seed, patient, dims)
    rng = stream(seed, "phantom", patient, "study", study)
    spacing = FIELD_MM[0] / size
    # A radiograph needs no thin slices along the beam; a CT has its own slice thickness.
    thickness = (spacing, spacing, spacing * rng.uniform(0.9, 1.6)) if dims == 3 else (spacing, 7.0, spacing)
    own, paint = rng, None
    if modality in CONTRASTS:  # the pose is the study's, the machine is another
        own, paint = stream(seed, "phantom", patient, "study", study, modality), painter(modality)
        thickness = voxel_mm(own, spacing)
    shape = tuple(round(field / edge) for field, edge in zip(FIELD_MM, thickness, strict=True))
    canvas = _pose(rng, stream(seed, "phantom", patient, "bend"), shape, thickness, moved_mm, paint)
    texture = ndimage.gaussian_filter(own.standard_normal(shape, dtype=np.float32), 1.0)
    enhanced = 0.0 if paint else float(rng.choice([0.0, rng.uniform(0.4, 1.0)]))
    # The vessels' own stream: all scans of a patient show the same tree.
    draw_patient(canvas, person, enhanced, stream(seed, "phantom", patient, "vessels"), texture / texture.std())
    labels = _labels(person.findings)
    if dims == 2:
        image, mask = _radiograph(rng, canvas, thickness[1])
        return PhantomScan(image, mask, (spacing, spacing), labels)
    mask = np.where(canvas.labels <= LESION, canvas.labels, 0).astype(np.uint8)
    return PhantomScan((mr_scanner if paint else _scanner)(own, canvas.hu), mask, thickness, labels)


def misregistration(seed: int, patient: int, study: int, modality: str, most_mm: float) -> tuple[float, ...]:
    """How far the body lies from where the CT has it, in mm (RAS): up to ``most_mm``, in any direction."""
    if modality not in CONTRASTS:
        return (0.0, 0.0, 0.0)
    rng = stream(seed, "phantom", patient, "moved", study, modality)
    way = rng.normal(size=3)
    return tuple((way / np.linalg.norm(way) * rng.uniform(0.5, 1.0) * most_mm).tolist())


def _labels(findings: Findings) -> dict[str, str]:
    side = findings.effusion[0] if findings.effusion else 0
    return {
        "lesion": "yes" if findings.lesions else "no",
        "lesion_site": findings.lesions[0][0] if findings.lesions else "none",
        "effusion": {0: "none", 1: "right", -1: "left"}[side],
    }


def _pose(
    rng: np.random.Generator,
    bend: np.random.Generator,
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    moved_mm: Sequence[float] = (0.0, 0.0, 0.0),
    paint: Paint | None = None,
) -> Canvas:
    """Where each voxel lies in the body: turned and shifted on the couch, breathing, bent as this patient is."""
    axes = zip(shape, spacing_mm, moved_mm, strict=True)
    grid = [(np.arange(n) - (n - 1) / 2) * edge - moved for n, edge, moved in axes]
    x, y, z = np.meshgrid(*(axis.astype(np.float32) for axis in grid), indexing="ij", sparse=True)
    yaw, roll = np.radians(rng.normal(0, 2.5, 2).clip(-6, 6)).tolist()
    shift = rng.normal(0, 5, 3).clip(-12, 12).tolist()
    x, y, z = x - shift[0], y - shift[1], z - shift[2]
    r = cos(yaw) * cos(roll) * x + sin(roll) * y + sin(yaw) * z
    a = cos(roll) * y - sin(roll) * x + 0 * z
    s = cos(yaw) * z - sin(yaw) * x + 0 * y
    breath = rng.normal(0, 4)  # the diaphragm moves organs below it
    s = s + breath * np.exp(-(((s + 30) / 70) ** 2))
    r, a, s = (v + 3.0 * smooth_field(bend, shape, 5) for v in (r, a, s))
    return Canvas.blank(r, a, s, float(np.mean(spacing_mm)), paint)


def _scanner(rng: np.random.Generator, hu: np.ndarray) -> np.ndarray:
    """What the machine adds: its kernel, noise of that kernel, and a calibration that is a little off."""
    kernel = rng.uniform(0.25, 0.75)
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), kernel)
    noise *= rng.uniform(12, 40) / noise.std()
    measured = ndimage.gaussian_filter(hu, kernel) + noise
    measured = (measured + 1000) * rng.uniform(0.98, 1.02) - 1000 + rng.normal(0, 6)
    return np.rint(measured.clip(-1024, 3071)).astype(np.int16)


def _radiograph(rng: np.random.Generator, canvas: Canvas, step_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Front view as film shows it: rows from head to foot, the patient's right at the left; dense is bright."""
    density = np.clip(canvas.hu + 1000, 0, None) / 1000
    density = np.where(canvas.hu > 150, 1.5 * density, density)  # bone absorbs more than its density says
    path = (density * step_mm).sum(axis=1)  # water-equivalent mm along the beam, (r, s)
    scatter = ndimage.gaussian_filter(path, 12)
    path = path + rng.uniform(0.1, 0.35) * scatter
    low, high = np.percentile(path[path > 20], (rng.uniform(1, 4), rng.uniform(98.5, 99.8)))
    grey = np.clip((path - low) / (high - low), 0, 1) ** rng.uniform(0.8, 1.5)
    grey = ndimage.gaussian_filter(grey, rng.uniform(0.2, 0.6)) + rng.normal(0, rng.uniform(0.005, 0.025), grey.shape)
    front = np.zeros(path.shape, np.uint8)
    for label, organ in enumerate((LUNG, HEART, LESION), start=1):  # the later hides the earlier: lesions lie on top
        front[(canvas.labels == organ).any(axis=1)] = label
    film = np.rint(255 * grey.clip(0, 1)).astype(np.uint8)
    return film[::-1, ::-1].T, front[::-1, ::-1].T


def write_patient(
    out: Path,
    seed: int,
    patient: int,
    dims: int,
    size: int,
    modalities: Sequence[str] = (),
    misregister_mm: float = 0.0,
    missing: float = 0.0,
) -> list[dict[str, str]]:
    """Write a patient's scans to OUT/images and OUT/masks; returns their rows of labels.csv."""
    rows = []
    code = f"P{patient + 1:03d}"
    findings = make_patient(seed, patient, dims).findings
    for study in range(1, studies_of(seed, patient) + 1):
        there = present(seed, patient, study, modalities or MODALITIES[dims][:1], missing)
        text = report(findings, stream(seed, "phantom", patient, "report", study)) if "" in there else ""
        for modality in filter(None, there):
            moved = misregistration(seed, patient, study, modality, misregister_mm)
            scan = make_scan(seed, patient, study, dims, size, modality, moved)
            name = _name(patient, study, modality)
            apart = (modality,) if modality in CONTRASTS else ()
            flipped = stream(seed, "phantom", patient, "stored", study, *apart).random() < 0.5
            _write(out, name, scan, flipped)
            where = {"path": f"images/{name}", "patient_id": code, "study_id": f"{code}-{study}"}
            rows.append(where | {"modality": modality, "mask_path": f"masks/{name}", "text": text} | scan.labels)
    return rows


def _write(out: Path, name: str, scan: PhantomScan, flipped: bool) -> None:
    for folder, array in (("images", scan.array), ("masks", scan.mask)):
        if scan.array.ndim == 3:
            _write_nifti(out / folder / name, array, scan.spacing_mm, flipped)
        else:
            with atomic(out / folder / name) as temporary:
                Image.fromarray(array).save(temporary, format="PNG")


def _write_nifti(path: Path, array: np.ndarray, spacing_mm: tuple[float, ...], flipped: bool) -> None:
    """Some files hold their voxels from right to left and front to back, as many scanners write them."""
    if flipped:
        array = array[::-1, ::-1]
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing_mm)
    sign = 1.0 if flipped else -1.0  # SimpleITK counts towards left and back, RAS towards right and front
    image.SetDirection((sign, 0, 0, 0, sign, 0, 0, 0, 1))
    extent = [(n - 1) / 2 * edge for n, edge in zip(array.shape, spacing_mm, strict=True)]
    image.SetOrigin((-sign * extent[0], -sign * extent[1], -extent[2]))
    with atomic(path) as temporary:
        whole = temporary.with_name(temporary.name + ".nii.gz")  # SimpleITK goes by the ending
        sitk.WriteImage(image, str(whole))
        whole.replace(temporary)


def write_table(out: Path, rows: list[dict[str, str]]) -> Path:
    """Write OUT/labels.csv as `medssl index` reads it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: row["path"]))
    write_text(out / "labels.csv", text.getvalue())
    return out / "labels.csv"
