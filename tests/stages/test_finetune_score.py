"""Which validation wins."""

import math

import numpy as np

from medssl.stages.finetune_score import Score, _best_slice, _cut, _over_patients


def score(value: float, loss: float = 0.0) -> Score:
    return Score({}, value, loss)


def test_the_metric_decides_then_the_loss_then_the_earlier_step() -> None:
    assert score(0.8, 9.0).better_than(score(0.7, 0.1))
    assert score(0.8, 0.1).better_than(score(0.8, 0.2))
    assert not score(0.8, 0.2).better_than(score(0.8, 0.2))


def test_a_metric_that_cannot_be_told_is_the_worst_and_leaves_it_to_the_loss() -> None:
    assert not score(math.nan, 0.0).better_than(score(0.1, 9.0))
    assert score(0.0, 9.0).better_than(score(math.nan, 0.1))
    assert score(math.nan, 0.1).better_than(score(math.nan, 0.2))


def test_the_slice_shown_holds_all_structures_rather_than_most_of_the_largest() -> None:
    mask = np.zeros((6, 6, 5), np.uint8)
    mask[:, :, 1] = 1  # the largest cut of structure 1 alone
    mask[:5, :5, 3], mask[5, 5, 3] = 1, 2
    assert _best_slice(mask) == 3
    assert _best_slice(np.zeros((4, 4, 7), np.uint8)) == 3 and _best_slice(mask[..., 0]) is None


def test_slices_lie_as_radiologists_look_at_them() -> None:
    volume = np.arange(2 * 3 * 1).reshape(2, 3, 1)  # axes to the right, to the front, upwards
    shown = _cut(volume, 0)
    assert shown[0, 0] == volume[1, 2, 0], "top left: the patient's right front"


def test_a_patient_counts_once_however_many_scans_there_are() -> None:
    dice = np.array([[0.9], [0.9], [0.9], [0.1], [np.nan]])
    assert math.isclose(_over_patients(dice, [0, 0, 0, 1, 1]), 0.5)
    assert math.isnan(_over_patients(np.full((2, 1), np.nan), [0, 1]))
