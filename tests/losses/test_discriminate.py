"""Discrimination of modalities against loops over pairs in float64; then what must not change it."""

import math

import pytest
import torch

from medssl.losses.discriminate import discriminate_bce, discriminate_supcon

FORMS = [discriminate_bce, discriminate_supcon]
CODES = [[0, 1, 0, 1], [2, 2, 0, 1, 0, 2, 2], [5, 5, 9], [1, 2, 3, 3]]


def features(n, d=5, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def naive_bce(z, codes, temperature):
    total, pairs = 0.0, 0
    for i in range(len(z)):
        for j in range(len(z)):
            if i == j:
                continue
            p = 1 / (1 + math.exp(-cosine(z[i], z[j]) / temperature))
            total -= math.log(p) if codes[i] == codes[j] else math.log(1 - p)
            pairs += 1
    return total / pairs


def naive_supcon(z, codes, temperature):
    total, anchors = 0.0, 0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        positives = [j for j in others if codes[j] == codes[i]]
        if not positives:
            continue
        below = sum(math.exp(cosine(z[i], z[a]) / temperature) for a in others)
        total -= sum(math.log(math.exp(cosine(z[i], z[p]) / temperature) / below) for p in positives) / len(positives)
        anchors += 1
    return total / anchors


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
@pytest.mark.parametrize(("form", "naive"), [(discriminate_bce, naive_bce), (discriminate_supcon, naive_supcon)])
def test_equals_the_loop_over_pairs(form, naive, codes, temperature):
    z = features(len(codes))
    value = form(z, torch.tensor(codes), temperature)
    assert value.dtype == torch.float64
    assert abs(float(value) - naive(z.tolist(), codes, temperature)) <= 1e-10


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("codes", CODES)
def test_gradient_equals_finite_differences(form, codes):
    z = features(len(codes)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: form(z, torch.tensor(codes), 0.4), z)


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_the_batch_does_not_matter(form):
    z, codes = features(7), torch.tensor(CODES[1])
    for seed in range(5):
        order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
        assert abs(float(form(z[order], codes[order], 0.07) - form(z, codes, 0.07))) <= 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_codes_are_names_and_lengths_say_nothing(form):
    z, codes = features(7), torch.tensor(CODES[1])
    expected = float(form(z, codes, 0.07))
    assert float(form(z, torch.tensor([40, 7, -3])[codes], 0.07)) == expected
    lengths = torch.tensor([0.1, 1, 9, 2, 3, 70, 0.5], dtype=torch.float64)[:, None]
    assert float(form(z * lengths, codes, 0.07)) == pytest.approx(expected, abs=1e-12)


def test_the_temperature_divides():
    # Two modalities, two scans, cos = 1: log(1 + e^{1/τ}); the paper's form times exp(.07) would give log(1 + e^1.07).
    z, codes = torch.ones(2, 3, dtype=torch.float64), torch.tensor([0, 1])
    assert float(discriminate_bce(z, codes, 0.07)) == pytest.approx(math.log1p(math.exp(1 / 0.07)), abs=1e-10)
    assert float(discriminate_bce(z, codes, 0.5)) == pytest.approx(math.log1p(math.exp(2.0)), abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_one_modality_gives_zero_with_a_graph(form, n):
    z = features(n).requires_grad_()
    value = form(z, torch.full((n,), 3), 0.07)
    assert float(value) == 0 and value.requires_grad
    value.backward()
    assert bool(z.grad.isfinite().all()) and float(z.grad.abs().max()) == 0


def test_scans_that_all_differ_have_no_positive_to_contrast():
    z = features(3).requires_grad_()
    value = discriminate_supcon(z, torch.arange(3), 0.07)
    assert float(value.detach()) == 0 and value.requires_grad
    assert float(discriminate_bce(z, torch.arange(3), 0.07).detach()) > 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_at_large_logits(form, dtype):
    z = torch.stack([features(1)[0], -features(1)[0], features(1)[0], features(1, seed=1)[0]]).to(dtype)
    z.requires_grad_()
    value = form(z, torch.tensor([0, 0, 1, 1]), 1e-4)  # cosines of ±1: logits of ±1e4
    value.backward()
    assert bool(value.isfinite()) and float(value) > 1000 and bool(z.grad.isfinite().all())


@pytest.mark.parametrize("form", FORMS)
def test_similarity_is_float32_under_autocast(form):
    z, codes = features(6, d=64).float(), torch.tensor([0, 1, 1, 0, 2, 2])
    exact = form(z.double(), codes, 0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = form(z, codes, 0.07)
        half = form(z.bfloat16(), codes, 0.07)
    assert value.dtype == half.dtype == torch.float32
    assert float(value) == pytest.approx(float(exact), rel=1e-5)
    assert float(half) == pytest.approx(float(form(z.bfloat16().double(), codes, 0.07)), rel=1e-5)
