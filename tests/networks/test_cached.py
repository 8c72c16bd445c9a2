"""Gradient caching gives the gradients of the whole batch, whatever the chunk."""

import pytest
import torch
from torch import nn

from medssl.contract import Term, backpropagate, one_graph
from medssl.networks.cached import Cached, near_equal


class Two(nn.Module):
    """Two levels; ``calls`` counts the samples of each encode."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fine, self.coarse = nn.Linear(5, 4).double(), nn.Linear(4, 3).double()
        self.tau = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.calls = []

    def forward(self, x):
        self.calls.append((len(x), torch.is_grad_enabled()))
        fine = self.fine(x).tanh()
        return [fine, self.coarse(fine)]


def items(net, x, chunk):
    """A term over all pairs of the batch, one over single samples, then the encodes anew."""
    cached = Cached(net, x, chunk, keep=(-1,))
    z = cached.maps[0]
    yield Term("pairs", (z @ z.T / net.tau).logsumexp(1).mean())
    for part, shared in cached.again():
        yield Term("single", shared.maps[0][:, 0].pow(3).sum() / len(x))
        assert len(shared.maps[0]) == len(x[part])
        yield shared


@pytest.mark.parametrize("chunk", [1, 3, 7, 8, 0])
def test_gradients_are_those_of_the_whole_batch(chunk):
    x = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    net, whole = Two(), Two()
    terms = backpropagate(items(net, x, chunk))
    maps = whole(x)
    pairs, single = (maps[1] @ maps[1].T / whole.tau).logsumexp(1).mean(), maps[0][:, 0].pow(3).sum() / 7
    (pairs + single).backward()
    assert float(terms["pairs"]) == pytest.approx(float(pairs.detach()), abs=1e-13)
    assert float(terms["single"]) == pytest.approx(float(single.detach()), abs=1e-13)
    for ours, theirs in zip(net.parameters(), whole.parameters(), strict=True):
        assert float((ours.grad - theirs.grad).abs().max()) <= 1e-12
    largest = max(n for n, with_graph in net.calls if with_graph)
    assert largest == (chunk if 0 < chunk < 7 else 7)


@pytest.mark.parametrize("chunk", [0, 2])
def test_in_one_graph_it_is_the_plain_encode(chunk):
    x = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    net = Two()
    with one_graph():
        sum(item.value for item in items(net, x, chunk) if isinstance(item, Term)).backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    backpropagate(items(net, x, chunk))
    assert all(float((p.grad - e).abs().max()) <= 1e-12 for p, e in zip(net.parameters(), expected, strict=True))


def test_within_a_users_autocast_the_weights_still_learn():
    x = torch.randn(4, 5)
    net = Two().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        backpropagate(items(net, x, 2))
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())


def test_no_sample_is_left_alone_in_a_chunk():
    assert near_equal(7, 3) == [slice(0, 2), slice(2, 4), slice(4, 7)]
    net = Two()
    cached = Cached(net, torch.randn(7, 5, dtype=torch.float64), chunk=3)
    assert [n for n, _ in net.calls] == [2, 2, 3]
    assert [part for part, _ in cached.again()] == near_equal(7, 3)


def test_what_goes_beside_is_cut_alike():
    x, y = torch.randn(5, 2), torch.arange(5)
    cached = Cached(lambda a, b: [a * b[:, None]], x, chunk=2, beside=(y,))
    assert torch.equal(cached.maps[0], x * y[:, None])
    for part, shared in cached.again():
        assert torch.equal(shared.maps[0], x[part] * y[part, None])
