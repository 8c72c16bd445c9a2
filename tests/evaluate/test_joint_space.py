"""Each measure against its formula, written out pair by pair in float64."""

import json
import math

import numpy as np
import pytest

from medssl.evaluate.joint_space import alignment, gap, joint, pair_cosine, separability, true_pairs, uniformity
from medssl.evaluate.retrieval import Samples
from medssl.rng import stream


def drawn(n: int, d: int = 5, seed: int = 0) -> np.ndarray:
    return stream(seed, "z").normal(size=(n, d))


def direction(z: np.ndarray) -> list[float]:
    length = math.sqrt(sum(float(v) ** 2 for v in z))
    return [float(v) / length for v in z]


def test_against_the_formulas_pair_by_pair() -> None:
    a, b = drawn(7), drawn(7, seed=1)
    u, v = [direction(z) for z in a], [direction(z) for z in b]
    centre = [[sum(z[k] for z in side) / 7 for k in range(5)] for side in (u, v)]
    assert gap(a, b) == pytest.approx(math.dist(*centre), rel=1e-12)
    cosines = [sum(x * y for x, y in zip(p, q, strict=True)) for p, q in zip(u, v, strict=True)]
    assert pair_cosine(a, b) == pytest.approx(sum(cosines) / 7, rel=1e-12)
    assert alignment(a, b) == pytest.approx(sum(math.dist(p, q) ** 2 for p, q in zip(u, v, strict=True)) / 7, rel=1e-12)
    pairs = [math.exp(-2 * math.dist(u[i], u[j]) ** 2) for i in range(7) for j in range(i)]
    assert uniformity(a) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-12)


def test_invariances_and_ends_of_the_scales() -> None:
    a, b = drawn(9), drawn(9, seed=1)
    turn, _ = np.linalg.qr(drawn(5, seed=2))
    for measure in (gap, pair_cosine, alignment):
        assert measure(3 * a @ turn, b @ turn) == pytest.approx(measure(a, b))
    assert alignment(a, b) == pytest.approx(2 - 2 * pair_cosine(a, b))
    assert (gap(a, a), pair_cosine(a, 2 * a), alignment(a, a)) == (0, pytest.approx(1), 0)
    assert uniformity(np.ones((6, 5))) == pytest.approx(0, abs=1e-12) and math.isnan(uniformity(a[:1]))
    assert uniformity(a) < uniformity(a + 4)


def samples(z: np.ndarray, subject=None) -> Samples:
    subject = np.arange(len(z)) if subject is None else np.asarray(subject)
    return Samples(z, subject, subject)


def test_modalities_apart_are_told_apart_and_mixed_ones_are_not() -> None:
    z = drawn(120)
    apart = [samples(z), samples(z + 6)]
    mixed = [samples(z), samples(drawn(120, seed=5))]
    assert separability(apart) > 0.9
    assert separability(mixed) == pytest.approx(0.5, abs=0.15)
    assert math.isnan(separability([samples(z[:1]), samples(z[:1])]))


def test_the_whole_table_names_every_pair_and_is_json() -> None:
    z = drawn(30)
    parts = {"CT": samples(z), "MR": samples(z[:20]), "text": samples(z[5:9] + 3, np.arange(100, 104))}
    table = joint(parts)
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    assert [p["modalities"] for p in table["pairs"]] == [["CT", "MR"], ["CT", "text"], ["MR", "text"]]
    assert [p["pairs"] for p in table["pairs"]] == [20, 0, 0] and "pair_cosine" not in table["pairs"][1]
    assert table["pairs"][0]["pair_cosine"] == pytest.approx(1)
    assert table["separability_chance"] == pytest.approx(1 / 3) and set(table["modalities"]) == set(parts)
    assert joint({"CT": parts["CT"]})["separability"] is None


def test_true_pairs_are_all_samples_of_one_subject() -> None:
    i, j = true_pairs(samples(drawn(3), [4, 5, 5]), samples(drawn(3), [5, 6, 4]))
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 2), (1, 0), (2, 0)]
