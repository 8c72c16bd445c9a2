"""Models Genesis: its loss in float64, its changes at their published rates, its target clean and in place."""

import itertools

import pytest
import torch

from medssl.contract import Batch, Term, one_graph
from medssl.errors import UserError
from medssl.methods.genesis import Genesis, GenesisConfig
from medssl.methods.pcrl import PCRL
from medssl.rng import Rng
from medssl.views.turn import unturn

TINY = {"encoder": "unet", "width": 4}


def make(dims=2, size=16, **options):
    return Genesis(**{**TINY, "dims": dims, "patch": (size,) * dims, **options})


def views_of(model, b=4, step=0):
    low, high = model.config.value_range
    images = torch.rand(b, 1, *model.region(), generator=torch.Generator().manual_seed(step))
    batch = Batch.of(low + (high - low) * images, value_range=model.config.value_range)
    views = model.views(batch, Rng(0, step))
    dtype = next(model.parameters()).dtype
    views.images = {name: image.to(dtype) for name, image in views.images.items()}
    return views


@pytest.mark.parametrize("dims", [2, 3])
def test_the_loss_equals_its_equation(dims):
    model = make(dims).double()
    views = views_of(model, b=2)
    with one_graph():
        found = next(t.value for t in model.losses(views, 0.0) if isinstance(t, Term))
    rebuilt = model.decoder(model.encoder(views["x1"])).detach()
    total, count = 0.0, 0
    for index in itertools.product(*map(range, rebuilt.shape)):
        total, count = total + (float(rebuilt[index]) - float(views["target1"][index])) ** 2, count + 1
    assert float(found.detach()) == pytest.approx(total / count, abs=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_target_is_the_clean_crop_that_pcrl_would_see(dims):
    ours, pcrl = make(dims), PCRL(**TINY, dims=dims, patch=(16,) * dims, queue=8)
    assert ours.region() == pcrl.region()
    batch = Batch.of(torch.rand(4, 1, *ours.region()))
    found, theirs = ours.views(batch, Rng(3, 5)), pcrl.views(batch, Rng(3, 5))
    assert torch.equal(found["target1"], unturn(theirs["target1"], theirs["t1"]))
    assert not torch.equal(found["x1"], found["target1"])


def test_without_changes_the_view_is_the_target():
    model = make(bezier_p=0.0, shuffle_p=0.0, paint_p=0.0)
    views = views_of(model)
    assert torch.equal(views["x1"], views["target1"])


def test_the_published_rates_are_the_defaults():
    config = GenesisConfig()
    assert (config.bezier_p, config.shuffle_p, config.paint_p, config.paint_inner) == (0.9, 0.5, 0.9, 0.2)


@pytest.mark.parametrize("alone", ["bezier_p", "shuffle_p", "paint_p"])
def test_each_change_acts_alone_at_its_rate(alone):
    off = {"bezier_p": 0.0, "shuffle_p": 0.0, "paint_p": 0.0}
    model = make(size=32, **{**off, alone: 0.6})
    views = views_of(model, b=200)
    changed = (views["x1"] != views["target1"]).flatten(1).any(1).float().mean()
    assert abs(float(changed) - 0.6) < 0.1


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-4.0, 4.0)])
def test_views_stay_within_the_range(value_range):
    model = make(3, value_range=value_range)
    views = views_of(model, b=16)
    for name in ("x1", "target1"):
        assert float(views[name].min()) >= value_range[0] - 1e-5 and float(views[name].max()) <= value_range[1] + 1e-5
    assert model.decoder.sigmoid == (value_range == (0.0, 1.0))


def test_skips_are_on():
    model = make().eval()
    maps = model.encoder(views_of(model)["x1"])
    assert model.decoder.skips
    changed = [maps[0] + 1, *maps[1:]]
    assert not torch.equal(model.decoder(maps), model.decoder(changed))


def test_samples_for_the_report():
    model = make(3)
    views = views_of(model)
    found = model.rebuild_samples(views)
    assert {name: tuple(x.shape) for name, x in found.items()} == dict.fromkeys(
        ("view", "target", "rebuilt"), (4, 1, 16, 16, 16)
    )
    assert torch.equal(found["target"], views["target1"]) and not found["rebuilt"].requires_grad and model.training


@pytest.mark.parametrize(
    ("options", "said"),
    [({"bezier_p": 1.5}, "bezier_p is 1.5"), ({"head": "sigmoid", "value_range": (-1.0, 1.0)}, "cannot reach")],
)
def test_wrong_options_are_told(options, said):
    with pytest.raises(UserError, match=said):
        make(**options)
