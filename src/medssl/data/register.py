"""Rigid registration of a subject's scans, kept beside the store as corrections of their affines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from medssl.data.agreement import gain
from medssl.data.jobs import each
from medssl.data.place import overlap
from medssl.data.progress import progress
from medssl.data.store import REGISTERED, Store
from medssl.errors import UserError
from medssl.files import FORMAT, read_json, write_json

BINS = 32
SHARE = 0.25  # of the voxels that the metric looks at
ITERATIONS = 200
SMALLEST = 12  # voxels: a coarser level shows nothing
MARGIN = 1 / 8  # of each axis of the moving scan, at each end: how far a voxel may go and still be compared
SURE = 3.0  # standard errors by which scans must agree better than their headers have them

Job = tuple[Store, int, int]


def register_pairs(store: Store, subject: np.ndarray, workers: int = 0) -> Path:
    """Register every scan onto the first modality of its subject; writes DATA/registration.json.

    ``subject`` (len(store),) as ``pairing.subjects`` gives it. What was registered before is kept.
    """
    if store.plan.dims != 3:
        raise UserError("--register is for volumes, and these are images", store.data, "leave it out")
    path = store.data / REGISTERED
    known = read_json(path)["items"] if path.exists() else {}
    stamps = dict(zip(store.items["item"].to_list(), store.items["stamp"].to_list(), strict=True))
    kept: dict[str, Any] = {}
    jobs: list[Job] = []
    for fixed, moving in _wanted(store, subject):
        to, item = store.names[fixed].decode(), store.names[moving].decode()
        old = known.get(item, {})
        if old.get("to") == to and old.get("stamps") == [stamps[item], stamps[to]]:
            kept[item] = old
        else:
            jobs.append((store, fixed, moving))
    with progress("register", len(jobs)) as step:
        for position, found in each(_register, jobs, workers=workers):
            if isinstance(found, Exception):
                raise found
            _, fixed, moving = jobs[position]
            to, item = store.names[fixed].decode(), store.names[moving].decode()
            marks = [stamps[item], stamps[to]]
            kept[item] = {"to": to, "stamps": marks, "correction": found.ravel().tolist()}
            step()
    write_json(path, {"format": FORMAT, "items": {name: kept[name] for name in sorted(kept)}})
    return path


def _wanted(store: Store, subject: np.ndarray) -> list[tuple[int, int]]:
    """(fixed, moving) rows: of each subject the first scan of the first modality, and all scans of the others."""
    found = []
    for code in np.unique(subject):
        mine = np.flatnonzero(subject == code)
        fixed = mine[np.argsort(store.modalities[mine], kind="stable")[0]]
        found += [(int(fixed), int(r)) for r in mine if store.modalities[r] != store.modalities[fixed]]
    return found


def _register(job: Job) -> np.ndarray:
    store, fixed, moving = job  # jobs have one thread each: sums in one order, the same correction everywhere
    images = [store.normalised(row)[0] for row in (fixed, moving)]
    affines = [store.headers[row] for row in (fixed, moving)]
    return rigid(images[0], affines[0], images[1], affines[1])


def rigid(fixed: np.ndarray, fixed_affine: np.ndarray, moving: np.ndarray, moving_affine: np.ndarray) -> np.ndarray:
    """The correction (4, 4), RAS mm to RAS mm, that brings ``moving`` onto ``fixed`` when its affine is multiplied.

    Images (X, Y, Z) of any two modalities, affines (4, 4): turned and shifted until their Mattes mutual information
    (Mattes 2003) is largest. The identity, where they do not agree better for it. Volumes that do not overlap begin
    centre on centre.
    """
    images = _image(fixed, fixed_affine), _image(moving, moving_affine)
    start = sitk.Euler3DTransform()
    start.SetCenter(images[0].TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in images[0].GetSize()]))
    if overlap(fixed_affine, fixed.shape, moving_affine, moving.shape) == 0:
        start = sitk.CenteredTransformInitializer(*images, start, sitk.CenteredTransformInitializerFilter.GEOMETRY)
    end = _climbed(_evened(images[0]), _evened(images[1]), start)
    begun, found = (np.linalg.inv(_matrix(transform)) for transform in (start, end))
    better, error = gain(fixed, fixed_affine, moving, [begun @ moving_affine, found @ moving_affine])
    return found if better > SURE * error else begun


def _climbed(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform) -> sitk.Transform:
    """From ``start`` uphill."""
    levels = [s for s in (4, 2, 1) if min(*fixed.GetSize(), *moving.GetSize()) / s >= SMALLEST] or [1]
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(_inner(fixed, moving, start))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(SHARE, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, ITERATIONS, relaxationFactor=0.7)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(levels)
    method.SetSmoothingSigmasPerLevel([s / 2 if s > 1 else 0 for s in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(sitk.Euler3DTransform(start), inPlace=False)
    try:
        return method.Execute(fixed, moving)
    except RuntimeError:  # no overlap left on the way
        raise UserError("two scans of a subject cannot be registered", fix="see that they show one patient") from None


def _inner(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform) -> sitk.Image:
    """Where ``fixed`` lies well within ``moving``; anywhere within it, if that is nowhere.

    Mutual information is that of the overlap, and largest of the smallest: a thin stack would slide out of the other.
    """
    for margin in (MARGIN, 0.0):
        box = np.zeros(moving.GetSize()[::-1], np.uint8)
        box[tuple(slice(cut := int(margin * n), n - cut) for n in box.shape)] = 1
        inside = sitk.GetImageFromArray(box)
        inside.CopyInformation(moving)
        inner = sitk.Resample(inside, fixed, start, sitk.sitkNearestNeighbor, 0.0)
        if sitk.GetArrayViewFromImage(inner).any():
            break
    return inner


def _evened(image: sitk.Image) -> sitk.Image:
    """With voxels about as long as the longest edge: thick slices are not placed better by finer pixels."""
    spacing = np.array(image.GetSpacing())
    return sitk.BinShrink(image, (spacing.max() / spacing + 1e-6).astype(int).tolist())


def _image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """In RAS, which suits ITK as well as its own LPS while all images are in it."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T, np.float32))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _matrix(transform: sitk.Transform) -> np.ndarray:
    """A rigid transform as (4, 4), from where four points go."""
    points: Sequence[tuple[float, ...]] = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    there = np.array([transform.TransformPoint(point) for point in points])
    matrix = np.eye(4)
    matrix[:3, :3] = (there[1:] - there[0]).T
    matrix[:3, 3] = there[0]
    return matrix
