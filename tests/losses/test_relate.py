"""Labels as positives: what they say of each pair, and the loss that follows, label by label and pair by pair."""

import itertools
import math

import pytest
import torch

from medssl.losses.align import align
from medssl.losses.relate import by_label, relations

NAN = math.nan
LABEL = torch.tensor([[1, 0], [1, 0], [0, 1], [NAN, NAN], [0, NAN], [1, NAN], [1, 0], [0, 1]], dtype=torch.float64)
MODALITY = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
SUBJECT = torch.tensor([0, 1, 2, 3, 3, 4, 5, 6])  # one pair of one subject, of whose labels little is known
PATIENT = torch.tensor([0, 1, 2, 3, 3, 4, 5, 5])


def told(a, b):
    """What two rows of labels say: alike, apart or nothing."""
    both = [(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True) if x == x and y == y]
    if any(x != y for x, y in both):
        return "apart"
    return "alike" if len(both) == len(a) else ""


def test_labels_say_alike_apart_or_nothing():
    alike, apart = by_label(LABEL)
    for i, j in itertools.product(range(8), range(8)):
        said = told(LABEL[i], LABEL[j])
        assert (bool(alike[i, j]), bool(apart[i, j])) == (said == "alike", said == "apart"), (i, j)
    assert {told(a, b) for a in LABEL for b in LABEL} == {"alike", "apart", ""}


def naive(z, tau):
    """Row by row: positives share subject or label, negatives are told apart and are another patient's."""
    total = 0.0
    for m in (0, 1):
        rows = []
        for i in (i for i in range(8) if MODALITY[i] == m):
            others = [j for j in range(8) if MODALITY[j] != m]
            same = [j for j in others if SUBJECT[i] == SUBJECT[j] or told(LABEL[i], LABEL[j]) == "alike"]
            below = sum(
                math.exp(float(z[i] @ z[j]) / tau)
                for j in others
                if j not in same and told(LABEL[i], LABEL[j]) == "apart" and PATIENT[i] != PATIENT[j]
            )
            each = [math.log(1 + below / math.exp(float(z[i] @ z[j]) / tau)) for j in same]
            rows += [sum(each) / len(each)] if each else []
        total += sum(rows) / len(rows) / 2
    return total


def test_the_loss_equals_the_loop_and_order_does_not_matter():
    z = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = torch.nn.functional.normalize(z, dim=1)
    alike, apart = by_label(LABEL)
    value = align(z, MODALITY, SUBJECT, 0.2, same=[PATIENT], alike=alike, apart=apart)
    assert float(value) == pytest.approx(naive(z, 0.2), abs=1e-10)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    alike, apart = by_label(LABEL[order])
    again = align(z[order], MODALITY[order], SUBJECT[order], 0.2, same=[PATIENT[order]], alike=alike, apart=apart)
    assert float(again) == pytest.approx(float(value), abs=1e-13)


def test_without_labels_only_the_subject_is_left():
    nothing = torch.full((4, 2), NAN)
    alike, apart = by_label(nothing)
    positive, negative = relations(torch.tensor([0, 0, 1, 2]), (), alike, None, apart)
    assert not negative.any() and positive.sum() == 6
