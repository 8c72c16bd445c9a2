"""Metrics against naive references that count pairs, voxels and distances one by one, and against trusted libraries."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from scipy.ndimage import binary_erosion
from sklearn import metrics as sklearn

from medssl.evaluate.metrics import auc, classification, dice, hd95, mean_over_items, per_class_auc, segmentation

nan = math.nan


def pairs(score: np.ndarray, truth: np.ndarray) -> float:
    won = [1.0 if p > n else 0.5 if p == n else 0.0 for p in score[truth == 1] for n in score[truth == 0]]
    return sum(won) / len(won)


def surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(p) for p in np.argwhere(mask & ~binary_erosion(mask))]


def naive_hd95(a: np.ndarray, b: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    def directed(x: np.ndarray, y: np.ndarray) -> float:
        far = [min(math.dist(*(np.multiply(s, spacing_mm) for s in (p, q))) for q in surface(y)) for p in surface(x)]
        return float(np.percentile(far, 95))

    return max(directed(a, b), directed(b, a))


def one_hot(classes: np.ndarray, k: int) -> np.ndarray:
    return np.eye(k)[classes]


@pytest.mark.parametrize("digits", [1, 6])
def test_auc_counts_pairs_with_ties_as_half(digits: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60).astype(float)
    score = (rng.random(60) + 0.3 * truth).round(digits)
    assert auc(score, truth) == pytest.approx(pairs(score, truth), abs=1e-12)
    assert auc(score, truth) == pytest.approx(sklearn.roc_auc_score(truth, score), abs=1e-12)


def test_auc_leaves_out_what_is_unknown_and_is_nan_without_both_sides() -> None:
    score, truth = np.array([0.1, 0.9, 0.4, 0.6]), np.array([0, 1, nan, 1])
    assert auc(score, truth) == auc(score[[0, 1, 3]], truth[[0, 1, 3]]) == 1.0
    assert math.isnan(auc(score, np.array([1, 1, nan, 1])))


@pytest.mark.parametrize("k", [2, 4])
def test_one_of_k_agrees_with_sklearn(k: int) -> None:
    rng = np.random.default_rng(k)
    right = rng.integers(0, k, 80)
    prob = rng.dirichlet(np.ones(k), 80) + 0.3 * one_hot(right, k)
    prob /= prob.sum(1, keepdims=True)
    found = classification(prob, one_hot(right, k), "one")
    chosen = prob.argmax(1)
    expected_auc = (
        sklearn.roc_auc_score(right, prob[:, 1])
        if k == 2
        else sklearn.roc_auc_score(right, prob, multi_class="ovr", average="macro")
    )
    assert found["auc"] == pytest.approx(expected_auc, abs=1e-12)
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(right, chosen))
    assert found["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(right, chosen))
    expected_f1 = sklearn.f1_score(right, chosen, average="binary" if k == 2 else "macro")
    assert found["f1"] == pytest.approx(expected_f1)


def test_many_of_k_is_the_mean_of_binary_tasks_on_known_cells() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, (50, 3)).astype(float)
    prob = (rng.random((50, 3)) + 0.4 * truth) / 1.4
    truth[rng.random((50, 3)) < 0.2] = nan
    found = classification(prob, truth, "many")
    known = [(p[~np.isnan(t)], t[~np.isnan(t)]) for p, t in zip(prob.T, truth.T, strict=True)]
    assert found["auc"] == pytest.approx(np.mean([sklearn.roc_auc_score(t, p) for p, t in known]))
    assert found["accuracy"] == pytest.approx(np.mean([sklearn.accuracy_score(t, p >= 0.5) for p, t in known]))
    assert found["balanced_accuracy"] == pytest.approx(
        np.mean([sklearn.balanced_accuracy_score(t, p >= 0.5) for p, t in known])
    )
    assert found["f1"] == pytest.approx(np.mean([sklearn.f1_score(t, p >= 0.5) for p, t in known]))


def test_unknown_rows_count_as_absent() -> None:
    rng = np.random.default_rng(2)
    truth, prob = one_hot(rng.integers(0, 3, 20), 3), rng.dirichlet(np.ones(3), 20)
    masked = truth.copy()
    masked[::4] = nan
    kept = np.arange(20) % 4 != 0
    assert classification(prob, masked, "one") == classification(prob[kept], truth[kept], "one")


def test_a_class_that_never_occurs_is_left_out_of_the_mean() -> None:
    prob = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    truth = one_hot(np.array([0, 1, 0]), 3)
    assert classification(prob, truth, "one") == {"auc": 1.0, "accuracy": 1.0, "balanced_accuracy": 1.0, "f1": 1.0}
    assert math.isnan(per_class_auc(prob, truth)[2])


def test_order_of_items_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    truth, prob = one_hot(rng.integers(0, 3, 40), 3), rng.dirichlet(np.ones(3), 40)
    order = rng.permutation(40)
    assert classification(prob, truth, "one") == pytest.approx(classification(prob[order], truth[order], "one"))


def test_dice_counts_voxels_as_sets_do_and_as_monai_does() -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.random((6, 7, 5)) < p for p in (0.4, 0.3))
    sets = [set(map(tuple, np.argwhere(m))) for m in (a, b)]
    assert dice(a, b) == 2 * len(sets[0] & sets[1]) / (len(sets[0]) + len(sets[1]))
    theirs = DiceMetric(include_background=True)(*(torch.from_numpy(m[None, None]).float() for m in (a, b)))
    assert dice(a, b) == pytest.approx(theirs.item(), abs=1e-6)


def test_dice_of_nothing_says_nothing_and_an_invention_scores_zero() -> None:
    empty, some = np.zeros((4, 4), bool), np.eye(4, dtype=bool)
    assert math.isnan(dice(empty, empty))
    assert dice(some, empty) == dice(empty, some) == 0.0


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
@pytest.mark.parametrize("seed", range(3))
def test_hd95_is_the_brute_force_distance_between_surfaces(spacing_mm: tuple[float, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = np.array(list(product(range(9), range(8), range(7)))).reshape(9, 8, 7, 3)
    a, b = (((grid - rng.uniform(3, 5, 3)) ** 2).sum(-1) < r**2 for r in (2.5, 3.0))
    assert hd95(a, b, spacing_mm) == pytest.approx(naive_hd95(a, b, spacing_mm), abs=1e-5)


def test_hd95_in_two_dimensions_and_mm() -> None:
    a = np.zeros((20, 20), bool)
    b = a.copy()
    a[5, 5], b[5, 12] = True, True
    assert hd95(a, b, (1.0, 0.5)) == pytest.approx(3.5)


def test_hd95_of_a_mask_that_touches_the_border() -> None:
    a, b = np.ones((6, 6), bool), np.ones((6, 6), bool)
    b[:, 3:] = False
    assert hd95(a, b, (1.0, 1.0)) == pytest.approx(3.0)
    assert math.isnan(hd95(a, np.zeros_like(a), (1.0, 1.0)))


def test_a_shift_of_a_box_is_its_distance() -> None:
    a, b = np.zeros((16, 16, 16), bool), np.zeros((16, 16, 16), bool)
    a[4:9, 4:9, 4:9], b[6:11, 4:9, 4:9] = True, True
    assert hd95(a, b, (2.0, 1.0, 1.0)) == pytest.approx(4.0)


def test_segmentation_scores_each_structure_by_its_value() -> None:
    truth = np.zeros((8, 8), int)
    truth[:4], truth[4:6] = 7, 2
    pred = np.where(truth == 2, 0, truth)
    found = segmentation(pred, truth, (2, 7, 9), (1.0, 1.0))
    assert found["dice"][:2] == [0.0, 1.0]
    assert math.isnan(found["dice"][2])
    assert math.isnan(found["hd95"][0])
    assert found["hd95"][1] == 0.0


def test_the_mean_over_items_weighs_items_alike_whatever_they_hold() -> None:
    assert mean_over_items(np.array([[1.0, 0.0], [nan, 1.0], [nan, nan]])) == 0.75
