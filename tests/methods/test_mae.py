"""The masked autoencoder: its loss in float64, and what neither input nor loss may see."""

import itertools

import pytest
import torch

from medssl.contract import Batch, Term, backpropagate, one_graph
from medssl.errors import UserError
from medssl.methods.mae import MAE, patch_for
from medssl.methods.pcrl import PCRL
from medssl.rng import Rng
from medssl.views.turn import unturn

TINY = {"encoder": "unet", "width": 4}
FILLS = ["mean", "zero", "token"]


def make(dims=2, size=16, **options):
    return MAE(**{**TINY, "dims": dims, "patch": (size,) * dims, **options})


def views_of(model, b=3, step=0, start=0):
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(b + start, model.config.channels, *model.region(), generator=generator)[start:]
    views = model.views(Batch.of(images), Rng(0, step, start))
    dtype = next(model.parameters()).dtype
    views.images = {k: v.to(dtype) if v.is_floating_point() else v for k, v in views.images.items()}
    return views


def rebuild(model, views):
    with one_graph():
        return next(t.value for t in model.losses(views, 0.0) if isinstance(t, Term))


@torch.no_grad()
def naive(model, views):
    """Fill, encode, decode; then the error of every hidden voxel, patches normalised one by one if asked for."""
    image, hidden, config = views["image"], views["hidden"], model.config
    x = image.clone()
    for b, c in itertools.product(*map(range, image.shape[:2])):
        fills = {"zero": 0.0, "mean": image[b, c][~hidden[b]].mean()}
        x[b, c][hidden[b]] = float(model.token[c]) if config.fill == "token" else float(fills[config.fill])
    rebuilt, total, count = model.decoder(model.encoder(x)), 0.0, 0
    grid = [range(n // p) for n, p in zip(config.size, model.patch, strict=True)]
    for b, *cell in itertools.product(range(len(x)), *grid):
        box = tuple(slice(i * p, (i + 1) * p) for i, p in zip(cell, model.patch, strict=True))
        if hidden[(b, *box)].any():
            assert hidden[(b, *box)].all()  # whole patches only
            wanted, said = image[(b, slice(None), *box)].flatten(), rebuilt[(b, slice(None), *box)].flatten()
            if config.normalise_patches:
                wanted = (wanted - wanted.mean()) / (wanted.var() + 1e-6).sqrt()
            total, count = total + float((said - wanted).square().sum()), count + len(wanted)
    return total / count


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dims", [2, 3])
def test_the_loss_equals_its_equation(dims, fill, normalise):
    model = make(dims, fill=fill, normalise_patches=normalise, channels=2).double()
    if fill == "token":
        model.token.data = torch.tensor([0.3, -0.2]).double()
    views = views_of(model)
    assert float(rebuild(model, views).detach()) == pytest.approx(naive(model, views), abs=1e-6 if normalise else 1e-12)


def test_targets_of_visible_patches_do_not_matter():
    model = make()
    views = views_of(model)
    before = float(rebuild(model, views).detach())
    views.images["target"] = torch.where(views["hidden"][:, None], views["target"], torch.inf)
    assert float(rebuild(model, views).detach()) == before
    views.images["target"] = torch.where(views["hidden"][:, None], views["target"] + 1, 0)
    assert float(rebuild(model, views).detach()) != before


@pytest.mark.parametrize("fill", FILLS)
def test_hidden_patches_never_reach_the_network(fill):
    model = make(fill=fill)
    views = views_of(model)
    before = float(rebuild(model, views).detach())
    views.images["image"] = torch.where(views["hidden"][:, None], 99.0, views["image"])
    assert float(rebuild(model, views).detach()) == before


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("ratio", [0.6, 0.75])
def test_the_mask_is_exact_whole_patches_and_another_in_each_sample(dims, ratio):
    model = make(dims, mask_ratio=ratio)
    hidden = views_of(model, b=8)["hidden"]
    patches = 4**dims
    assert hidden.flatten(1).float().mean(1).tolist() == [pytest.approx(round(ratio * patches) / patches)] * 8
    assert len(hidden.flatten(1).unique(dim=0)) == 8


def test_ranks_mask_what_one_process_would():
    model = make()
    whole = views_of(model, b=6)["hidden"]
    assert torch.equal(torch.cat([views_of(model, b=3, start=s)["hidden"] for s in (0, 3)]), whole)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_image_is_the_clean_crop_that_pcrl_would_see(dims):
    ours, pcrl = make(dims), PCRL(**TINY, dims=dims, patch=(16,) * dims, queue=8)
    assert ours.region() == pcrl.region()
    batch = Batch.of(torch.rand(4, 1, *ours.region()))
    theirs = pcrl.views(batch, Rng(3, 5))
    assert torch.equal(ours.views(batch, Rng(3, 5))["image"], unturn(theirs["target1"], theirs["t1"]))


@pytest.mark.parametrize(
    ("size", "stride", "patch"),
    [
        ((224, 224), (32, 32), (32, 32)),
        ((64, 64, 32), (16, 16, 16), (16, 16, 8)),
        ((64, 64, 32), (8, 8, 8), (8, 8, 8)),
        ((64, 64, 32), (32, 32, 32), (16, 16, 8)),
        ((16, 16), (16, 16), (4, 4)),
        ((9, 9), (9, 9), (9, 9)),
    ],
)
def test_patches_follow_the_encoders_stride(size, stride, patch):
    assert patch_for(size, stride) == patch


def test_a_learned_token_learns():
    model = make(fill="token")
    backpropagate(model.losses(views_of(model), 0.0))
    assert float(model.token.grad.abs().sum()) > 0
    assert make(fill="zero").token is None


@pytest.mark.parametrize("skips", [True, False])
def test_skips_are_an_option(skips):
    model = make(skips=skips).eval()
    maps = model.encoder(views_of(model)["image"])
    changed = model.decoder([maps[0] + 1, *maps[1:]])
    assert torch.equal(model.decoder(maps), changed) != skips


@pytest.mark.parametrize("normalise", [False, True])
def test_samples_for_the_report(normalise):
    model = make(normalise_patches=normalise)
    views = views_of(model)
    found, hidden = model.rebuild_samples(views), views["hidden"][:, None]
    assert torch.equal(found["target"], views["image"])
    for name in ("view", "rebuilt"):
        assert torch.equal(found[name][~hidden], views["image"][~hidden])
        assert not torch.equal(found[name][hidden], views["image"][hidden])
    assert model.training and not found["rebuilt"].requires_grad


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio is 1.0"),
        ({"mask_patch": (1, 1)}, "mask_patch is"),
        ({"mask_patch": (4, 4, 4)}, "has 3 axes"),
        ({"mask_patch": (5, 5)}, "into equal parts"),
        ({"mask_patch": (16, 16)}, "into equal parts"),
    ],
)
def test_wrong_options_are_told(options, said):
    with pytest.raises(UserError, match=said):
        make(**options)
