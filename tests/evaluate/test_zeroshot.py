import math

import numpy as np
import pytest

from medssl.evaluate.zeroshot import class_vectors, probabilities, prompts_of, scores
from medssl.rng import stream


def test_prompts_name_the_class_in_every_template() -> None:
    assert prompts_of(["lung_nodule"], ["{}.", "There is {}."]) == {
        "lung_nodule": ["lung nodule.", "There is lung nodule."]
    }


def test_against_the_formula_number_by_number() -> None:
    rng = stream(0, "prompts")
    prompts, images = [rng.normal(size=(3, 4)), rng.normal(size=(1, 4))], rng.normal(size=(5, 4))
    vectors = []
    for texts in prompts:
        mean = [sum(t[k] / math.hypot(*t) for t in texts) / len(texts) for k in range(4)]
        vectors.append([x / math.hypot(*mean) for x in mean])
    assert class_vectors(prompts) == pytest.approx(np.array(vectors), rel=1e-12)
    found = probabilities(images, class_vectors(prompts), 0.2)
    for image, row in zip(images, found, strict=True):
        weights = [
            math.exp(sum(x * y for x, y in zip(image, v, strict=True)) / math.hypot(*image) / 0.2) for v in vectors
        ]
        assert row == pytest.approx([w / sum(weights) for w in weights], rel=1e-10)


def test_long_prompts_do_not_outvote_short_vectors() -> None:
    one = class_vectors([np.array([[1.0, 0.0], [0.0, 1.0]])])
    assert class_vectors([np.array([[9.0, 0.0], [0.0, 1.0]])]) == pytest.approx(one)


def test_scores_know_chance_and_their_interval() -> None:
    rng = stream(0, "scores")
    truth, patient = np.arange(90) % 3, np.arange(90) // 2
    sure = np.eye(3)[truth] * 0.8 + 0.1
    perfect, guess = scores(sure, truth, patient), scores(rng.random((90, 3)), truth, patient)
    assert perfect["auc"]["value"] == 1 and perfect["balanced_accuracy"] == {"value": 1, "chance": pytest.approx(1 / 3)}
    low, high = guess["auc"]["interval"]
    assert low < 0.5 < high and guess["patients"] == 45
    assert scores(sure[:1], truth[:1], patient[:1])["auc"]["value"] is None
