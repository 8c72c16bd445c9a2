"""TransAtt against its equations, index by index."""

import math

import pytest
import torch

from medssl.networks.attention import TransformAttention


def gate(layers, inputs):
    """σ(FC(ReLU(FC(t)))) with plain loops."""
    first, last = layers[0], layers[2]
    hidden = [
        max(0.0, sum(float(w) * v for w, v in zip(row, inputs, strict=True)) + float(b))
        for row, b in zip(first.weight, first.bias, strict=True)
    ]
    return [
        1 / (1 + math.exp(-sum(float(w) * h for w, h in zip(row, hidden, strict=True)) - float(b)))
        for row, b in zip(last.weight, last.bias, strict=True)
    ]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1)])
@pytest.mark.parametrize("form", ["channel", "outer"])
def test_equals_the_equations(shape, form):
    torch.manual_seed(0)
    dims = len(shape)
    module = TransformAttention(dims + 4, 6, dims, form).double()
    x = torch.randn(2, 6, *shape, dtype=torch.float64)
    code = (torch.rand(2, dims + 4) < 0.5).double()
    found = module(x, code)
    for b in range(2):
        channels = gate(module.channel, code[b].tolist())
        for index in torch.cartesian_prod(*(torch.arange(n) for n in shape)).tolist():
            position = 1.0
            if form == "outer":
                place = [2 * i / (n - 1) - 1 if n > 1 else 0.0 for i, n in zip(index, shape, strict=True)]
                position = gate(module.position, code[b].tolist() + place)[0]
            for c in range(6):
                expected = float(x[(b, c, *index)]) * channels[c] * position
                assert float(found[(b, c, *index)]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("form", ["channel", "outer"])
def test_other_codes_give_other_gates_at_any_size(form):
    torch.manual_seed(0)
    module = TransformAttention(6, 8, 2, form)
    for shape in ((7, 7), (1, 1), (3, 5)):
        x = torch.ones(6, 8, *shape)
        found = module(x, torch.eye(6))
        assert all(not torch.equal(found[i], found[j]) for i in range(6) for j in range(i))


def test_outer_gate_has_rank_one():
    torch.manual_seed(0)
    module = TransformAttention(6, 8, 2, "outer").double()
    found = module(torch.ones(1, 8, 4, 4, dtype=torch.float64), torch.eye(6)[:1].double())
    values = torch.linalg.svdvals(found.flatten(2)[0])
    assert float(values[1] / values[0]) < 1e-12


def test_keeps_the_precision_of_the_map():
    module = TransformAttention(6, 8, 2)
    assert module(torch.randn(1, 8, 2, 2).bfloat16(), torch.eye(6)[:1]).dtype == torch.bfloat16
