"""One contract for every format: the same phantom goes in, the same numbers at the same places come out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medssl.data.catalog import load_index
from medssl.data.readers import read_mask, read_volume
from medssl.errors import UserError
from medssl.volume import Volume
from scan_files import index, noise, write_nifti, write_slice

VOLUME = noise(7, 12, 11, 10)  # x, y, z
IMAGE = (noise(8, 13, 17) % 256).astype(np.uint8)
LPS = np.diag([-0.5, -0.8, 2.0, 1.0])


def as_itk(path: Path) -> None:
    image = sitk.GetImageFromArray(VOLUME.transpose(2, 1, 0))
    image.SetSpacing((0.5, 0.8, 2.0))
    sitk.WriteImage(image, str(path))


def as_series(path: Path) -> None:
    for k, pixels in enumerate(VOLUME.transpose(2, 1, 0)):
        write_slice(path / f"{k}", pixels, ImagePositionPatient=[0, 0, 2.0 * k], InstanceNumber=k)


def as_npz(path: Path) -> None:
    images = np.stack([IMAGE, IMAGE.T[:13].repeat(2, axis=1)[:, :17]])
    np.savez_compressed(path, train_images=images[:1], test_images=images[1:], train_labels=[[1]], test_labels=[[0]])


VOLUMES: dict[str, Callable[[Path], None]] = {
    "a.nii": lambda path: write_nifti(path, VOLUME, LPS) and None,
    "a.nii.gz": lambda path: write_nifti(path, VOLUME, LPS) and None,
    "a.nrrd": as_itk,
    "a.mha": as_itk,
    "a.mhd": as_itk,
    "series": as_series,
}
IMAGES: dict[str, Callable[[Path], None]] = {
    "a.png": lambda path: Image.fromarray(IMAGE).save(path),
    "a.tif": lambda path: Image.fromarray(IMAGE).save(path),
    "a.bmp": lambda path: Image.fromarray(IMAGE).save(path),
    "rgb.png": lambda path: Image.fromarray(IMAGE).convert("RGB").save(path),
    "a.npz": as_npz,
    "a.dcm": lambda path: write_slice(path, IMAGE, drop=("PixelSpacing",), Modality="OT") and None,
}


def first(scans: Path, out: Path) -> tuple[dict, Volume]:
    index(scans, out)
    row = load_index(out).to_dicts()[0]
    return row, read_volume(row, scans)


@pytest.mark.parametrize("name", VOLUMES)
def test_a_volume_has_its_values_and_its_place(tmp_path: Path, name: str) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    VOLUMES[name](scans / name)
    row, volume = first(scans, tmp_path / "out")
    np.testing.assert_array_equal(volume.array, VOLUME[None])
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.affine, LPS, atol=1e-6)
    assert (row["dims"], row["channels"], row["shape"]) == (3, 1, [12, 11, 10])
    np.testing.assert_allclose(row["spacing_mm"], [0.5, 0.8, 2.0])
    assert row["orientation"] == "LPS"
    assert (row["min"], row["max"]) == (VOLUME.min(), VOLUME.max())


def test_every_format_gives_one_hash(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name, write in VOLUMES.items():
        write(scans / name)
    frame, _ = index(scans, tmp_path / "out")
    assert len(frame) == len(VOLUMES)
    assert frame["hash"].n_unique() == 1
    assert frame["split"].n_unique() == 1


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_its_values(tmp_path: Path, name: str) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    IMAGES[name](scans / name)
    row, volume = first(scans, tmp_path / "out")
    np.testing.assert_array_equal(volume.array, IMAGE[None])
    np.testing.assert_array_equal(volume.affine, np.eye(4))
    assert (row["dims"], row["channels"], row["shape"]) == (2, 1, [13, 17])
    assert row["spacing_mm"] is None
    assert row["orientation"] == ""


@pytest.mark.parametrize(("axis", "letters"), [(2, "PL"), (1, "IL"), (0, "IP")])
def test_one_slice_is_an_image_shown_as_radiology_does(tmp_path: Path, axis: int, letters: str) -> None:
    array = VOLUME.take([0], axis=axis)
    write_nifti(tmp_path / "scans" / "a.nii", array, np.diag([1.0, 2.0, 3.0, 1.0]))
    row, volume = first(tmp_path / "scans", tmp_path / "out")
    wanted = array.squeeze(axis).T[::-1, ::-1]
    np.testing.assert_array_equal(volume.array[0], wanted)
    assert row["orientation"] == letters
    rest = [k for k in (0, 1, 2) if k != axis]
    corner = np.zeros(3)
    corner[rest] = [(array.shape[k] - 1) * (k + 1.0) for k in rest]
    np.testing.assert_allclose(volume.affine[:3, 3], corner)


def test_colours_stay_three_channels(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    colour = np.random.default_rng(0).integers(0, 255, (12, 13, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "scans" / "a.png")
    row, volume = first(tmp_path / "scans", tmp_path / "out")
    np.testing.assert_array_equal(volume.array, colour.transpose(2, 0, 1))
    assert (row["channels"], row["dtype"]) == (3, "uint8")


def test_medmnist_rows_keep_split_and_labels(tmp_path: Path) -> None:
    scans, rng = tmp_path / "scans", np.random.default_rng(0)
    scans.mkdir()
    arrays = {f"{s}_images": rng.integers(0, 255, (n, 9, 10, 11), np.uint8) for s, n in [("train", 3), ("val", 2)]}
    arrays |= {"train_labels": rng.integers(0, 2, (3, 2)), "val_labels": rng.integers(0, 2, (2, 2))}
    np.savez(scans / "a.npz", **arrays)
    frame, _ = index(scans, tmp_path / "out")
    assert frame["split"].to_list() == ["train"] * 3 + ["val"] * 2
    assert frame["label.label_1"].to_list() == [
        str(v) for v in (*arrays["train_labels"][:, 1], *arrays["val_labels"][:, 1])
    ]
    assert frame["patient"].n_unique() == 5
    volume = read_volume(frame.to_dicts()[4], scans)
    np.testing.assert_array_equal(volume.array[0], arrays["val_images"][1].transpose(2, 1, 0))
    assert "voxel size" in frame["problems"][0]


def test_masks_follow_the_axes_of_their_image(tmp_path: Path) -> None:
    """A DICOM series and a mask that another program saved with its rows turned round."""
    scans, labels = tmp_path / "scans", (VOLUME > 0).astype(np.uint8)
    as_series(scans / "series")
    turned = LPS.copy()
    turned[1, 1], turned[1, 3] = 0.8, -0.8 * 10
    write_nifti(scans / "m.nii.gz", labels[:, ::-1], turned)
    (scans / "labels.csv").write_text("path,mask_path\nseries,m.nii.gz\n")
    frame, problems = index(scans, tmp_path / "out")
    row = frame.to_dicts()[0]
    mask = read_mask(row, scans)
    assert mask is not None
    np.testing.assert_array_equal(mask.array[0], labels)
    assert row["mask_path"] == "m.nii.gz"
    assert len(frame) == 1
    assert problems == {}


def test_a_row_whose_file_is_gone_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="file not found"):
        read_volume({"reader": "nifti", "files": ["gone.nii"]}, tmp_path)
    with pytest.raises(UserError, match="mask not found"):
        read_mask({"reader": "nifti", "files": ["a.nii"], "mask_path": "gone.nii"}, tmp_path)
    assert read_mask({"mask_path": None}, tmp_path) is None


def test_medmnist_without_the_images_of_a_split_gives_the_others(tmp_path: Path) -> None:
    scans, rng = tmp_path / "scans", np.random.default_rng(0)
    scans.mkdir()
    arrays = {"train_images": rng.integers(0, 255, (4, 28, 28), np.uint8), "train_labels": np.arange(4)[:, None] % 2}
    hidden = {"val_images": np.zeros((0, 28, 28), np.uint8), "val_labels": np.zeros((0, 1)), "test_labels": np.ones(3)}
    np.savez(scans / "a.npz", **arrays, **hidden)
    frame, _ = index(scans, tmp_path / "out")
    assert frame["label.label"].to_list() == ["0", "1", "0", "1"]
    np.savez(scans / "a.npz", **arrays | {"train_labels": np.ones(8)})  # never two labels an image
    with pytest.raises(UserError, match="no usable scan"):
        index(scans, tmp_path / "out")


def test_a_palette_of_colours_only_shows_the_labels_of_a_mask(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (9, 8), np.uint8)
    for name, palette, there in (("c", [0, 0, 0, 128, 0, 0, 0, 128, 0], labels), ("g", [0] * 3 + [9] * 6, labels > 0)):
        image = Image.fromarray(labels)
        image.putpalette(palette)
        image.save(tmp_path / f"{name}.png")
        row = {"mask_path": f"{name}.png", "shape": (9, 8), "affine": np.eye(4).ravel()}
        mask = read_mask(row, tmp_path)
        assert mask is not None
        np.testing.assert_array_equal(mask.array[0], there * (1 if name == "c" else 9))
