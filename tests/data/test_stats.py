"""Statistics of known values; a hash that equal voxels share and others do not."""

import numpy as np

from medssl.data.stats import content_hash, foreground_low, statistics


def test_statistics_of_a_ct_see_tissue_only() -> None:
    ct = np.full((1, 20, 20, 20), -1000, np.int16)
    ct[0, 5:15, 5:15, 5:15] = np.random.default_rng(0).normal(40, 10, (10, 10, 10))
    found = statistics(ct, "CT")
    assert found["foreground_low"] == -500
    assert abs(found["foreground_mean"] - 40) < 1
    assert abs(found["foreground_std"] - 10) < 1
    assert (found["min"], found["p01"]) == (-1000, -1000)
    np.testing.assert_allclose([found["mean"], found["std"]], [ct.mean(), ct.std()])


def test_foreground_of_a_volume_survives_noise_and_bright_outliers() -> None:
    rng = np.random.default_rng(0)
    mr = np.abs(rng.normal(0, 5, (1, 30, 30, 30))).astype(np.float32)
    mr[0, 8:22, 8:22, 8:22] = rng.normal(300, 40, (14, 14, 14))
    mr[0, 0, 0, 0] = 1e6
    low = foreground_low(mr, "MR")
    assert (mr[0, 8:22, 8:22, 8:22] > low).mean() > 0.99
    assert (mr > low).mean() < 0.2


def test_an_image_is_foreground_but_for_its_black_border() -> None:
    image = np.zeros((1, 20, 20), np.uint8)
    image[:, 2:-2, 2:-2] = 90
    found = statistics(image, "DX")
    assert found["foreground_mean"] == found["foreground_p005"] == 90


def test_a_hash_depends_on_values_and_shape_only() -> None:
    array = np.arange(24, dtype=np.int16).reshape(1, 4, 6)
    assert content_hash(array) == content_hash(array.astype(np.float32)) == content_hash(array[:, ::-1][:, ::-1])
    assert content_hash(array) != content_hash(array.reshape(1, 6, 4))
    assert content_hash(array) != content_hash(array + 1)
