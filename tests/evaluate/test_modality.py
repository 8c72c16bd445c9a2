"""Brightness that gives the modality away, or does not; and modalities that come from the index, never from a path."""

from pathlib import Path

import numpy as np
import pytest

from medssl.data.store import Store
from medssl.evaluate.modality import by_mean_intensity
from medssl.evaluate.probe import split_patients
from scans import two_modalities


def accuracy(store: Store) -> float | None:
    split = split_patients(store.items["patient"].to_list(), 0)
    return by_mean_intensity(store, range(len(store)), split, (48, 48))


def test_modalities_are_those_of_the_index_and_brightness_tells_them_apart(tmp_path: Path) -> None:
    # Published code: guessed from the whole path, so that t1ce and the folder dataset1 became t1.
    kinds = [("CR", "PT")[i % 2] for i in range(20)]
    store = Store(two_modalities(tmp_path, kinds))
    assert store.modality_names == ("CR", "PT")
    assert [store.modality_names[code] for code in store.modalities] == kinds
    assert accuracy(store) == 1.0


def test_what_brightness_does_not_know_is_a_guess(tmp_path: Path) -> None:
    kinds = [("CR", "PT")[i // 2 % 2] for i in range(40)]  # both modalities have as many large discs
    assert 0.2 < (accuracy(Store(two_modalities(tmp_path, kinds))) or 0) < 0.8


def test_one_modality_has_nothing_to_tell_apart(tmp_path: Path) -> None:
    store = Store(two_modalities(tmp_path, ["CR"] * 8))
    assert accuracy(store) is None


@pytest.mark.parametrize("count", [3, 17])
def test_the_number_is_the_share_of_right_guesses(tmp_path: Path, count: int) -> None:
    kinds = [("CR", "PT")[i // 3 % 2] for i in range(24)]
    store = Store(two_modalities(tmp_path, kinds))
    split = split_patients(store.items["patient"].to_list(), count)
    means = [store.normalised(row).mean() for row in range(len(store))]
    right: dict[int, list[bool]] = {0: [], 1: []}
    for row in split.score:
        nearest = min(split.fit, key=lambda other: abs(means[other] - means[row]))
        right[int(store.modalities[row])].append(store.modalities[nearest] == store.modalities[row])
    expected = np.mean([np.mean(found) for found in right.values()])
    assert by_mean_intensity(store, range(24), split, (48, 48)) == pytest.approx(expected)
