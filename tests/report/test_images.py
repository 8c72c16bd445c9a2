"""Pictures show what the arrays hold."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from medssl.report.images import picture, slice_of


def decoded(address: str) -> np.ndarray:
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def test_the_range_maps_to_black_and_white():
    image = np.full((1, 128, 128), 0.5)
    image[0, :64, :64], image[0, 64:, 64:] = -1.0, 3.0
    shown = decoded(picture(image, (0, 1)))
    assert shown.shape == (128, 128, 3)
    assert (shown[:60, :60] == 0).all() and (shown[70:, 70:] == 255).all() and (abs(shown[70:, :60] - 127.5) < 1).all()


def test_a_mask_is_tinted_inside_outlined_and_leaves_the_rest():
    image, mask = np.full((1, 128, 128), 0.5), np.zeros((128, 128), int)
    mask[32:64, 32:64] = 1
    plain, shown = decoded(picture(image, (0, 1))), decoded(picture(image, (0, 1), mask))
    changed = (plain != shown).any(-1)
    assert (changed == (mask == 1)).all()
    assert abs(shown[32, 40] - shown[48, 48]).max() > 20, "the outline differs from the inside"


def test_colour_stays_and_nan_is_no_crash():
    image = np.zeros((3, 128, 128))
    image[0] = 1.0
    image[1, 0, 0] = np.nan
    assert (decoded(picture(image, (0, 1)))[5, 5] == (255, 0, 0)).all()


@pytest.mark.parametrize(("shape", "size"), [((128, 64), (128, 64)), ((8, 16), (48, 96)), ((1024, 512), (256, 128))])
def test_pictures_keep_their_proportions_within_bounds(shape, size):
    assert decoded(picture(np.random.default_rng(0).random((1, *shape)))).shape[:2] == size


def test_a_volume_shows_the_slice_with_most_of_the_mask_front_up():
    volume, mask = np.zeros((1, 6, 8, 5)), np.zeros((6, 8, 5), int)
    mask[:, :, 1], mask[0, 0, 3] = 1, 1
    volume[0, 5, 7, 1] = 1.0  # right front
    flat, cut = slice_of(volume, mask)
    assert flat.shape == (1, 8, 6) and cut.sum() == 48
    assert flat[0, 0, 0] == 1.0, "the patient's right is at the left of the picture, the front is up"
