"""An array file gives back what went in, by box, with its description; also where blosc2 fails."""

from pathlib import Path

import numpy as np
import pytest

from medssl.data import arrays
from medssl.rng import stream

SHAPES = [(1, 40, 33, 70), (3, 50, 20), (17, 9, 5), (300, 4), (1, 1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_what_goes_in_comes_out(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    array = stream(0, "array").integers(0, 255, shape).astype(dtype)
    file = arrays.save(tmp_path / "a", array, {"stamp": "x"})
    assert file.name == "a.b2nd"
    opened = arrays.load(tmp_path / "a")
    np.testing.assert_array_equal(opened[:], array)
    box = tuple(slice(n // 3, n) for n in shape)
    np.testing.assert_array_equal(opened[box], array[box])
    assert arrays.describe(tmp_path / "a") == {"stamp": "x"}


def test_npy_stands_in_where_blosc2_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such codec")

    array = np.arange(60, dtype=np.int16).reshape(1, 5, 12)
    arrays.save(tmp_path / "a", array + 1, {"stamp": "old"})
    monkeypatch.setattr("blosc2.asarray", fail)
    assert arrays.save(tmp_path / "a", array, {"stamp": "y"}).name == "a.npy"
    np.testing.assert_array_equal(arrays.load(tmp_path / "a")[:, 1:3], array[:, 1:3])
    assert arrays.describe(tmp_path / "a") == {"stamp": "y"}
    assert not (tmp_path / "a.b2nd").exists()


def test_a_torn_file_counts_as_absent(tmp_path: Path) -> None:
    file = arrays.save(tmp_path / "a", np.zeros((1, 64, 64), np.int16), {"stamp": "x"})
    file.write_bytes(file.read_bytes()[:100])
    assert arrays.describe(tmp_path / "a") is None
    assert arrays.describe(tmp_path / "b") is None


def test_a_crop_reads_little_of_the_file(tmp_path: Path) -> None:
    """Blocks of 32 × 32 × 64: a crop of 64 × 64 × 32 touches at most 18 of them, of 288."""
    arrays.save(tmp_path / "a", stream(0, "noise").integers(-999, 999, (1, 192, 192, 512)).astype(np.int16), {})
    opened = arrays.load(tmp_path / "a")
    assert opened.blocks == (1, 32, 32, 32)
    assert opened.dparams.nthreads == 1
