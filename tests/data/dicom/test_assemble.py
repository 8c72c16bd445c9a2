"""DICOM in, a volume of known values at known places out."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset

from medssl.data.dicom.assemble import read_stack
from medssl.data.dicom.headers import read_slices
from medssl.data.dicom.stacks import stack_up
from medssl.volume import Volume
from scan_files import noise, write_series, write_slice


def read(folder: Path) -> Volume:
    slices = [one for path in sorted(folder.iterdir()) for one in read_slices(path, path.name)]
    (item,), _ = stack_up(slices)
    return read_stack(folder, item.files, item.frames)


def test_values_and_places_are_those_of_itk(tmp_path: Path) -> None:
    write_series(tmp_path, noise(0, 7, 9, 11), RescaleSlope=2, RescaleIntercept=100)
    volume = read(tmp_path)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    image = sitk.ReadImage(names)
    ours = volume.array[0]
    np.testing.assert_array_equal(ours, np.maximum(sitk.GetArrayFromImage(image).transpose(2, 1, 0), -1024))
    for voxel in [(0, 0, 0), (10, 3, 5)]:
        place = np.array(image.TransformIndexToPhysicalPoint(voxel)) * [-1, -1, 1]
        np.testing.assert_allclose((volume.affine @ [*voxel, 1])[:3], place, atol=1e-6)


def test_gantry_tilt_is_straightened(tmp_path: Path) -> None:
    """A rod along z, cut by a tilted gantry: each slice lies 1.6 mm (2 rows) lower, so the rod 2 rows higher in it."""
    n = 6
    for k in range(n):
        pixels = np.full((30, 20), -1000, np.int16)
        pixels[16 - 2 * k : 18 - 2 * k, 8:10] = 500
        place = [0, 1.6 * k, 3.0 * k]
        write_slice(tmp_path / f"{k}.dcm", pixels, ImagePositionPatient=place, InstanceNumber=k)
    volume = read(tmp_path)
    rod = np.argwhere(volume.array[0] > 400)
    assert len(rod) == n * 4
    assert set(rod[:, 1]) == {rod[0, 1], rod[0, 1] + 1}
    top = volume.affine @ [*rod[0], 1]
    np.testing.assert_allclose(top[:3], [-8 * 0.5, -16 * 0.8, 0.0], atol=1e-6)
    np.testing.assert_allclose(volume.affine[:3, :3], np.diag([-0.5, -0.8, 3.0]), atol=1e-6)


def test_a_missing_slice_is_interpolated_at_its_place(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.int16)[:, None, None] * 100, (8, 9, 9))
    paths = write_series(tmp_path, ramp)
    paths[3].unlink()
    volume = read(tmp_path)
    np.testing.assert_allclose(volume.array[0, 4, 4], np.arange(8) * 100.0)
    np.testing.assert_allclose(volume.spacing_mm, (0.5, 0.8, 2.0))


def test_an_enhanced_file_has_its_geometry_in_functional_groups(tmp_path: Path) -> None:
    volume = noise(1, 5, 9, 11)
    path = write_slice(
        tmp_path / "enhanced.dcm",
        volume[[3, 0, 4, 1, 2]],
        drop=("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        **_groups([3, 0, 4, 1, 2]),
    )
    found = read(tmp_path)
    wanted = volume.transpose(2, 1, 0) * 1.0 + np.arange(5) * 10  # each frame has an intercept of its own
    np.testing.assert_allclose(found.array[0], np.maximum(wanted, -1024))
    np.testing.assert_allclose(found.spacing_mm, (0.5, 0.7, 2.0))
    assert len(read_slices(path, "x")) == 5


def _groups(order: list[int]) -> dict[str, list[Dataset]]:
    shared = _nested(PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]})
    shared.update(_nested(PixelMeasuresSequence={"PixelSpacing": [0.7, 0.5]}))
    frames = []
    for k in order:
        frame = _nested(PlanePositionSequence={"ImagePositionPatient": [0, 0, 2.0 * k]})
        frame.update(_nested(PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": 10 * k}))
        frames.append(frame)
    return {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": frames}


def _nested(**sequences: dict[str, object]) -> Dataset:
    outer = Dataset()
    for name, values in sequences.items():
        inner = Dataset()
        for tag, value in values.items():
            setattr(inner, tag, value)
        setattr(outer, name, [inner])
    return outer
