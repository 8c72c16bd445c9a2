"""Values and gradients of the alignment losses against double loops over single numbers, in float64."""

import pytest
import torch

from medssl.losses.align import infonce, sigmoid


def numbers(seed=0):
    """Unit vectors of 5 and 6 samples, temperature, bias, all leaves; some rows with several positives, or none."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(n, 4, dtype=torch.float64, generator=generator) for n in (5, 6))
    tau, bias = torch.tensor(0.07, dtype=torch.float64), torch.tensor(-10.0, dtype=torch.float64)
    leaves = [
        x.requires_grad_() for x in (torch.nn.functional.normalize(a), torch.nn.functional.normalize(b), tau, bias)
    ]
    kind = torch.randint(0, 4, (5, 6), generator=generator)
    kind[1] = kind[1].clamp(min=1)
    return leaves, kind == 0, kind >= 2


def product(x, y):
    return sum(x[k] * y[k] for k in range(len(x)))


def naive_infonce(a, b, positive, negative, tau):
    total = 0
    for x, y, pos, neg in ((a, b, positive, negative), (b, a, positive.T, negative.T)):
        rows = []
        for i in range(len(x)):
            terms = []
            for p in range(len(y)):
                if pos[i, p]:
                    above = (product(x[i], y[p]) / tau).exp()
                    below = above + sum((product(x[i], y[j]) / tau).exp() for j in range(len(y)) if neg[i, j])
                    terms.append(-(above / below).log())
            if terms:
                rows.append(sum(terms) / len(terms))
        total = total + sum(rows) / len(rows) / 2
    return total


def naive_sigmoid(a, b, positive, negative, tau, bias):
    total, rows, columns = 0, set(), set()
    for i in range(len(a)):
        for j in range(len(b)):
            logit = product(a[i], b[j]) / tau + bias
            if positive[i, j]:
                total = total - (1 / (1 + (-logit).exp())).log()
                rows, columns = rows | {i}, columns | {j}
            elif negative[i, j]:
                total = total - (1 / (1 + logit.exp())).log()
    return total / ((len(rows) + len(columns)) / 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("form", ["infonce", "sigmoid"])
def test_value_and_gradients_equal_those_of_the_double_loop(form, seed):
    found = []
    for ours in (True, False):
        (a, b, tau, bias), positive, negative = numbers(seed)
        if form == "infonce":
            value = (infonce if ours else naive_infonce)(a, b, positive, negative, tau)
            leaves = [a, b, tau]
        else:
            value = (sigmoid if ours else naive_sigmoid)(a, b, positive, negative, tau, bias)
            leaves = [a, b, tau, bias]
        found.append((value.detach(), *torch.autograd.grad(value, leaves)))
    for one, other in zip(*found, strict=True):
        assert float((one - other).abs().max()) <= 1e-10
        assert bool(one.isfinite().all()) and float(one.abs().max()) > 0
