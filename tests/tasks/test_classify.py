"""The classifier: its losses against naive references, what missing labels do, and that it learns."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medssl.contract import Batch, backpropagate
from medssl.errors import UserError
from medssl.rng import Rng
from medssl.tasks.classify import Classify, ClassifyConfig, balanced_weights, many_of, one_of

nan = math.nan


def naive_one_of(logits: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> float:
    total = weights = 0.0
    for row, truth in zip(logits.tolist(), label.tolist(), strict=True):
        if any(math.isnan(t) for t in truth):
            continue
        right = truth.index(1.0)
        p = math.exp(row[right]) / sum(math.exp(x) for x in row)
        total -= float(weight[right]) * math.log(p)
        weights += float(weight[right])
    return total / weights


def naive_many_of(logits: torch.Tensor, label: torch.Tensor, true: torch.Tensor, false: torch.Tensor) -> float:
    total = weights = 0.0
    for row, truth in zip(logits.tolist(), label.tolist(), strict=True):
        for k, (x, t) in enumerate(zip(row, truth, strict=True)):
            if math.isnan(t):
                continue
            p = 1 / (1 + math.exp(-x))
            w = float(true[k] if t else false[k])
            total -= w * math.log(p if t else 1 - p)
            weights += w
    return total / weights


def some(kind: str, b: int = 12, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(b, k, generator=g, dtype=torch.float64)
    if kind == "one":
        return logits, F.one_hot(torch.arange(b) % k, k).double()
    return logits, (torch.rand(b, k, generator=g) < 0.4).double()


WEIGHTS = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64), torch.tensor([2.0, 0.7, 1.0], dtype=torch.float64)


def test_one_of_is_the_weighted_cross_entropy() -> None:
    logits, label = some("one")
    label[3] = nan
    assert one_of(logits, label, WEIGHTS[0]).item() == pytest.approx(naive_one_of(logits, label, WEIGHTS[0]), abs=1e-12)
    known = ~label.isnan().any(1)
    theirs = F.cross_entropy(logits[known], label[known].argmax(1), weight=WEIGHTS[0])
    assert one_of(logits, label, WEIGHTS[0]).item() == pytest.approx(theirs.item(), abs=1e-12)


def test_many_of_is_the_weighted_binary_cross_entropy() -> None:
    logits, label = some("many")
    label[2, 1] = label[5] = nan
    expected = naive_many_of(logits, label, *WEIGHTS)
    assert many_of(logits, label, *WEIGHTS).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["one", "many"])
def test_masking_a_sample_is_removing_it(kind: str) -> None:
    logits, label = some(kind)
    masked = label.clone()
    masked[[1, 4, 7]] = nan
    kept = [i for i in range(12) if i not in (1, 4, 7)]
    loss = (lambda x, y: one_of(x, y, WEIGHTS[0])) if kind == "one" else (lambda x, y: many_of(x, y, *WEIGHTS))
    logits.requires_grad_()
    value = loss(logits, masked)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == pytest.approx(loss(logits[kept], label[kept]).item(), abs=1e-12)
    assert gradient[[1, 4, 7]].abs().sum() == 0
    order = torch.arange(11, -1, -1)
    assert loss(logits[order], masked[order]).item() == pytest.approx(value.item(), abs=1e-12)


@pytest.mark.parametrize("kind", ["one", "many"])
def test_a_batch_without_a_label_asks_for_nothing(kind: str) -> None:
    logits, label = some(kind)
    logits.requires_grad_()
    label[:] = nan
    value = one_of(logits, label, WEIGHTS[0]) if kind == "one" else many_of(logits, label, *WEIGHTS)
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None and logits.grad.abs().sum() == 0


def test_balanced_weights_make_every_class_weigh_the_same() -> None:
    truth = np.eye(3)[[0] * 6 + [1] * 3 + [2] * 1]
    true, _ = balanced_weights(truth, "one")
    np.testing.assert_allclose(np.array(true) * truth.sum(0), [10 / 3] * 3)


def test_balanced_weights_make_both_sides_of_a_finding_weigh_the_same() -> None:
    truth = np.array([[1, 1], [0, 1], [0, nan], [0, 0]])
    true, false = balanced_weights(truth, "many")
    np.testing.assert_allclose(np.array(true) * [1, 2], np.array(false) * [3, 1])


def test_weights_are_bounded_and_a_class_without_examples_weighs_one() -> None:
    truth = np.eye(3)[[0] * 500 + [1]]
    true, _ = balanced_weights(truth, "one")
    assert true[1] == 10.0
    assert true[2] == 1.0


def config(**changes: object) -> ClassifyConfig:
    given: dict = {"width": 8, "patch": (32, 32), "classes": ("no", "yes")} | changes
    return ClassifyConfig(**given)


def stripes(b: int, seed: int) -> Batch:
    """Images whose class is the direction of their stripes, which no augmentation changes."""
    rng = np.random.default_rng(seed)
    right = np.arange(b) % 2
    x, y = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    phase = rng.uniform(0, 6, (b, 1, 1))
    waves = np.where(right[:, None, None] == 1, np.sin(x / 1.5 + phase), np.sin(y / 1.5 + phase))
    batch = Batch.of(torch.from_numpy(0.5 + 0.4 * waves).float()[:, None])
    batch.label = torch.eye(2)[torch.from_numpy(right)]
    return batch


def test_it_learns_what_stripes_tell() -> None:
    torch.manual_seed(0)
    task = Classify(config())
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    for step in range(50):
        optimizer.zero_grad()
        terms = backpropagate(task.losses(task.views(stripes(16, step), Rng(0, step)), step / 50))
        assert list(terms) == ["cross_entropy"]
        optimizer.step()
    task.eval()
    test = stripes(20, 999)
    prob = task.predict(test.normalised())
    assert (prob.argmax(1) == test.label.argmax(1)).float().mean() >= 0.9
    torch.testing.assert_close(prob.sum(1), torch.ones(20))
    torch.testing.assert_close(prob, task.predict(test.normalised()), rtol=0, atol=0)


def test_a_frozen_encoder_stays_as_it_is_in_training_mode() -> None:
    task = Classify(config(freeze=True)).train()
    before = {k: v.clone() for k, v in task.encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.1)
    task_head = task.head.weight.detach().clone()
    backpropagate(task.losses(task.views(stripes(8, 0), Rng(0, 0)), 0.0))
    optimizer.step()
    after = task.encoder.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not torch.equal(task_head, task.head.weight)


def test_findings_get_independent_probabilities() -> None:
    task = Classify(config(kind="many", classes=("a", "b", "c"))).eval()
    prob = task.predict(torch.rand(4, 1, 32, 32))
    assert prob.shape == (4, 3)
    assert not torch.allclose(prob.sum(1), torch.ones(4))


def test_images_without_labels_are_refused() -> None:
    with pytest.raises(UserError, match="without labels"):
        Classify(config()).views(Batch.of(torch.rand(2, 1, 32, 32)), Rng(0, 0))


def test_a_wrong_number_of_weights_is_told() -> None:
    with pytest.raises(UserError, match="3 weights for 2 classes"):
        config(weight_true=(1.0, 1.0, 1.0))
