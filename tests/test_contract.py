"""The contract: terms backpropagated one by one give the gradient of their sum."""

import pytest
import torch
from torch import nn

from medssl.config import ModelConfig
from medssl.contract import (
    Batch,
    Method,
    Shared,
    Term,
    Views,
    backpropagate,
    one_graph,
)
from medssl.errors import UserError


class Two(Method):
    """Two terms over shared features, one of which skips a map; a frozen map passes through."""

    def __init__(self) -> None:
        super().__init__()
        self.config = ModelConfig()
        self.encoder = nn.ModuleList([nn.Linear(5, 4), nn.Linear(4, 3)])
        self.head = nn.Linear(3, 1)

    def views(self, batch, rng):
        return Views({"x": batch.normalised().flatten(1)})

    def losses(self, views, progress):
        fine = self.encoder[0](views["x"]).tanh()
        shared = Shared([fine, self.encoder[1](fine), torch.ones(2)])
        yield Term("last", self.head(shared.maps[1]).square().mean(), at=shared)
        yield Term("both", (shared.maps[0].sum() * shared.maps[1].sum()).tanh(), at=shared)
        yield Term("constant", shared.maps[2].sum() * 0)
        yield shared


@pytest.fixture
def method():
    torch.manual_seed(0)
    return Two().double()


def grads(method):
    return [p.grad.clone() for p in method.parameters()]


def test_branchwise_equals_one_graph(method):
    views = Views({"x": torch.randn(2, 5, dtype=torch.float64)})
    terms = backpropagate(method.losses(views, 0.0))
    branchwise = grads(method)
    method.zero_grad()
    with one_graph():
        whole = {t.name: t.value for t in method.losses(views, 0.0) if isinstance(t, Term)}
    torch.stack([v.double() for v in whole.values()]).sum().backward()
    assert terms.keys() == whole.keys()
    for a, b in zip(branchwise, grads(method), strict=True):
        assert torch.allclose(a, b, atol=1e-15, rtol=0)


def test_norms_are_those_of_each_term_alone(method):
    views = Views({"x": torch.randn(2, 5, dtype=torch.float64)})
    norms: dict[str, float] = {}
    backpropagate(method.losses(views, 0.0), norms=norms)
    assert set(norms) == {"last", "both"}
    for name, norm in norms.items():
        for item in method.losses(views, 0.0):
            if isinstance(item, Term) and item.name == name:
                reached = [m for m in item.at.maps if m.requires_grad]
                alone = torch.autograd.grad(item.value, reached, allow_unused=True)
        expected = torch.cat([g.flatten() for g in alone if g is not None]).norm()
        assert norm == pytest.approx(float(expected), rel=1e-6)


def test_normalised_is_gain_bias_and_clip():
    batch = Batch(torch.tensor([[[0, 500, 3000]]], dtype=torch.int16), torch.tensor([0.001]), torch.tensor([0.1]),
                  torch.zeros(1), torch.zeros(1))  # fmt: skip
    assert batch.normalised().tolist() == [[[pytest.approx(0.1), pytest.approx(0.6), 1.0]]]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(2, 1, 5, dtype=torch.float32), "shape"),
        (torch.zeros(2, 3, 5, 5), "3 channels"),
        (torch.zeros(2, 1, 5, 5, dtype=torch.int16), "int16"),
        ([1, 2], "list"),
        (torch.zeros(0, 1, 5, 5), "give one image or more"),
        (torch.full((2, 1, 5, 5), torch.nan), "hold NaN"),
        (torch.full((2, 1, 5, 5), -torch.inf), "infinities"),
        (torch.linspace(-1000, 400, 50).view(2, 1, 5, 5), r"from -1000 to 400 .* takes 0 to 1: scale them, or .*"),
        (torch.linspace(0, 1.5, 50).view(2, 1, 5, 5), r"value_range=\(0, 1.5\)"),
    ],
)
def test_wrong_images_are_told_in_one_sentence(method, images, said):
    with pytest.raises(UserError, match=said) as caught:
        method.step(images, torch.optim.SGD(method.parameters()))
    assert "\n" not in str(caught.value)


def test_images_may_leave_the_range_by_what_rounding_adds(method):
    method.float()
    terms = method.step(torch.linspace(-5e-4, 1.0005, 10).view(2, 1, 1, 5), torch.optim.SGD(method.parameters()))
    assert set(terms) == {"last", "both", "constant"}


def test_without_ids_no_image_of_another_step_shares_an_id(method):
    seen = torch.cat([method._own_ids(3), (setattr(method, "_steps", 1), method._own_ids(3))[1]])
    assert len(seen.unique()) == 6


def test_a_batch_takes_all_that_it_knows_along():
    batch = Batch.of(torch.rand(2, 1, 4, 4))
    batch.modality, batch.subject = torch.tensor([0, 1]), torch.tensor([5, 5])
    batch.place, batch.text = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1), torch.tensor([[3, 4, 0], [0, 0, 0]])
    there = batch.to(torch.device("meta"))
    for name in ("image", "item", "modality", "subject", "place", "text"):
        before, after = getattr(batch, name), getattr(there, name)
        assert after.device.type == "meta" and (after.shape, after.dtype) == (before.shape, before.dtype)
