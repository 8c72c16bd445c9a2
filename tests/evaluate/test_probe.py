"""Probes and collapse metrics against sets whose answer is known."""

import numpy as np
import pytest

from medssl.evaluate import collapse
from medssl.evaluate.probe import Split, balanced_accuracy, knn, linear, probe, split_patients
from medssl.rng import stream

RNG = stream(0, "test probe")


def clusters(per_class: int = 40, d: int = 16, distance: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    classes = np.repeat([0, 1, 2], per_class)
    centres = stream(1, "centres").normal(size=(3, d)) * distance
    return centres[classes] + stream(2, "spread").normal(size=(len(classes), d)), classes.astype(float)


# Probes --------------------------------------------------------------------------------------------------------------


def test_no_patient_is_on_both_sides():
    patients = [f"p{i // 3}" for i in range(60)]
    split = split_patients(patients, seed=0)
    names = np.array(patients)
    assert not set(names[split.fit]) & set(names[split.score])
    assert sorted([*split.fit, *split.score]) == list(range(60))
    assert len(set(names[split.score])) == 6


def test_the_split_follows_the_seed():
    patients = list(map(str, range(50)))
    same, other = split_patients(patients, 0), split_patients(patients, 1)
    assert split_patients(patients, 0).score.tolist() == same.score.tolist() != other.score.tolist()


def test_separate_classes_are_found_and_noise_is_not():
    features, classes = clusters()
    split = split_patients(range(len(classes)), 0)
    found = probe(features, classes[:, None], split)
    assert found["probe.knn"] > 0.95
    assert found["probe.linear"] > 0.95
    guessed = probe(features, stream(3, "shuffle").permutation(classes)[:, None], split)
    assert all(0.05 < score < 0.65 for score in guessed.values())  # 1/3 by chance


def test_a_rare_class_is_not_outvoted():
    """30 of one class, 3 of the other, well apart: the vote goes by rarity, not by number."""
    features = np.concatenate([np.eye(4)[0] + 0.05 * RNG.normal(size=(30, 4)), np.eye(4)[1] + np.zeros((3, 4))])
    classes = np.repeat([0, 1], [30, 3])
    assert knn(features, classes, np.eye(4)[[0, 1]], k=10).tolist() == [0, 1]


def test_knn_equals_a_naive_search():
    features, classes = clusters(per_class=10)
    asked = features[::4] + 0.1
    centred, around = features - features.mean(0), asked - features.mean(0)
    naive = []
    for query in around:
        cosine = [float(query @ x / np.linalg.norm(query) / np.linalg.norm(x)) for x in centred]
        nearest = sorted(range(len(cosine)), key=lambda i: -cosine[i])[:5]
        votes = {c: sum((1 + cosine[i]) / 10 for i in nearest if classes[i] == c) for c in set(classes)}
        naive.append(max(sorted(votes), key=votes.__getitem__))
    assert knn(features, classes, asked, k=5).tolist() == naive


def test_linear_needs_no_scaling():
    features, classes = clusters()
    stretched = features * np.logspace(-3, 3, features.shape[1]) + 100
    assert (linear(stretched, classes, stretched) == classes).mean() > 0.95


def test_missing_labels_are_left_out_and_columns_averaged():
    features, classes = clusters()
    truth = np.stack([classes == 0, np.where(classes == 1, np.nan, classes == 2)], axis=1).astype(float)
    truth[np.isnan(truth).any(1), 1] = np.nan
    assert probe(features, truth, split_patients(range(len(classes)), 0))["probe.knn"] > 0.95


def test_a_column_one_side_knows_one_class_of_gives_no_metric():
    features = RNG.normal(size=(10, 4))
    truth = np.r_[np.zeros(7), np.ones(3)][:, None]
    assert probe(features, truth, Split(np.arange(7), np.arange(7, 10))) == {}


def test_balanced_accuracy_weighs_classes_equally():
    truth, said = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 2, 1, 0])
    assert balanced_accuracy(truth, said) == pytest.approx((0.75 + 0.5) / 2)


# Collapse ------------------------------------------------------------------------------------------------------------


def test_effective_rank_of_known_spectra():
    basis = np.linalg.qr(RNG.normal(size=(200, 8)) - 0)[0]
    basis -= basis.mean(0)
    basis = np.linalg.qr(basis)[0]  # orthonormal columns of mean zero
    assert collapse.effective_rank(basis) == pytest.approx(8, rel=1e-6)
    assert collapse.effective_rank(basis[:, :1] @ np.ones((1, 8))) == pytest.approx(1, rel=1e-6)
    two = basis[:, :2] * [3.0, 1.0]
    share = np.array([0.75, 0.25])
    assert collapse.effective_rank(two) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)


def test_effective_rank_ignores_what_all_images_share():
    features = RNG.normal(size=(50, 6))
    assert collapse.effective_rank(features + 1000) == pytest.approx(collapse.effective_rank(features), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_equal_features_have_rank_and_spread_zero(scale):
    features = np.full((20, 8), scale, dtype=np.float32)
    assert collapse.collapse_metrics(features) == {
        "effective_rank": 0.0,
        "feature_std": pytest.approx(0.0, abs=1e-6),
    }


def test_spread_is_one_for_random_directions():
    assert collapse.feature_std(RNG.normal(size=(2000, 64))) == pytest.approx(1.0, abs=0.02)


def test_a_warning_says_what_why_and_what_to_do():
    fine = {"effective_rank": 20.0, "feature_std": 0.3}
    assert collapse.warning(fine, fine) is None
    gone = collapse.warning({"effective_rank": 20.0, "feature_std": 0.01}, fine)
    assert gone is not None
    assert all(word in gone for word in ("0.3 → 0.01", "collapsing", "learning rate", "lower --lr"))
    fading = collapse.warning({"effective_rank": 3.0, "feature_std": 0.3}, fine)
    assert fading is not None
    assert all(word in fading for word in ("20.0 → 3.0", "fewer directions", "lower --lr"))
    assert collapse.warning({}, fine) is None
