"""What every pre-training method promises: one suite over the rows of METHODS."""

import copy
from dataclasses import replace

import pytest
import torch

from medssl.arguments import field_docs
from medssl.config import ModelConfig, from_table, to_table
from medssl.contract import Batch, Shared, Term, backpropagate, one_graph
from medssl.engine.parts import Parts, has_batch_norm
from medssl.errors import UserError
from medssl.methods import METHODS, resolve
from medssl.networks.pyramid import build_encoder
from medssl.networks.weights import export_state, load_state, weights_from
from medssl.rng import Rng

ALL = [(name, dims) for name in METHODS for dims in (2, 3)]
SMALL = {"encoder": "unet", "width": 4}
FROM_DATA = {"cmcl": {"modalities": ("CT", "MR")}}  # what a run reads from its store


def make(name, dims, **options):
    config, method = resolve(name)
    given = {**SMALL, "dims": dims, "patch": (16,) * dims, **FROM_DATA.get(name, {}), **options}
    return method(config(**given).fitted(64, 200, 4))


# Steps within which every part has its turn: a method may draw the levels of its decoder that a step compares.
TURNS = {"pcrlv2": 30}


def images_for(method, b=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(b, method.config.channels, *method.region(), generator=generator)


def batch_for(method, step=0):
    """Other patients every step: those of an earlier one are nobody's negatives. Two studies in two modalities."""
    batch = Batch.of(images_for(method, seed=step), torch.arange(4) + 4 * step, modality=torch.arange(4) % 2)
    return replace(batch, subject=torch.arange(4) // 2 + 2 * step)


def optimizer_of(method):
    return torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)


def train(method, optimizer, steps):
    terms = []
    for step in steps:
        views = method.views(batch_for(method, step), Rng(0, step))
        optimizer.zero_grad(set_to_none=True)
        terms.append({k: float(v) for k, v in backpropagate(method.losses(views, step / 10)).items()})
        optimizer.step()
        method.after_step(step / 10)
    return terms


def warm(name, dims):
    """After one step: without keys of earlier images some losses have no gradient."""
    method = make(name, dims)
    train(method, optimizer_of(method), range(1))
    return method


def doubled(views):
    views.images = {k: v.double() if v.is_floating_point() else v for k, v in views.images.items()}
    views.drawn = {k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
                   for k, v in views.drawn.items()}  # fmt: skip
    return views


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_views_are_a_function_of_batch_and_rng(name, dims):
    method = make(name, dims)
    batch = batch_for(method)
    one, again, other = (method.views(batch, Rng(0, step)) for step in (3, 3, 4))
    assert all(image.shape[0] == 4 and not image.requires_grad for image in one.images.values())
    assert all(torch.equal(image, again[key]) for key, image in one.images.items())
    assert any(not torch.equal(image, other[key]) for key, image in one.images.items())
    assert all(a >= b for a, b in zip(method.region(), method.config.size, strict=True))


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_losses_are_a_function_of_parameters_and_views(name, dims):
    method = warm(name, dims)
    views = method.views(batch_for(method, 1), Rng(0, 1))
    torch.manual_seed(1)
    one = {k: float(v) for k, v in backpropagate(method.losses(views, 0.5)).items()}
    torch.manual_seed(2)
    assert one and one == {k: float(v) for k, v in backpropagate(method.losses(views, 0.5)).items()}


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_terms_are_finite_scalars_with_names_of_their_own_and_shared_comes_last(name, dims):
    method = warm(name, dims)
    views = method.views(batch_for(method, 1), Rng(0, 1))
    with one_graph():
        items = list(method.losses(views, 0.0))
    terms = [item for item in items if isinstance(item, Term)]
    assert len({t.name for t in terms}) == len(terms) > 0
    assert all(t.value.ndim == 0 and bool(t.value.isfinite()) and t.value.dtype == torch.float32 for t in terms)
    assert isinstance(items[-1], Shared)


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_branchwise_gradient_equals_the_one_graph(name, dims):
    method = warm(name, dims).double()
    method.zero_grad(set_to_none=True)
    views = doubled(method.views(batch_for(method, 1), Rng(0, 1)))
    backpropagate(method.losses(views, 0.0))
    branchwise = [p.grad for p in method.parameters()]
    method.zero_grad(set_to_none=True)
    with one_graph():
        sum(t.value for t in method.losses(views, 0.0) if isinstance(t, Term)).backward()
    for a, p in zip(branchwise, method.parameters(), strict=True):
        assert (a is None) == (p.grad is None) and (a is None or float((a - p.grad).abs().max()) <= 1e-12)


def step_in_parts(method, count):
    """Gradients, terms and state after one step of which the batch went in ``count`` parts."""
    method = copy.deepcopy(method)
    batch, norms, terms = batch_for(method, 1), {}, {}
    for part in Parts(method, 4, count).rows():
        samples = batch.part(part)
        views = doubled(method.views(samples, Rng(0, 1, start=part.start)))
        backpropagate(method.losses(views, 0.5), norms=norms, share=len(samples) / 4, terms=terms)
    method.after_step(0.5)
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    return [*gradients, *terms.values(), *method.buffers()], norms


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_a_batch_in_parts_gives_the_gradients_terms_and_state_of_the_whole(name, dims):
    """Exact, by adding up or by gradient caching, wherever no layer and no term compares the samples of a batch."""
    method = make(name, dims, norm="group").double()
    views = doubled(method.views(batch_for(method), Rng(0, 0)))
    backpropagate(method.losses(views, 0.0))
    method.after_step(0.0)
    method.zero_grad(set_to_none=True)
    count = 2 if has_batch_norm(method) else 3
    assert len(Parts(method, 4, count).rows()) == (1 if method.coupled else count)
    (whole, norms), (parts, part_norms) = step_in_parts(method, 1), step_in_parts(method, count)
    worst = max(float((a - b).abs().max()) for a, b in zip(whole, parts, strict=True) if a.numel())
    if has_batch_norm(method):
        assert name == "pcrlv2" and worst > 1e-6  # batch norm averages over a part, and that is said
        return
    assert worst <= 1e-12
    for term, norm in part_norms.items():
        assert norm == pytest.approx(norms[term], rel=1e-6), term


OPTIONS = {"contrast": "patch", "mix": True, "rebuild": "corrupted"}


@pytest.mark.parametrize("option", OPTIONS)
def test_what_ties_the_samples_of_a_batch_in_pcrl_is_told(option):
    method = make("pcrl", 2, norm="group", **{option: OPTIONS[option]})
    assert method.coupled and not method.cached
    with pytest.raises(UserError, match="--accumulate 2 would change what is learnt, since it"):
        Parts(method, 4, 2).check()


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_all_that_can_learn_learns_and_nothing_else_has_a_gradient(name, dims):
    method = warm(name, dims)
    learnt = set()
    for step in range(1, 1 + TURNS.get(name, 1)):
        method.zero_grad(set_to_none=True)
        backpropagate(method.losses(method.views(batch_for(method, step), Rng(0, step)), 0.0))
        learnt |= {n for n, p in method.named_parameters() if p.grad is not None}
        assert all(p.requires_grad and bool(p.grad.abs().sum() > 0) for p in method.encoder.parameters())
    assert learnt == {n for n, p in method.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_resuming_from_the_state_gives_equal_losses(name, dims):
    method = make(name, dims)
    optimizer = optimizer_of(method)
    train(method, optimizer, range(3))
    saved = copy.deepcopy((method.state_dict(), optimizer.state_dict()))
    expected = train(method, optimizer, range(3, 6))
    fresh = make(name, dims, seed=9)
    fresh.load_state_dict(saved[0])
    resumed = optimizer_of(fresh)
    resumed.load_state_dict(saved[1])
    assert train(fresh, resumed, range(3, 6)) == expected


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_loss_goes_down_on_one_batch(name, dims):
    method = warm(name, dims)
    optimizer, first, last = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-3), None, None
    views = method.views(batch_for(method, 1), Rng(0, 1))
    for _ in range(15):
        optimizer.zero_grad(set_to_none=True)
        last = float(sum(backpropagate(method.losses(views, 0.0)).values()))
        first = last if first is None else first
        optimizer.step()
    assert last < first - 0.2 * abs(first)  # cosines are losses below zero


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_in_a_users_own_loop(name, dims):
    method = make(name, dims)
    images, modality = images_for(method), torch.arange(4) % 2
    terms = [method.step(images, optimizer_of(method), modality=modality) for _ in range(2)][-1]
    losses = method(images, modality=modality)
    assert terms.keys() == losses.terms.keys() and all(isinstance(v, float) for v in terms.values())
    total = sum(float(v.detach()) for v in losses.terms.values())
    assert float(losses.total.detach()) == pytest.approx(total) and losses.total.requires_grad


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_wrong_images_are_answered_in_one_sentence(name, dims):
    method = make(name, dims)
    good = images_for(method)
    wrong = {"channels": good.repeat(1, 3, *(1,) * dims), "shape": good[0], "are torch.uint8": (good * 255).byte(),
             "are list": good.tolist(), "2 ids for 4": good}  # fmt: skip
    for said, images in wrong.items():
        ids = torch.arange(2) if "ids" in said else None
        with pytest.raises(UserError, match=said) as caught:
            method.step(images, optimizer_of(method), ids=ids)
        assert "\n" not in str(caught.value) and caught.value.fix
    for codes in (torch.rand(4), torch.arange(3), ["CT"] * 4):
        with pytest.raises(UserError, match=r"modality is .* for 4 images: give an integer tensor"):
            method.step(good, optimizer_of(method), modality=codes)
    if method.needs_modality:
        with pytest.raises(UserError, match="modalities of the images are not told: give modality="):
            method.step(good, optimizer_of(method))


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_the_encoder_is_a_plain_pyramid_whose_weights_load(name, dims):
    method = make(name, dims)
    plain = build_encoder(ModelConfig(**SMALL, dims=dims))
    load_state(plain, export_state(method.encoder))
    x = torch.rand(2, 1, *(32,) * dims)
    ours, theirs = method.encoder.eval()(x), plain.eval()(x)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_it_begins_with_the_first_weights_of_an_encoder_from_scratch(name, dims):
    """A study compares both from one start (ADR 0022): the encoder is the first that a method draws."""
    with weights_from(5):
        first = export_state(build_encoder(ModelConfig(**SMALL, dims=dims)))
    begun = export_state(make(name, dims, seed=5).encoder)
    assert all(torch.equal(begun[key], value) for key, value in first.items())
    other = export_state(make(name, dims, seed=6).encoder)
    assert not all(torch.equal(other[key], value) for key, value in first.items())


@pytest.mark.parametrize("name", METHODS)
def test_configuration_is_documented_and_survives_its_table(name):
    kind, _ = resolve(name)
    config = kind(dims=3, patch=(32, 32, 16))
    assert {key for key in to_table(config) if not field_docs(kind).get(key)} == set()
    table = {k: list(v) if isinstance(v, tuple) else v for k, v in to_table(config).items() if v is not None}
    assert from_table(kind, table) == config
    fitted = config.fitted(100, 1000, 4)
    assert fitted.fitted(9, 9, 9) == fitted  # what is filled in stays


def test_unknown_method_is_told_the_known_ones():
    with pytest.raises(UserError, match="no method 'pcrrl': choose one of pcrl"):
        resolve("pcrrl")
