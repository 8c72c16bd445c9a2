"""CMCL with positives by label and by structure, against loops in float64; and what its terms do to the features."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from cmcl_case import CODES, PATIENT, SUBJECT, batch_of, make, values, views_of
from torch.nn.functional import normalize

from medssl.contract import Shared, Term, backpropagate
from medssl.errors import UserError
from medssl.networks.heads import pool
from medssl.rng import Rng

IMAGES = {"CT": "unet", "MR": "unet"}
LABEL = torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0], [1, 0], [math.nan, math.nan]])  # the last: nobody said


def labelled(model, text=False):
    return replace(batch_of(model, text=text), label=LABEL)


def masked(model):
    """Two organs, side by side; the last image has no mask."""
    batch = batch_of(model, text=False)
    mask = torch.zeros(6, *model.region(), dtype=torch.int16)
    half = model.region()[0] // 2
    mask[:5, :half], mask[1:5, half:] = 1, 2
    return replace(batch, mask=mask)


def infonce(pairs, tau=0.07):
    """``pairs``: for each anchor its positives' and negatives' cosines, in both directions one after the other."""
    halves = []
    for rows in pairs:
        each = []
        for same, other in rows:
            below = sum(math.exp(float(s) / tau) for s in other)
            terms = [math.log(1 + below / math.exp(float(s) / tau)) for s in same]
            each += [sum(terms) / len(terms)] if terms else []
        halves.append(sum(each) / max(len(each), 1))
    return sum(halves) / 2


@torch.no_grad()
def naive_label(model, views):
    z = [normalize(model.space.heads[c](pool(model.space.towers[c](views["x"][i : i + 1])[-1])), dim=1)[0]
         for i, c in enumerate(CODES)]  # fmt: skip
    known = [not bool(row.isnan().any()) for row in LABEL]

    def same(i, j):
        return SUBJECT[i] == SUBJECT[j] or (known[i] and known[j] and torch.equal(LABEL[i], LABEL[j]))

    def apart(i, j):
        return not same(i, j) and known[i] and known[j] and PATIENT[i] != PATIENT[j]

    ways = []
    for a, b in ((0, 1), (1, 0)):
        ours, theirs = ([i for i in range(6) if CODES[i] == m] for m in (a, b))
        rows = [([z[i] @ z[j] for j in theirs if same(i, j)], [z[i] @ z[j] for j in theirs if apart(i, j)])
                for i in ours]  # fmt: skip
        ways.append(rows)
    return infonce(ways)


@torch.no_grad()
def naive_structure(model, views):
    mask, samples, labels = views["structures"]
    vectors = []
    for i, label in zip(samples.tolist(), labels.tolist(), strict=True):
        coarse = model.space.towers[CODES[i]](views["x"][i : i + 1])[-1][0]
        total, count = torch.zeros(len(coarse)).double(), 0
        for voxel in (mask[i] == label).nonzero().tolist():
            cell = tuple(v * g // s for v, g, s in zip(voxel, coarse.shape[1:], mask.shape[1:], strict=True))
            total, count = total + coarse[(slice(None), *cell)], count + 1
        z = normalize(model.space.heads[CODES[i]]((total / count)[None]), dim=1)[0]
        vectors.append((CODES[i], label, z))
    ways = []
    for a, b in ((0, 1), (1, 0)):
        theirs = [v for v in vectors if v[0] == b]
        rows = []
        for z, label in ((z, label) for m, label, z in vectors if m == a):
            same, other = ([z @ o for _, name, o in theirs if (name == label) is alike] for alike in (True, False))
            rows.append((same, other))
        ways.append(rows)
    return infonce(ways)


@pytest.mark.parametrize("dims", [2, 3])
def test_scans_with_one_label_come_together(dims):
    model = make(IMAGES, dims=dims, positives="label")
    views = views_of(model, labelled(model))
    expected = naive_label(model, views)
    assert float(values(model, views)["align"].detach()) == pytest.approx(expected, abs=1e-10) and expected > 0


def test_reports_carry_the_label_of_their_study():
    model = make(positives="label")
    views = views_of(model, labelled(model, text=True))
    before = float(values(model, views)["align"].detach())
    views.drawn["label"] = views["label"][:, :1]  # of two exclusive columns one says it all
    assert float(values(model, views)["align"].detach()) == pytest.approx(before, abs=1e-12)
    views.drawn["label"] = torch.full_like(views["label"], math.nan)
    assert float(values(model, views)["align"].detach()) == 0  # nobody is known to be another


@pytest.mark.parametrize("dims", [2, 3])
def test_structures_come_together_whoever_shows_them(dims):
    # Maps of several positions: within one, all structures would be the same.
    model = make(IMAGES, dims=dims, size=32 if dims == 2 else 16, positives="structure", encoder="unet")
    views = views_of(model, masked(model))
    _, sample, label = views["structures"]
    assert {*label.tolist()} == {1, 2} and 5 not in sample.tolist()
    expected = naive_structure(model, views)
    assert float(values(model, views)["align"].detach()) == pytest.approx(expected, abs=1e-10) and expected > 0
    other = views_of(model, replace(masked(model), patient=torch.zeros(6).long(), subject=torch.arange(6)))
    assert float(values(model, other)["align"].detach()) == pytest.approx(expected, abs=1e-12)


def test_masks_without_a_structure_give_zero_with_a_graph():
    model = make(IMAGES, positives="structure")
    batch = masked(model)
    views = views_of(model, replace(batch, mask=torch.zeros_like(batch.mask)))
    terms = backpropagate(model.losses(views, 0.0))
    assert float(terms["align"]) == 0
    assert all(bool((p.grad == 0).all()) for p in model.space.towers[0].parameters())


CASES = {
    "subject, local, rebuilding": {"local_weight": 0.5, "rebuild_weight": 0.3},
    "label": {"towers": IMAGES, "positives": "label"},
    "structure": {"towers": IMAGES, "positives": "structure", "size": 32},
    "discriminate": {"towers": IMAGES, "objective": "discriminate", "share": "all", "rebuild_weight": 1.0},
}


def views_for(model):
    if model.config.positives == "structure":
        return views_of(model, masked(model))
    return views_of(model, labelled(model, text=model.space.text is not None))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("chunk", [0, 2])
def test_gradients_and_their_norms_are_those_of_each_term_by_itself(name, chunk):
    model = make(**CASES[name], chunk=chunk)
    views, leaves = views_for(model), []

    def cut(_, __, maps):
        leaves.extend(maps := [m.detach().requires_grad_() for m in maps])
        return maps

    towers = [*dict.fromkeys(model.space.pyramids), *([] if model.space.text is None else [model.space.text])]
    hooks = [tower.register_forward_hook(cut) for tower in towers]
    expected = {}
    for key, value in values(model, views).items():
        grads = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
        expected[key] = math.sqrt(sum(float(g.square().sum()) for g in grads if g is not None))
    for hook in hooks:
        hook.remove()
    torch.stack(list(values(model, views).values())).sum().backward()
    whole = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    norms = {}
    backpropagate(model.losses(views, 0.0), norms=norms)
    assert norms.keys() == expected.keys() and min(norms.values()) > 0
    for key, value in norms.items():
        assert value == pytest.approx(expected[key], rel=1e-5), key
    for p, grad in zip(model.parameters(), whole, strict=True):
        assert (p.grad is None) == (grad is None)
        assert grad is None or float((p.grad - grad).abs().max()) <= 1e-10


def test_what_the_batch_does_not_tell_is_asked_for():
    for positives, field in (("label", "Batch.label"), ("structure", "Batch.mask")):
        model = make(IMAGES, positives=positives)
        with pytest.raises(UserError, match=f"positives={positives} reads what .* does not tell: give {field}"):
            model.views(batch_of(model, text=False), Rng(0, 0))


BAD = {
    "label is 'x', which nothing reads: add --positives label": {"label": "x"},
    "discriminate has no use for positives": {"positives": "label", "objective": "discriminate", "share": "all"},
    "a text shows no structure: choose --positives label": {"positives": "structure", "text": "tokens"},
    "positives is 'organ': give one of": {"positives": "organ"},
}


@pytest.mark.parametrize("said", BAD)
def test_wrong_options_are_told_in_one_sentence(said):
    with pytest.raises(UserError, match=said) as caught:
        make(IMAGES, **BAD[said])
    assert "\n" not in str(caught.value)


def test_shared_features_are_sent_back_once():
    model = make(IMAGES, positives="structure")
    items = list(model.losses(views_for(model), 0.0))
    assert [type(item) for item in items] == [Term, Shared, Shared]
    assert list(itertools.chain(*(item.maps for item in items[1:])))
