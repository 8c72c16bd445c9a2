"""Headers and voxels of NIfTI against nibabel."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.data.nifti import read_header, read_nifti
from medssl.errors import UserError
from scan_files import OBLIQUE, noise


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".img"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64, ">i2"])
def test_values_and_affine_are_nibabels(tmp_path: Path, ending: str, kind: str) -> None:
    array = np.random.default_rng(0).uniform(0, 200, (7, 9, 5)).astype(kind)
    path = tmp_path / f"scan{ending}"
    image = nib.Nifti1Pair if ending == ".img" else nib.Nifti1Image
    header = nib.Nifti1Header(endianness=">" if kind == ">i2" else "<")
    header.set_data_dtype(kind)
    nib.save(image(array, OBLIQUE, header), path)
    read = read_nifti(path.with_suffix(".hdr") if ending == ".img" else path)
    np.testing.assert_array_equal(read.array[0], np.asarray(nib.load(path).dataobj))
    np.testing.assert_allclose(read.affine, nib.load(path).affine, atol=1e-5)


def test_slope_and_intercept_apply(tmp_path: Path) -> None:
    image = nib.Nifti1Image(noise(0, 6, 5, 4), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").array[0], nib.load(tmp_path / "a.nii").get_fdata())


@pytest.mark.parametrize("handedness", [1, -1])
def test_the_quaternion_is_used_where_there_is_no_sform(tmp_path: Path, handedness: int) -> None:
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.sign(np.linalg.det(rotation)) * [1.0, 2.0, 3.0 * handedness]
    affine[:3, 3] = [4, 5, -6]
    image = nib.Nifti1Image(noise(0, 4, 5, 6), None)
    image.set_qform(affine, 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_header(tmp_path / "a.nii").affine, affine, atol=1e-5)


def test_nifti_2_and_colour(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(noise(3, 4, 5, 6), OBLIQUE), tmp_path / "two.nii.gz")
    read = read_nifti(tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read.array[0], noise(3, 4, 5, 6))
    np.testing.assert_allclose(read.affine, OBLIQUE)
    colour = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3), np.uint8)
    packed = colour.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nib.save(nib.Nifti1Image(packed, np.eye(4)), tmp_path / "rgb.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "rgb.nii").array, colour.transpose(3, 0, 1, 2))


def test_metres_become_millimetres(tmp_path: Path) -> None:
    image = nib.Nifti1Image(noise(0, 4, 4, 4), np.diag([0.001, 0.002, 0.003, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").spacing_mm, (1, 2, 3), rtol=1e-5)


def test_an_affine_that_is_not_orthonormal_is_no_obstacle(tmp_path: Path) -> None:
    sheared = OBLIQUE.copy()
    sheared[0, 2] += 0.7
    nib.save(nib.Nifti1Image(noise(0, 4, 4, 4), sheared), tmp_path / "a.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").affine, sheared, atol=1e-6)


def test_a_gzip_of_several_members_is_one_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(noise(0, 9, 9, 9), np.eye(4)), tmp_path / "a.nii")
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(raw[:700]) + gzip.compress(raw[700:]))
    np.testing.assert_array_equal(read_nifti(tmp_path / "b.nii.gz").array[0], noise(0, 9, 9, 9))


@pytest.mark.parametrize(
    ("cut", "what"), [(100, "truncated NIfTI header"), (400, "truncated: "), (0, "truncated NIfTI header")]
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_cut_file_says_so(tmp_path: Path, cut: int, what: str, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    nib.save(nib.Nifti1Image(noise(0, 9, 9, 9), np.eye(4)), tmp_path / "whole.nii")
    raw = (tmp_path / "whole.nii").read_bytes()[:cut]
    path.write_bytes(gzip.compress(raw) if ending == ".nii.gz" else raw)
    with pytest.raises(UserError, match=what):
        read_nifti(path)


def test_four_axes_are_refused_with_a_fix(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(noise(0, 4, 4, 4, 3), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(UserError, match="4-D image") as error:
        read_header(tmp_path / "a.nii")
    assert "3-D file" in str(error.value.fix)
    nib.save(nib.Nifti1Image(noise(0, 4, 4, 4, 1), np.eye(4)), tmp_path / "b.nii")
    assert read_header(tmp_path / "b.nii").shape == (4, 4, 4)


def test_a_damaged_gzip_is_told_wherever_it_was_struck(tmp_path: Path) -> None:
    """Also where the damaged bytes still unpack to as many others: only the check at the end of the stream tells."""
    nib.save(nib.Nifti1Image(noise(0, 9, 9, 9), np.eye(4)), tmp_path / "whole.nii")
    packed = gzip.compress((tmp_path / "whole.nii").read_bytes())
    for place in range(250, len(packed) - 8, 37):
        (tmp_path / "a.nii.gz").write_bytes(packed[:place] + bytes([packed[place] ^ 16]) + packed[place + 1 :])
        with pytest.raises(UserError, match=r"broken gzip stream|truncated"):
            read_nifti(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("behind", [b"", b"\0" * 512, b"padding"])
def test_what_lies_behind_a_gzip_stream_does_not_matter(tmp_path: Path, behind: bytes) -> None:
    nib.save(nib.Nifti1Image(noise(0, 9, 9, 9), np.eye(4)), tmp_path / "whole.nii")
    (tmp_path / "a.nii.gz").write_bytes(
        gzip.compress((tmp_path / "whole.nii").read_bytes() + b"extra"[: len(behind)]) + behind
    )
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz").array[0], noise(0, 9, 9, 9))
