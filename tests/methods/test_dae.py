"""DAE against its equations in float64, and against the errors of the published code."""

import itertools
import math

import pytest
import torch

import medssl
from medssl.contract import Batch, Term, backpropagate, one_graph
from medssl.errors import UserError
from medssl.methods.dae import DAE
from medssl.rng import Rng
from medssl.views.disrupt import coarsen
from medssl.views.noise import normal_noise, sample_seeds

MODALITY = torch.tensor([0, 2, 0, 1])
SUBJECT = torch.tensor([0, 0, 1, 1])


def make(dims=2, size=None, dtype=torch.float64, **options):
    shape = {"encoder": "unet", "width": 4, "patch": size or (16,) * dims, "embed_dim": 6}
    return DAE(dims=dims, **{**shape, **options}).to(dtype)


def batch_for(model, b=4, seed=0, modality=MODALITY, subject=SUBJECT):
    images = torch.rand(b, model.config.channels, *model.region(), generator=torch.Generator().manual_seed(seed))
    low, high = model.config.value_range
    return Batch.of(low + (high - low) * images, subject, model.config.value_range, modality)


def views_for(model, step=0, **options):
    views = model.views(batch_for(model, **options), Rng(0, step))
    dtype = next(model.parameters()).dtype
    views.images = {name: image.to(dtype) for name, image in views.images.items()}
    return views


def values(model, views):
    with one_graph():
        return {t.name: t.value.detach() for t in model.losses(views, 0.0) if isinstance(t, Term)}


def reordered(views, order):
    return type(views)(
        {name: image[order] for name, image in views.images.items()},
        {name: value[order] for name, value in views.drawn.items()},
    )


# Views ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-2.0, 3.0)])
def test_noise_has_the_published_variance_for_any_range(value_range):
    model = make(3, (32, 32, 64), torch.float32, downsample=1, value_range=value_range)
    views = views_for(model)
    noise = (views["x"] - views["target"]) / (value_range[1] - value_range[0])
    assert noise.flatten(1).std(1).tolist() == pytest.approx([0.316] * 4, rel=0.02)


def test_first_noise_then_lower_resolution_then_masked_channels():
    model = make(3, (16, 32, 48), torch.float32)
    batch, rng = batch_for(model), Rng(3, 7)
    views = model.views(batch, rng)
    clean = batch.normalised()
    noise = 0.1**0.5 * normal_noise(sample_seeds(rng, "dae/noise", 4), tuple(clean.shape[1:]), clean.device)
    assert torch.equal(views["target"], clean)
    assert torch.equal(views["x"], coarsen(clean + noise, 4))
    assert float((views["x"] - (coarsen(clean, 4) + noise)).abs().max()) > 0.5  # the other order is something else
    # Channels are masked within the encoder: the image that goes in has no part in it.
    unmasked = make(3, (16, 32, 48), torch.float32, masking=0.0).views(batch, rng)
    assert torch.equal(unmasked["x"], views["x"]) and bool(unmasked["keep"].all())


def test_each_disruption_can_be_left_out():
    views = views_for(make(noise=0.0, downsample=1, masking=0.0))
    assert torch.equal(views["x"], views["target"]) and bool(views["keep"].all())


@pytest.mark.parametrize("encoder", ["swin", "resnet18", "unet"])
def test_masked_channels_are_zero_at_every_token_and_the_depth_axis_is_untouched(encoder):
    # Published code: a view read (B, D, H, W, C) as (B, C, D, H, W) and zeroed slabs of the depth axis.
    size = (64, 32, 96) if encoder == "swin" else (96, 32, 64)  # no two axes of the tokens alike, nor like the channels
    model = make(3, size, torch.float32, encoder=encoder, width=10, masking=0.6).eval()
    views = views_for(model, b=2, modality=None, subject=None)
    with torch.no_grad():
        tokens = model.encoder(views["x"], views["keep"])[0]  # (b, C, X, Y, Z)
    assert views["keep"].sum(1).tolist() == [4, 4] and not torch.equal(*views["keep"])
    for image, keep in zip(tokens, views["keep"], strict=True):
        assert float(image[~keep].abs().max()) == 0
        kept = image[keep].abs()  # (4, X, Y, Z)
        for axis in (1, 2, 3):
            assert bool((kept.movedim(axis, 0).flatten(1).amax(1) > 0).all())
        if encoder == "swin":  # no activation cuts values off: every token is there
            assert bool((kept.amax(0) > 0).all())


# Networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoder", "dims"), [*itertools.product(("swin", "resnet18", "unet", "poolunet"), (2, 3))])
def test_nothing_carries_the_image_past_the_masking(encoder, dims):
    size = (32,) * dims
    model = make(dims, size, torch.float32, encoder=encoder, width=8).eval()
    a, b = torch.rand(2, 2, 1, *size)
    nothing = torch.zeros(2, 8, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(model._rebuild(model.encoder(a, nothing)), model._rebuild(model.encoder(b, nothing)))
        assert not torch.equal(model._rebuild(model.encoder(a)), model._rebuild(model.encoder(b)))


@torch.no_grad()
@pytest.mark.parametrize("encoder", ["swin", "resnet18", "unet", "poolunet"])
def test_no_skip_has_full_resolution(encoder):
    model = make(2, (32, 32), torch.float32, encoder=encoder, width=8).eval()
    maps = model.encoder(torch.rand(1, 1, 32, 32))
    rebuilt = model._rebuild(maps)
    assert rebuilt.shape == (1, 1, 32, 32)
    for level, stride in enumerate(model.encoder.strides):
        others = [torch.rand_like(x) if i == level else x for i, x in enumerate(maps)]
        assert torch.equal(model._rebuild(others), rebuilt) == (stride == (1, 1))


# Objective --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def features(model, views):
    maps = model.encoder(views["x"], views["keep"])
    z = model.projector(maps[-1].flatten(2).mean(2))
    return model.decoder(maps[model._finest :]), z / z.norm(dim=1, keepdim=True)


def test_the_objective_is_its_equation():
    model = make(cmcl="discriminate", cmcl_weight=0.3, temperature=0.4)
    views = views_for(model)
    rebuilt, z = features(model, views)
    found = values(model, views)
    each = zip(rebuilt.flatten().tolist(), views["target"].flatten().tolist(), strict=True)
    assert float(found["rebuild"]) == pytest.approx(sum(abs(a - b) for a, b in each) / rebuilt.numel(), abs=1e-12)
    total = 0.0
    for i, j in itertools.permutations(range(4), 2):
        p = 1 / (1 + math.exp(-float(z[i] @ z[j]) / 0.4))
        total -= math.log(p if MODALITY[i] == MODALITY[j] else 1 - p)
    assert float(found["cmcl"]) == pytest.approx(0.3 * total / 12, abs=1e-10)


def test_align_draws_scans_of_one_patient_together():
    model = make(cmcl="align", cmcl_weight=0.3, temperature=0.4)
    views = views_for(model)
    _, z = features(model, views)
    # Modalities 0 (scans 0 and 2), 1 (scan 3), 2 (scan 1); patients 0, 0, 1, 1: 3 is with 2, and 1 with 0.
    s = (z @ z.T / 0.4).exp()
    to, back = -math.log(s[2, 3] / (s[2, 3])), -math.log(s[3, 2] / (s[3, 2] + s[3, 0]))
    expected = (to + back) / 2
    to, back = -math.log(s[0, 1] / (s[0, 1])), -math.log(s[1, 0] / (s[1, 0] + s[1, 2]))
    expected += (to + back) / 2
    assert float(values(model, views)["cmcl"]) == pytest.approx(0.3 * expected, abs=1e-8)


@pytest.mark.parametrize("options", [{"cmcl_form": "bce"}, {"cmcl_form": "supcon"}, {"cmcl": "align"}])
def test_the_order_of_the_batch_does_not_matter(options):
    # Published code: the code of a modality was the class number of a softmax over the batch.
    model = make(**{"cmcl": "discriminate", **options})
    views = views_for(model)
    expected = values(model, views)
    assert float(expected["cmcl"]) > 0
    for order in itertools.islice(itertools.permutations(range(4)), 5, None, 4):
        found = values(model, reordered(views, list(order)))
        assert all(float(found[name]) == pytest.approx(float(expected[name]), abs=1e-12) for name in expected)


def test_codes_of_modalities_are_names():
    model = make(cmcl="discriminate")
    renamed = torch.tensor([7, 9, 3])[MODALITY]
    assert values(model, views_for(model)) == values(model, views_for(model, modality=renamed))


@pytest.mark.parametrize("options", [{"cmcl_form": "bce"}, {"cmcl_form": "supcon"}, {"cmcl": "align"}])
def test_branchwise_gradient_equals_the_one_graph(options):
    model = make(**{"cmcl": "discriminate", **options})
    views = views_for(model)
    backpropagate(model.losses(views, 0.0))
    branchwise = [p.grad for p in model.parameters()]
    assert all(grad is not None for grad in branchwise)
    model.zero_grad(set_to_none=True)
    with one_graph():
        sum(t.value for t in model.losses(views, 0.0) if isinstance(t, Term)).backward()
    for a, p in zip(branchwise, model.parameters(), strict=True):
        assert float((a - p.grad).abs().max()) <= 1e-12


def test_one_modality_in_a_batch_adds_nothing_and_stops_nothing():
    model = make(cmcl="discriminate")
    terms = backpropagate(model.losses(views_for(model, modality=torch.ones(4, dtype=torch.long)), 0.0))
    assert float(terms["cmcl"]) == 0 and float(terms["rebuild"]) > 0
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("cmcl", ["discriminate", "align"])
def test_under_bfloat16_similarities_stay_float32_and_finite(cmcl):
    model = make(dtype=torch.float32, cmcl=cmcl, temperature=1e-3)
    views = views_for(model)
    exact = values(model, views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = values(model, views)
    assert found["cmcl"].dtype == torch.float32 and bool(found["cmcl"].isfinite())
    assert float(found["cmcl"]) == pytest.approx(float(exact["cmcl"]), rel=0.2, abs=0.1)


@pytest.mark.parametrize(("dims", "size", "steps"), [(2, (64, 32), 12), (3, (32, 32, 32), 5)])
def test_the_loss_falls_on_one_batch_with_swin(dims, size, steps):
    model = make(dims, size, torch.float32, encoder="swin", width=6, cmcl="discriminate")
    optimizer, found = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    views = views_for(model, b=2, modality=MODALITY[:2], subject=SUBJECT[:2])
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        found.append(float(sum(backpropagate(model.losses(views, 0.0)).values())))
        optimizer.step()
    assert found[-1] < 0.8 * found[0]


# What a person may ask for --------------------------------------------------------------------------------------


def test_one_modality_is_refused_before_the_run():
    codes, patients = torch.tensor([1, 1, 1]), torch.tensor([0, 1, 2])
    for cmcl in ("discriminate", "align"):
        with pytest.raises(UserError, match="all scans are of one modality: choose --cmcl none"):
            make(cmcl=cmcl).check_scans(codes, patients)
    make(cmcl="discriminate").check_scans(torch.tensor([1, 2, 1]), patients)
    make().check_scans(codes, patients)


def test_in_a_users_own_loop_modalities_are_asked_for():
    model = medssl.DAE(encoder="unet", width=4, patch=(16, 16), cmcl="discriminate")
    optimizer, images = torch.optim.AdamW(model.parameters()), torch.rand(4, 1, 16, 16)
    with pytest.raises(UserError, match="modalities of the images are not told: give modality="):
        model.step(images, optimizer)
    terms = model.step(images, optimizer, modality=MODALITY)
    assert terms.keys() == {"rebuild", "cmcl"} and terms["cmcl"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cmcl": "both"}, "cmcl is 'both': give one of none, discriminate, align"),
        ({"masking": 1.0}, "masking is 1.0"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"downsample": 0}, "downsample is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"patch": (30, 32), "encoder": "swin"}, "no multiple of 32×32: choose"),
    ],
)
def test_wrong_options_are_told_in_one_sentence(options, said):
    with pytest.raises(UserError) as caught:
        medssl.DAE(**{"encoder": "unet", "width": 4, "patch": (32, 32), **options})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_samples_for_the_report():
    model = make(dtype=torch.float32)
    model.train()
    found = model.rebuild_samples(views_for(model))
    assert found["view"].shape == found["target"].shape == found["rebuilt"].shape == (4, 1, 16, 16)
    assert model.training and not found["rebuilt"].requires_grad
