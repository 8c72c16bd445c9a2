"""A fixed, a scheduled and a learnt temperature, and the bound of the last."""

import math

import pytest
import torch

from medssl.networks.temperature import Temperature


def test_fixed_and_scheduled_have_nothing_to_learn():
    assert Temperature(0.07)(0.3) == 0.07 and not list(Temperature(0.07).parameters())
    scheduled = Temperature((0.2, 0.1))
    assert [scheduled(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.15, 0.1])


def test_learnt_begins_where_it_is_told_and_never_passes_a_hundredth():
    tau = Temperature(0.07, learn=True)
    assert float(tau()) == pytest.approx(0.07)
    tau().backward()
    assert float(tau.log_scale.grad) == pytest.approx(-0.07)
    with torch.no_grad():
        tau.log_scale += 10
    tau.bound()
    assert float(tau().detach()) == pytest.approx(0.01) and float(tau.log_scale) == pytest.approx(math.log(100))
