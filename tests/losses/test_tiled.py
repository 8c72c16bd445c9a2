"""The loss by strips is the loss of the whole matrix: value and every gradient, whatever the strip."""

import math

import pytest
import torch

from medssl.losses import contrastive, tiled
from medssl.losses.contrastive import info_nce, unit
from medssl.losses.tiled import tiled_info_nce


def case(n, m, dtype=torch.float64, temperature=0.2):
    generator = torch.Generator().manual_seed(n + m)
    query, key, negatives = (
        unit(torch.randn(k, 8, dtype=dtype, generator=generator)).requires_grad_() for k in (n, n, m)
    )
    tau = torch.tensor(temperature, dtype=dtype, requires_grad=True)
    return query, key, negatives, torch.rand(n, m, generator=generator) < 0.7, tau


def gradients(loss, parts, counted=None, scale=1.0):
    query, key, negatives, allowed, tau = parts
    leaves = [x.detach().clone().requires_grad_() for x in (query, key, negatives, tau)]
    value = loss(*leaves[:3], allowed, leaves[3], counted)
    (scale * value).backward()
    return float(value.detach()), [leaf.grad for leaf in leaves]


def assert_equal(ours, reference, tolerance):
    assert ours[0] == pytest.approx(reference[0], rel=tolerance)
    for found, expected in zip(ours[1], reference[1], strict=True):
        error = float((found.double() - expected).norm() / expected.norm().clamp(min=1e-12))
        assert error < tolerance, error


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 3), (9, 40), (64, 64), (7, 0)])
@pytest.mark.parametrize("rows", [1, 4, 5, 64])
@pytest.mark.parametrize("some", [False, True])
def test_value_and_all_gradients_are_those_of_the_matrix(n, m, rows, some, monkeypatch):
    monkeypatch.setattr(tiled, "STRIP", 1)
    monkeypatch.setattr(tiled, "ROWS", rows)
    counted = torch.arange(n) % 3 != 1 if some else None
    parts = case(n, m)
    assert_equal(gradients(tiled_info_nce, parts, counted, 3.0), gradients(info_nce, parts, counted, 3.0), 1e-12)


def test_gradients_by_finite_differences(monkeypatch):
    monkeypatch.setattr(tiled, "STRIP", 1)
    monkeypatch.setattr(tiled, "ROWS", 2)
    query, key, negatives, allowed, tau = case(5, 7)
    allowed[0] = False
    counted = torch.tensor([True, True, False, True, True])
    assert torch.autograd.gradcheck(
        lambda q, k, n, t: tiled_info_nce(q, k, n, allowed, t, counted), (query, key, negatives, tau)
    )


@pytest.mark.parametrize("temperature", [0.2, 0.01])
def test_in_float32_gradients_agree_with_the_matrix_in_float64(temperature):
    parts = case(512, 1024, torch.float32, temperature)
    wide = [x.detach().double() if x.is_floating_point() else x for x in parts]
    # 1e-6: what the goal allows. At τ = .01 the exponents themselves are off by 100 · 6e-8.
    assert_equal(gradients(tiled_info_nce, parts), gradients(dense, wide), 1e-6 if temperature == 0.2 else 1e-5)


def dense(*parts):
    """The matrix form, whatever the size."""
    before, contrastive.TILED = contrastive.TILED, math.inf
    try:
        return info_nce(*parts)
    finally:
        contrastive.TILED = before


def test_a_key_among_its_own_negatives_gets_both_gradients():
    """As in NT-Xent: queries and negatives are the same vectors."""
    z = unit(torch.randn(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    allowed = ~torch.eye(12, dtype=torch.bool)

    def gradient(loss):
        leaf = z.clone().requires_grad_()
        loss(leaf, leaf.roll(6, 0), leaf, allowed, 0.3).backward()
        return leaf.grad

    assert float((gradient(tiled_info_nce) - gradient(info_nce)).abs().max()) < 1e-14


def test_large_sizes_are_tiled_without_asking(monkeypatch):
    parts = case(6, 10)
    wanted = gradients(info_nce, parts)
    called = []

    def spy(*args):
        called.append(args)
        return tiled_info_nce(*args)

    monkeypatch.setattr(contrastive, "tiled_info_nce", spy)
    info_nce(*parts)
    assert not called
    monkeypatch.setattr(contrastive, "TILED", 60)
    assert_equal(gradients(info_nce, parts), wanted, 1e-12)
    assert called


def test_a_queue_of_keys_gets_no_gradient_and_no_graph_no_work():
    query, key, negatives, allowed, _ = case(6, 10)
    value = tiled_info_nce(query, key.detach(), negatives.detach(), allowed, 0.2)
    value.backward()
    assert query.grad is not None and negatives.grad is None
    with torch.no_grad():
        assert float(tiled_info_nce(query, key, negatives, allowed, 0.2)) == pytest.approx(float(value.detach()))


def test_finite_at_huge_logits_and_without_negatives_or_rows():
    query = unit(torch.randn(3, 8)).requires_grad_()
    for key, allowed, counted in (
        (-query.detach(), torch.ones(3, 5, dtype=torch.bool), None),
        (query.detach(), torch.zeros(3, 5, dtype=torch.bool), None),
        (query.detach(), torch.ones(3, 5, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)),
    ):
        query.grad = None
        value = tiled_info_nce(query, key, unit(torch.randn(5, 8)), allowed, 1e-4, counted)
        value.backward()
        assert bool(value.isfinite()) and bool(query.grad.isfinite().all())


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for x in found if isinstance(found, tuple) else (found,):
            self.most = max(self.most, x.numel() if isinstance(x, torch.Tensor) else 0)
        return found


def test_the_matrix_is_never_there(monkeypatch):
    monkeypatch.setattr(tiled, "STRIP", 1)
    n, m = 1024, 1024
    query, key, negatives, allowed, tau = case(n, m, torch.float32)
    with Largest() as seen:
        tiled_info_nce(query, key, negatives, allowed, tau).backward()
    assert seen.most <= max(tiled.ROWS * m, n * 8)
    with Largest() as seen:
        dense(query, key, negatives, allowed, tau).backward()
    assert seen.most >= n * m
