"""PCRLv2 against its equations in float64, and the known errors of its public implementations."""

import itertools
import math

import pytest
import torch

import medssl
from medssl.contract import Batch, Term, backpropagate, one_graph
from medssl.engine.fit import NonFinite, fit
from medssl.engine.machine import Machine, make_fabric
from medssl.engine.optim import make_optimizer
from medssl.errors import UserError
from medssl.methods.pcrlv2 import PCRLv2, part_size
from medssl.networks.weights import export_state, load_state
from medssl.rng import Rng
from medssl.tasks.segment import Segment, SegmentConfig

TINY = {"encoder": "unet", "width": 4}


def make(dims=2, size=16, **options):
    return PCRLv2(**{**TINY, "dims": dims, "patch": (size,) * dims, **options})


def views_of(model, b=3, step=0, levels=None):
    images = torch.rand(b, 1, *model.region(), generator=torch.Generator().manual_seed(step))
    views = model.views(Batch.of(images), Rng(0, step))
    dtype = next(model.parameters()).dtype
    views.images = {name: image.to(dtype) for name, image in views.images.items()}
    if levels is not None:
        views.drawn["levels"] = tuple(levels)
    return views


def values(model, views, progress=0.0):
    with one_graph():
        return {t.name: t.value for t in model.losses(views, progress) if isinstance(t, Term)}


def cosine(p, z):
    """Mean over rows."""
    return sum(float(a @ b) / (float(a.norm()) * float(b.norm())) for a, b in zip(p, z, strict=True)) / len(p)


def squared(a, b):
    pairs = list(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    return sum((x - y) ** 2 for x, y in pairs) / len(pairs)


def normalised(x, norm):
    """Batch norm of rows, as its definition reads."""
    return (x - x.mean(0)) / (x.var(0, unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias


@torch.no_grad()
def naive(model, views, progress):
    """The docstring of ``PCRLv2.losses``, term by term."""

    def decoded(x):
        maps = model.encoder(x)
        levels, x = [], maps[-1]
        for block in model.decoder.blocks:
            x = block(x)
            levels.append(x)
        return levels

    def compared(level, number):
        head = model.comparers[number]
        first, norm, relu, last = head.predictor
        z = normalised(level.flatten(2).mean(2), head.norm)
        return z, last(relu(normalised(first(z), norm)))

    number, *others = views["levels"]
    one, two, target = decoded(views["x1"]), decoded(views["x2"]), views["target1"]
    small = decoded(torch.cat([views[f"part{k}"] for k in range(1, model.config.parts + 1)]))
    image = model.images[number].layers(one[number])
    image = torch.nn.functional.interpolate(
        image.sigmoid() if model.decoder.sigmoid else image,
        size=target.shape[2:],
        mode="bilinear" if target.ndim == 4 else "trilinear",
    )
    (z1, p1), (z2, p2) = compared(one[number], number), compared(two[number], number)
    total, b = 0.0, len(target)
    for i, part in enumerate(range(model.config.parts)):
        for large, level in ((one, others[2 * i]), (two, others[2 * i + 1])):
            z, p = compared(large[level], level)
            rows = slice(part * b, (part + 1) * b)  # of this part, not of the first
            small_z, small_p = (x[rows] for x in compared(small[level], level))
            total -= 0.5 * (cosine(p, small_z) + cosine(small_p, z))
    return {
        "rebuild": squared(model.decoder.finish(one[-1]), target),
        "rebuild_level": 0.5 * (1 + math.cos(math.pi * progress)) * squared(image, target),
        "compare": -0.5 * (cosine(p1, z2) + cosine(p2, z1)),
        "compare_parts": total / (2 * model.config.parts),
    }


@pytest.mark.parametrize(("dims", "step"), [(2, 0), (2, 1), (3, 0)])
def test_every_term_equals_its_equation(dims, step):
    model = make(dims).double()
    views = views_of(model, step=step)
    found, expected = values(model, views, 0.3), naive(model, views, 0.3)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert float(value.detach()) == pytest.approx(expected[name], abs=1e-10), name


# Known errors of public implementations ------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [2, 3])
def test_every_small_view_receives_gradient(dims):
    model = make(dims)
    views = views_of(model)
    parts = [views.images[f"part{k}"].requires_grad_() for k in range(1, 7)]
    backpropagate(model.losses(views, 0.0))
    assert all(float(part.grad.abs().sum()) > 0 for part in parts)


def test_small_views_in_another_order_are_the_same_objective():
    model = make().double()
    views = views_of(model, levels=[1] * 13)
    before = float(values(model, views)["compare_parts"].detach())
    order = [3, 1, 6, 2, 5, 4]
    shuffled = {f"part{k}": views[f"part{j}"] for k, j in enumerate(order, start=1)}
    views.images |= shuffled
    assert float(values(model, views)["compare_parts"].detach()) == pytest.approx(before, abs=1e-12)


def test_the_weight_of_the_level_follows_progress_and_nothing_else():
    model = make()
    views = views_of(model)
    start, half, end = (float(values(model, views, p)["rebuild_level"].detach()) for p in (0.0, 0.5, 1.0))
    assert half == pytest.approx(start / 2, rel=1e-5) and end == pytest.approx(0, abs=1e-7) and start > 0


def test_a_large_loss_is_learnt_from_and_a_divergence_is_named():
    def run(model, poison):
        images = torch.rand(4, 1, *model.region(), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            model.decoder.head.weight.mul_(poison)
        before = model.decoder.head.weight.clone()
        optimizer = make_optimizer(model, name="sgd", lr=1e-6)
        batches = iter([Batch.of(images)] * 2)
        fabric = make_fabric(Machine("cpu", "32", 1))
        step = next(fit(model, batches, optimizer, fabric, steps=2, lr=lambda progress: 1e-6, log_every=1))
        return float(step.terms["rebuild"]), not torch.equal(before, model.decoder.head.weight)

    loss, moved = run(make(), 1e3)
    assert loss > 1000 and moved
    with pytest.raises(NonFinite, match="term 'rebuild' became nan at step 1"):
        run(make(), math.nan)


def test_weights_are_random_and_the_seed_decides_them():
    one, two, other = (make(encoder="resnet18", patch=(32, 32), seed=seed).encoder for seed in (1, 1, 2))
    assert torch.equal(one.conv1.weight, two.conv1.weight) and not torch.equal(one.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize("levels", [[0] * 13, [1, *[0] * 12], [0, *[2] * 11, 1], [3, *[1] * 12]])
def test_only_the_levels_drawn_are_computed(levels):
    model = make()
    views, calls = views_of(model, levels=levels), []
    for kind in ("images", "comparers"):
        for i, head in enumerate(getattr(model, kind)):
            head.register_forward_hook(lambda *_, at=(kind, i): calls.append(at))
    for i, block in enumerate(model.decoder.blocks):
        block.register_forward_hook(lambda _, inputs, __, i=i: calls.append(("block", i, len(inputs[0]))))
    backpropagate(model.losses(views, 0.0))
    level, *others = levels
    assert [c for c in calls if c[0] == "images"] == [("images", level)]
    assert {c[1] for c in calls if c[0] == "comparers"} == set(levels)
    # A view passes a head once a term: both large ones at l; each large and the small ones at each of their own.
    assert sum(c[0] == "comparers" for c in calls) == 2 + len(set(others[::2])) + len(set(others[1::2])) + len(
        set(others)
    )
    large = [c[1] for c in calls if c[0] == "block" and c[2] == 3]
    assert large == [*range(len(model.decoder.blocks)), *range(1 + max(levels))]
    assert [c[1] for c in calls if c[0] == "block" and c[2] == 18] == list(range(1 + max(others)))


def test_fine_tuning_for_segmentation_adds_skips():
    model = make()
    task = Segment(SegmentConfig(**TINY, patch=(16, 16)))
    load_state(task.encoder, export_state(model.encoder))
    assert task.decoder.skips and not model.decoder.skips


# The rest ------------------------------------------------------------------------------------------------------------


def test_levels_are_drawn_evenly_and_are_the_same_on_all_ranks():
    model = make()
    drawn = [views_of(model, b=2, step=step)["levels"] for step in range(60)]
    counts = [list(itertools.chain(*drawn)).count(level) for level in range(4)]
    assert all(len(levels) == 13 for levels in drawn) and min(counts) > 150
    images = torch.rand(2, 1, *model.region())
    ranks = [model.views(Batch.of(images), Rng(0, 3, start))["levels"] for start in (0, 2)]
    assert ranks[0] == ranks[1]


def test_projections_get_no_gradient_of_the_comparison():
    """Predictors that say one thing whatever they see leave the encoder nothing to learn from a comparison."""
    model = make()
    for head in model.comparers:
        torch.nn.init.zeros_(head.predictor[3].weight)
    found = values(model, views_of(model, levels=[1] * 13))
    (found["compare"] + found["compare_parts"]).backward()
    assert all(p.grad is None or float(p.grad.abs().max()) == 0 for p in model.encoder.parameters())
    assert float(model.comparers[1].predictor[3].weight.grad.abs().max()) > 0


@pytest.mark.parametrize(
    ("options", "millions"),
    [({"encoder": "resnet18", "channels": 3}, 14.7), ({"encoder": "poolunet", "dims": 3}, 17.1)],
)
def test_the_papers_networks(options, millions):
    model = PCRLv2(**options)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert [image.layers[0].in_channels for image in model.images] == model.decoder.channels
    assert model.decoder.channels == ([256, 128, 64, 32, 16] if model.config.dims == 2 else [256, 128, 64])


@pytest.mark.parametrize(
    ("size", "stride", "norm", "expected"),
    [
        ((224, 224), (32, 32), "batch", (96, 96)),
        ((64, 64), (32, 32), "batch", (32, 32)),
        ((64, 64, 32), (8, 8, 8), "batch", (16, 16, 16)),
        ((64, 64, 32), (32, 32, 32), "batch", (32, 32, 32)),
        ((64, 64, 32), (16, 16, 16), "instance", (32, 32, 32)),
        ((16, 16), (16, 16), "batch", (16, 16)),
    ],
)
def test_small_views_fit_the_encoders_stride(size, stride, norm, expected):
    assert part_size(size, stride, norm) == expected


@pytest.mark.parametrize("dims", [2, 3])
def test_targets_are_clean_and_in_the_pose_of_the_input(dims):
    model = make(dims)
    calm = {"blur_p": 0.0, "jitter_p": 0.0, "cutout_p": 0.0, "shuffle_p": 0.0, "paint_p": 0.0}
    model._pairs = type(model._pairs)(**{**vars(model._pairs), **calm})
    views = views_of(model)
    assert torch.equal(views["x1"], views["target1"]) and not torch.equal(views["x1"], views["x2"])
    assert not torch.equal(views_of(make(dims))["x1"], views_of(make(dims))["target1"])


def test_without_small_views():
    model = make(parts=0)
    assert set(values(model, views_of(model))) == {"rebuild", "rebuild_level", "compare"}


def test_samples_for_the_report():
    model = make(3)
    views = views_of(model)
    found = model.rebuild_samples(views)
    assert found["view"].shape == found["target"].shape == found["rebuilt"].shape == (3, 1, 16, 16, 16)
    assert model.training and not found["rebuilt"].requires_grad


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"parts": -1}, "parts is -1"),
        ({"part_patch": (8, 8, 8)}, "part_patch"),
        ({"part_patch": (24, 24)}, "no multiple of 16×16"),
        ({"head": "sigmoid", "value_range": (-1.0, 1.0)}, "a sigmoid cannot reach"),
    ],
)
def test_wrong_options_are_told(options, said):
    with pytest.raises(UserError, match=said):
        make(**options)


def test_one_image_a_step_is_told():
    with pytest.raises(UserError, match="give 2 or more"):
        medssl.PCRLv2(**TINY, patch=(16, 16))(torch.rand(1, 1, 16, 16))
