"""CMCL against its equations, with anything missing, in chunks, and in a user's own loop."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from cmcl_case import CODES, batch_of, make, values, views_of
from torch.nn.functional import normalize

from medssl.contract import Batch, backpropagate
from medssl.errors import UserError
from medssl.methods.cmcl import CMCL
from medssl.networks.heads import pool
from medssl.networks.text import Vector
from medssl.rng import Rng


def naive_align(model, views, tau=0.07):
    """Every image and every study's report by itself, then pair by pair of modalities, row by row."""
    samples = []
    for i, code in enumerate(views["codes"]):
        maps = model.space.towers[code](views["x"][i : i + 1])
        z = normalize(model.space.heads[code](pool(maps[-1])), dim=1)[0]
        samples.append((code, int(views["subject"][i]), int(views["patient"][i]), tuple(views["text"][i].tolist()), z))
    told = {(s[1], s[2], s[3]) for s in samples if any(s[3])}
    for subject, patient, text in sorted(told):
        tokens = torch.tensor([[token for token in text if token]])
        z = normalize(model.space.text_head(model.space.text(tokens)[-1]), dim=1)[0]
        samples.append((2, subject, patient, text, z))
    total = 0.0
    for first, second in itertools.combinations(range(3), 2):
        for a, b in ((first, second), (second, first)):
            rows = []
            for one in (s for s in samples if s[0] == a):
                related = [
                    (o, one[1] == o[1] or (2 in (a, b) and any(one[3]) and one[3] == o[3]))
                    for o in samples
                    if o[0] == b
                ]
                below = sum(math.exp(float(one[4] @ o[4]) / tau) for o, same in related if not same and o[2] != one[2])
                mine = []
                for other, same in related:
                    if same:
                        above = math.exp(float(one[4] @ other[4]) / tau)
                        mine.append(-math.log(above / (above + below)))
                if mine:
                    rows.append(sum(mine) / len(mine))
            total += sum(rows) / max(len(rows), 1) / 2
    return total


@pytest.mark.parametrize("dims", [2, 3])
def test_align_equals_its_equation_whatever_is_missing(dims):
    model = make(dims=dims)
    views = views_of(model, batch_of(model))
    with torch.no_grad():
        assert float(values(model, views)["align"]) == pytest.approx(naive_align(model, views), abs=1e-10)


OPTIONS = {
    "plain": {},
    "learnt temperature": {"learn_temperature": True},
    "sigmoid": {"loss": "sigmoid", "learn_temperature": True},
    "hard": {"hard_beta": 0.5, "hard_top": 2},
    "local": {"local_weight": 0.7, "learn_temperature": True},
    "rebuilding": {"rebuild_weight": 0.3},
    "trunk": {"share": "trunk"},
    "all": {"share": "all", "local_weight": 0.5, "rebuild_weight": 0.2},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_in_chunks_every_gradient_is_that_of_the_whole_batch(name, chunk):
    whole, parts = make(**OPTIONS[name]), make(**OPTIONS[name], chunk=chunk)
    views = views_of(whole, batch_of(whole))
    expected = values(whole, views)
    torch.stack(list(expected.values())).sum().backward()
    found = backpropagate(parts.losses(views, 0.0))
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert float(value) == pytest.approx(float(expected[key].detach()), abs=1e-12)
    seen = set()
    for (n, p), (_, q) in zip(whole.named_parameters(), parts.named_parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), n
        if p.grad is not None:
            assert float((p.grad - q.grad).abs().max()) <= 1e-10, n
            seen.add(n)
    assert ("temperature.log_scale" in seen) == bool(OPTIONS[name].get("learn_temperature"))
    assert all(p.grad is not None for p in whole.parameters())


def test_a_batch_without_pairs_is_zero_and_has_a_graph():
    model = make(local_weight=1.0, learn_temperature=True)
    views = views_of(model, batch_of(model, [0, 2, 3], text=False))  # three studies in one modality
    terms = values(model, views)
    assert {name: float(value.detach()) for name, value in terms.items()} == {"align": 0, "local": 0, "words": 0}
    assert all(value.requires_grad for value in terms.values())
    backpropagate(model.losses(views, 0.0))
    assert all(bool((p.grad == 0).all()) for p in model.space.towers[0].parameters())


def test_discrimination_sees_modalities_and_not_subjects():
    model = make({"CT": "unet", "MR": "unet"}, objective="discriminate", share="all")
    views = views_of(model, batch_of(model, text=False))
    z = normalize(model.space.heads[0](pool(model.space.towers[0](views["x"])[-1])), dim=1)
    total = [
        math.log1p(math.exp(-(1 if CODES[i] == CODES[j] else -1) * float(z[i].detach() @ z[j].detach()) / 0.07))
        for i, j in itertools.permutations(range(6), 2)
    ]
    assert float(values(model, views)["discriminate"].detach()) == pytest.approx(sum(total) / len(total), abs=1e-10)


def test_a_scheduled_temperature_follows_progress_and_a_learnt_one_is_bounded():
    model = make(temperature=(0.2, 0.1))
    views = views_of(model, batch_of(model))
    with torch.no_grad():
        for progress, tau in ((0.0, 0.2), (0.5, 0.15), (1.0, 0.1)):
            found = float(values(model, views, progress)["align"])
            assert found == pytest.approx(naive_align(model, views, tau), abs=1e-10)
    model = make(learn_temperature=True)
    with torch.no_grad():
        model.temperature.log_scale += 9
    model.after_step(0.0)
    assert model.measures(0.5) == {"temperature": pytest.approx(0.01)}


def test_equal_places_meet_whatever_crop_shows_them():
    """Images whose grey value is their world position: the features that meet are equal, crop and grid apart."""
    model = make({"CT": "unet", "MR": "unet"}, local_weight=1.0, anchors=9, size=32, crop=(0.5, 0.9))
    n, region = 4, model.region()
    grid = torch.stack(torch.meshgrid(*(torch.arange(s).double() for s in region), indexing="ij"))
    place = torch.eye(3).double().repeat(n, 1, 1)
    place[:, [0, 1], [0, 1]] = torch.tensor([1.0, 0.5, 1.0, 0.5]).double()[:, None]  # finer grids of the second
    place[1::2, :2, 2] = 4.0
    world = torch.einsum("bij,jhw->bihw", place[:, :2, :2], grid) + place[:, :2, 2, None, None]
    batch = Batch.of(torch.rand(n, 1, *region), modality=torch.arange(n) % 2)
    met = model.views(replace(batch, subject=torch.arange(n) // 2, place=place), Rng(0, 0))["meetings"]
    (group,) = met.groups
    assert group.rows[0].tolist() == group.rows[1].tolist() == [0, 1] and bool(met.shown.any())
    shown = met.world_mm[met.shown].double()
    for low, high in ((0, world[0].flatten(1).amax(1)), (4, 4 + 0.5 * (torch.tensor(region) - 1))):
        assert bool((shown >= low - 1).all()) and bool((shown <= high + 1).all())  # inside both regions
    assert sorted(met.sample.unique().tolist()) == [0, 2] and len(met.sample) == 2 * group.cells.shape[1]


BAD = {
    "temperature": {"temperature": 0.0},
    "learn_temperature is True": {"learn_temperature": True, "temperature": (0.2, 0.1)},
    "crop": {"crop": (0.9, 0.2)},
    "no hard negatives": {"loss": "sigmoid", "hard_top": 3},
    "discriminate needs share=all": {"objective": "discriminate"},
    "loss is 'clip'": {"loss": "clip"},
}


@pytest.mark.parametrize("said", BAD)
def test_wrong_options_are_told_in_one_sentence(said):
    with pytest.raises(UserError, match=said) as caught:
        make(**BAD[said])
    assert "\n" not in str(caught.value)


def test_scans_of_one_modality_need_a_text():
    codes, patients = torch.zeros(4, dtype=torch.long), torch.arange(4)
    make().check_scans(codes, patients)
    images = make({"CT": "unet", "MR": "unet"})
    images.check_scans(torch.tensor([0, 1, 0, 0]), patients)
    with pytest.raises(UserError, match="all training scans are of modality 'CT': add scans of another"):
        images.check_scans(codes, patients)


def test_one_sample_that_batch_norm_cannot_take_is_told():
    model = make({"CT": "unet", "MR": "unet"}, norm="batch")
    views = views_of(model, batch_of(model, [0, 1, 2], text=False))
    with pytest.raises(UserError, match=r"one sample of 'MR' at once, of the smallest patch \(--batch\): give more"):
        backpropagate(model.losses(views, 0.0))
    model.eval()
    backpropagate(model.losses(views, 0.0))


def test_near_equal_chunks_leave_no_sample_alone():
    """Seven by three are 2, 2 and 3, where a remainder would be one."""
    model = make({"CT": "unet", "MR": "unet"}, norm="batch")
    views = views_of(model, batch_of(model, [0, 1] * 7, text=False))
    model.chunk = 3
    backpropagate(model.losses(views, 0.0))
    model.chunk = 1
    with pytest.raises(UserError, match="one sample of 'CT' at once"):
        backpropagate(model.losses(views, 0.0))


def test_fewer_than_two_towers_or_an_unknown_one_are_told():
    for said, towers in {
        "towers for 'CT': nothing to align": {"CT": "unet"},
        "towers for 'a', 'b': nothing": {"a": Vector(3), "b": Vector(3)},
        "tower 'x' is 'resnet9'": {"CT": "unet", "x": "resnet9"},
    }.items():
        with pytest.raises(UserError, match=said) as caught:
            make(towers)
        assert "\n" not in str(caught.value) and caught.value.fix
    with pytest.raises(UserError, match="towers for nothing: nothing to align"):
        CMCL()
