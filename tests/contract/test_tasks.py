"""What every task promises, in 2D and 3D: the same contract as a method, and a prediction."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch

from medssl.config import from_table, to_table
from medssl.contract import Batch, Term, backpropagate, one_graph
from medssl.engine.parts import Parts
from medssl.rng import Rng
from medssl.tasks import TASKS

SETTINGS: dict[str, dict[str, Any]] = {
    "classify": {"classes": ("a", "b", "c"), "weight_true": (1.0, 2.0, 0.5)},
    "classify many": {"classes": ("a", "b", "c"), "kind": "many"},
    "segment": {"labels": (2, 5)},
}
CASES = [(name, dims) for name in SETTINGS for dims in (2, 3)]
PATCH = {2: (32, 32), 3: (32, 32, 32)}


def made(name: str, dims: int, **changes: Any) -> Any:
    module, config, task = TASKS[name.split()[0]].split(":")
    kind = getattr(import_module(module), config)
    given = {"width": 4, "dims": dims, "patch": PATCH[dims], "norm": "group", "mirror": True}
    torch.manual_seed(0)
    return getattr(import_module(module), task)(kind(**given | SETTINGS[name] | changes))


def batch_for(task: Any, name: str, b: int = 4) -> Batch:
    g = torch.Generator().manual_seed(1)
    batch = Batch.of(torch.rand(b, 1, *task.region(), generator=g))
    batch.mask = torch.tensor([0, 2, 5])[torch.randint(0, 3, (b, *task.region()), generator=g)]
    if name == "classify many":
        batch.label = (torch.rand(b, 3, generator=g) < 0.5).float()
    else:
        batch.label = torch.eye(3)[torch.arange(b) % 3]
    return batch


def part(batch: Batch, rows: slice) -> Batch:
    tensors = {k: v[rows] for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
    return replace(batch, **tensors)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_it_trains_one_step_and_every_parameter_gets_a_gradient(name: str, dims: int) -> None:
    task = made(name, dims)
    terms = backpropagate(task.losses(task.views(batch_for(task, name), Rng(0, 0)), 0.5))
    task.after_step(0.5)
    assert terms and all(value.ndim == 0 and value.isfinite() for value in terms.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_terms_one_by_one_give_the_gradient_of_the_whole(name: str, dims: int) -> None:
    task = made(name, dims)
    views = task.views(batch_for(task, name), Rng(0, 0))
    with one_graph():
        total = sum(item.value for item in task.losses(views, 0.5) if isinstance(item, Term))
    whole = torch.autograd.grad(total, list(task.parameters()))
    backpropagate(task.losses(views, 0.5))
    for parameter, gradient in zip(task.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_all_chance_is_in_the_views(name: str, dims: int) -> None:
    task, other = made(name, dims), made(name, dims)
    batch = batch_for(task, name)
    again, elsewhere = task.views(batch, Rng(0, 3)), task.views(batch, Rng(0, 4))
    views = other.views(batch, Rng(0, 3))
    for key, value in views.images.items():
        assert torch.equal(value, again.images[key])
    assert not torch.equal(views["image"], elsewhere["image"])
    one, two = ([i.value for i in task.losses(views, 0.5) if isinstance(i, Term)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_ranks_make_the_views_that_one_process_makes(name: str, dims: int) -> None:
    task = made(name, dims)
    batch = batch_for(task, name)
    whole, second = task.views(batch, Rng(0, 7)), task.views(part(batch, slice(2, 4)), Rng(0, 7, start=2))
    for key, value in second.images.items():
        torch.testing.assert_close(value, whole.images[key][2:])


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_views_have_the_size_of_the_patch_and_stay_in_range(name: str, dims: int) -> None:
    task = made(name, dims, value_range=(-1.0, 1.0))
    image = task.views(batch_for(task, name), Rng(0, 0))["image"]
    assert image.shape == (4, 1, *task.config.size)
    assert image.min() >= -1 and image.max() <= 1
    assert all(r >= p for r, p in zip(task.region(), task.config.size, strict=True))


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_the_order_of_a_batch_does_not_matter(name: str, dims: int) -> None:
    task = made(name, dims)
    views = task.views(batch_for(task, name), Rng(0, 0))
    order = torch.tensor([2, 0, 3, 1])
    moved = replace(views, images={k: v[order] for k, v in views.images.items()})
    if "label" in views.drawn:
        moved.drawn = {"label": views["label"][order]}
    for a, b in zip(task.losses(views, 0.5), task.losses(moved, 0.5), strict=True):
        if isinstance(a, Term) and isinstance(b, Term):
            torch.testing.assert_close(a.value, b.value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_it_predicts_the_same_after_its_weights_went_through_a_file(name: str, dims: int, tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_file

    task = made(name, dims, norm="batch").eval()
    save_file({k: v.contiguous() for k, v in task.state_dict().items()}, tmp_path / "model.safetensors")
    other = made(name, dims, norm="batch", seed=5).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    image = torch.rand(1, *PATCH[dims], generator=torch.Generator().manual_seed(2))
    predict: Callable = lambda t: t.predict(image if name == "segment" else image[None])  # noqa: E731
    assert torch.equal(predict(task), predict(task))
    assert torch.equal(predict(task), predict(other))
    assert not predict(task).requires_grad


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_freezing_keeps_the_encoder_and_trains_the_rest(name: str, dims: int) -> None:
    task = made(name, dims, freeze=True, norm="batch").train()
    before = {k: v.clone() for k, v in task.encoder.state_dict().items()}
    backpropagate(task.losses(task.views(batch_for(task, name), Rng(0, 0)), 0.5))
    assert all(p.grad is None for p in task.encoder.parameters())
    assert any(p.grad is not None for p in task.parameters())
    assert all(torch.equal(before[k], v) for k, v in task.encoder.state_dict().items())


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_the_head_learns_first_then_all(name: str, dims: int) -> None:
    task = made(name, dims, head_first=0.5, norm="batch").train()
    before = {k: v.clone() for k, v in task.encoder.state_dict().items()}
    backpropagate(task.losses(task.views(batch_for(task, name), Rng(0, 0)), 0.49))
    assert all(p.grad is None for p in task.encoder.parameters())
    assert any(p.grad is not None for p in task.parameters())
    assert all(torch.equal(before[k], v) for k, v in task.encoder.state_dict().items())
    backpropagate(task.losses(task.views(batch_for(task, name), Rng(0, 1)), 0.5))
    assert all(p.grad is not None for p in task.encoder.parameters())
    assert any(not torch.equal(before[k], v) for k, v in task.encoder.state_dict().items())  # running statistics


@pytest.mark.parametrize("name", SETTINGS)
def test_its_configuration_goes_through_a_table(name: str) -> None:
    config = made(name, 2).config
    table = {k: list(v) if isinstance(v, tuple) else v for k, v in to_table(config).items() if v is not None}
    assert from_table(type(config), table) == config


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("name", "dims"), CASES)
def test_a_batch_in_parts_gives_the_gradient_and_terms_of_the_whole(name: str, dims: int, count: int) -> None:
    """Though classes are weighed, unknown labels left out and overlaps counted over the batch: not part by part."""
    results = []
    for parts in (1, count):
        task = made(name, dims, modalities=("CT", "MR"), channels=1).double()
        batch = batch_for(task, name, b=5)
        batch.image = torch.cat([batch.image, batch.image.flip(-1)], 1)
        batch.present = torch.tensor([[True, True], [True, False], [False, True], [True, True], [True, False]])
        batch.label[3] = torch.nan
        assert Parts(task, 5, parts).rows() == [slice(0, 5)]
        views = task.views(batch, Rng(0, 1))
        views = replace(views, images={k: v.double() if v.is_floating_point() else v for k, v in views.images.items()})
        terms = backpropagate(task.losses(views, 0.5))
        results.append([*terms.values(), *(p.grad for p in task.parameters() if p.grad is not None)])
    for whole, split in zip(*results, strict=True):
        assert float((whole - split).abs().max()) <= 1e-12 * max(1.0, float(whole.abs().max()))
