"""The factor that makes two gradients equally strong."""

import pytest
import torch

from medssl.networks.balance import GradientBalance


def test_one_until_both_are_seen_then_the_ratio_of_running_means():
    balance = GradientBalance(memory=0.9)
    assert float(balance.weight()) == 1
    balance.observe(torch.tensor([0.0, 2.0]))  # a contrast without negatives has no gradient yet
    assert float(balance.weight()) == 1
    a = b = None
    for one, two in ((3.0, 4.0), (1.0, 8.0), (0.0, 2.0)):
        balance.observe(torch.tensor([one, two]))
        a = (one if a is None else 0.9 * a + 0.1 * one) if one else a
        b = 0.9 * (2.0 if b is None else b) + 0.1 * two
        assert float(balance.weight()) == pytest.approx(a / b, rel=1e-5)


def test_measures_what_each_objective_added():
    balance = GradientBalance()
    balance.observe(torch.tensor([6.0, 2.0]))  # λ = 3
    before = {1: torch.tensor([3.0, 4.0])}
    after = {0: torch.tensor([9.0]), 1: torch.tensor([3.0, 16.0])}
    found = balance.measure(before, after)
    assert found.tolist() == pytest.approx([5.0, (81 + 144) ** 0.5 / 3])
