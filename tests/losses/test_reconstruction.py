"""Mean squared error, whole and within a mask, and mean absolute error, against a loop."""

import itertools

import pytest
import torch

from medssl.losses.reconstruction import absolute_error, rebuild_error


def images(seed, shape=(2, 2, 3, 4)):
    torch.manual_seed(seed)
    return torch.rand(shape, dtype=torch.float64)


def naive(a, b, where):
    total, count = 0.0, 0
    for index in itertools.product(*map(range, a.shape)):
        if where is None or where[(index[0], *index[2:])]:
            total += (float(a[index]) - float(b[index])) ** 2
            count += 1
    return total / max(count, 1)


@pytest.mark.parametrize("shape", [(2, 2, 3, 4), (2, 1, 3, 4, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_loop(shape, masked):
    a, b = images(0, shape), images(1, shape)
    where = torch.rand(shape[0], *shape[2:]) < 0.4 if masked else None
    assert float(rebuild_error(a, b, where)) == pytest.approx(naive(a, b, where), abs=1e-14)


def test_what_lies_outside_the_mask_does_not_matter():
    a, b = images(0).requires_grad_(), images(1)
    where = torch.zeros(2, 3, 4, dtype=torch.bool)
    where[0, 1] = True
    inside = rebuild_error(a, b, where)
    b = torch.where(where[:, None], b, torch.inf)
    value = rebuild_error(a, b, where)
    value.backward()
    assert float(value) == float(inside) and bool(a.grad.isfinite().all())
    assert float(a.grad.abs().sum(1)[~where].max()) == 0


def test_an_empty_mask_gives_zero_with_a_graph():
    a = images(0).requires_grad_()
    value = rebuild_error(a, images(1), torch.zeros(2, 3, 4, dtype=torch.bool))
    value.backward()
    assert float(value) == 0 and float(a.grad.abs().max()) == 0


@pytest.mark.parametrize("shape", [(2, 2, 3, 4), (2, 1, 3, 4, 2)])
def test_absolute_error_equals_the_loop(shape):
    a, b = images(0, shape), images(1, shape)
    each = [abs(float(a[index]) - float(b[index])) for index in itertools.product(*map(range, shape))]
    assert float(absolute_error(a, b)) == pytest.approx(sum(each) / len(each), abs=1e-14)
    assert absolute_error(a.bfloat16(), b.float()).dtype == torch.float32


def test_half_precision_is_compared_in_float32():
    a, b = torch.full((1, 1, 64, 64), 0.5), torch.full((1, 1, 64, 64), 0.501)
    assert rebuild_error(a.bfloat16(), b).dtype == torch.float32
    assert float(rebuild_error(a.bfloat16(), b)) == pytest.approx(1e-6, rel=1e-3)
