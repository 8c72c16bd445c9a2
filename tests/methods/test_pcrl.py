"""PCRL against its equations, written out number by number in float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from medssl.contract import Term, backpropagate, one_graph

VARIANTS = {
    "default": {},
    "group norm": {"norm": "group"},
    "mix": {"mix": True},
    "patch": {"contrast": "patch"},
    "both, mixed": {"contrast": "both", "mix": True, "rebuild": "corrupted"},
    "view": {"target": "view"},
    "corrupted": {"rebuild": "corrupted"},
    "outer": {"attention": "outer"},
    "no gate": {"attention": "none"},
    "turned skips": {"skips": "turned"},
    "no skips": {"skips": "none", "mix": True},
    "no hybrid": {"rebuild_hybrid": False},
    "schedule": {"rebuild_weight": (2.0, 0.5)},
    "balanced": {"rebuild_weight": "balanced"},
    "split batch": {"batch_groups": 2},
    "contrast only": {"rebuild_weight": 0.0, "mix": True},
    "reconstruction only": {"contrast_weight": 0.0, "rebuild_momentum": False},
}


def values(model, views, progress=0.0):
    with one_graph():
        return {t.name: t.value for t in model.losses(views, progress) if isinstance(t, Term)}


def turned(x, code):
    """T by numpy, a sample at a time: flips, then quarter turns of the first two axes."""
    out = []
    for image, c in zip(x.numpy(), code.numpy(), strict=True):
        dims = image.ndim - 1
        axes = [a + 1 for a in range(dims) if c[a] > 0.5]
        image = np.flip(image, axes) if axes else image
        out.append(np.rot90(image, int(c[dims:].argmax()), axes=(1, 2)))
    return torch.from_numpy(np.stack(out).copy())


def squared(a, b):
    """Mean squared error over every number."""
    pairs = zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
    errors = [(x - y) ** 2 for x, y in pairs]
    return sum(errors) / len(errors)


def gated(model, maps, code):
    """F' = F ⊙ g on the coarsest map, channel by channel."""
    gates = model.attention.channel(code)
    coarse = maps[-1].clone()
    for b, c in itertools.product(range(coarse.shape[0]), range(coarse.shape[1])):
        coarse[b, c] = maps[-1][b, c] * gates[b, c]
    return [*maps[:-1], coarse]


def nce(model, q, k, views, partner=None):
    """InfoNCE over the queue; ids of the image and, where it is mixed, of its partner are left out."""
    total = 0.0
    for i in range(len(q)):
        own = {int(views["item"][i])} | ({int(views["item"][partner[i]])} if partner is not None else set())
        q_i, k_i = q[i] / q[i].norm(), k[i] / k[i].norm()
        positive = math.exp(float(q_i @ k_i) / 0.2)
        below = positive
        for j in range(int(model.queue.filled)):
            if int(model.queue.items[j]) not in own:
                below += math.exp(float(q_i @ model.queue.keys[j]) / 0.2)
        total -= math.log(positive / below)
    return total / len(q)


def pooled(x):
    return x.flatten(2).mean(2)


@torch.no_grad()
def naive(model, views):
    """The docstring of ``PCRL.losses``, term by term, unweighted."""
    x1, x2, alpha, share, order = (views[name] for name in ("x1", "x2", "alpha", "lambda", "order"))
    f_o, f_m = model.encoder(x1), model.teacher["encoder"](x2)
    target1, target2 = turned(x1, views["t1"]), turned(x2, views["t2"])
    mixture = [
        torch.stack([alpha * a + (1 - alpha) * b for a, b in zip(x, y, strict=True)])
        for x, y in zip(gated(model, f_o, views["t1"]), gated(model, f_m, views["t2"]), strict=True)
    ]
    head = model.teacher["projector"]
    raw = head(pooled(f_m[-1]))
    found = {
        "contrast": nce(model, model.projector(pooled(f_o[-1])), raw, views),
        "rebuild_ordinary": squared(model.decoder(gated(model, f_o, views["t1"])), target1),
        "rebuild_momentum": squared(model.decoder(gated(model, f_m, views["t2"])), target2),
        "rebuild_hybrid": squared(model.decoder(mixture), alpha * target1 + (1 - alpha) * target2),
    }
    if model.config.mix:
        mix = lambda x: torch.stack([share * x[i] + (1 - share) * x[order[i]] for i in range(len(x))])  # noqa: E731
        maps = model.encoder(mix(x1))
        query = model.projector(pooled(maps[-1]))
        seen = head(pooled(model.teacher["encoder"](mix(x2))[-1]))
        found["contrast_mixed"] = nce(model, query, seen, views, order)
        found["contrast_mixed_keys"] = nce(model, query, mix(raw), views, order)
        found["rebuild_mixed"] = squared(model.decoder(maps), mix(x1))
    return found


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_term_equals_its_equation(make, views_of, mix, dims):
    model = make(dims=dims, target="view", mix=mix, norm="group", queue=12, contrast_weight=2.0, rebuild_weight=0.5)
    views = views_of(model, b=3)
    found, expected = values(model, views), naive(model, views)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        weight = 2.0 / (3 if mix else 1) if name.startswith("contrast") else 0.5 / (4 if mix else 3)
        assert float(value.detach()) == pytest.approx(weight * expected[name], abs=1e-12)


@torch.no_grad()
def rebuilt_by_hand(model, x, code, skips):
    """D of the gated coarsest map and of skips that are made here."""
    maps = gated(model, model.encoder(x), code)
    return model.decoder([skips(level, code) for level in maps[:-1]] + [maps[-1]])


@pytest.mark.parametrize(
    ("skips", "by_hand"),
    [("turned", turned), ("none", lambda level, code: level * 0), ("plain", lambda level, code: level)],
)
def test_skips_are_turned_alike_or_left_out(make, views_of, skips, by_hand):
    model = make(
        skips=skips, target="view", norm="group", contrast_weight=0.0, rebuild_momentum=False, rebuild_hybrid=False
    )
    views = views_of(model, b=3)
    found = values(model, views)
    expected = squared(rebuilt_by_hand(model, views["x1"], views["t1"], by_hand), turned(views["x1"], views["t1"]))
    assert set(found) == {"rebuild_ordinary"}
    assert float(found["rebuild_ordinary"].detach()) == pytest.approx(expected, abs=1e-12)


def test_without_a_gate_the_view_is_rebuilt_as_it_lies(make, views_of):
    model = make(attention="none", target="view", norm="group", contrast_weight=0.0)
    views = views_of(model, b=3)
    found = values(model, views)
    with torch.no_grad():
        expected = squared(model.decoder(model.encoder(views["x1"])), views["x1"])
    assert float(found["rebuild_ordinary"].detach()) == pytest.approx(expected / 3, abs=1e-12)


def test_patch_contrast_equals_its_equation(make, views_of):
    model = make(contrast="patch", rebuild_weight=0.0, size=32)
    views = views_of(model, b=3)
    with torch.no_grad():
        ours, theirs = model.encoder(views["x1"])[model._level], model.teacher["encoder"](views["x2"])[model._level]
        cells, there, shown = views["anchors"]
        side = ours.shape[-1]
        anchors = list(itertools.product(range(3), range(cells.shape[1])))
        q, k = [], []
        for b, a in anchors:
            row, column = divmod(int(cells[b, a]), side)
            spot = torch.nn.functional.grid_sample(
                theirs[b : b + 1], there[b, a].view(1, 1, 1, 2).double(), padding_mode="border", align_corners=False
            )
            q.append(model.patch_projector(ours[b, :, row, column][None])[0])
            k.append(model.teacher["patch_projector"](spot.view(1, -1))[0])
        q, k = ([v.double() / v.double().norm() for v in x] for x in (q, k))
        total, count = 0.0, 0
        for i, (b, a) in enumerate(anchors):
            if not shown[b, a]:
                continue
            positive = math.exp(float(q[i] @ k[i]) / 0.2)
            below = positive
            for j, (c, e) in enumerate(anchors):
                (r1, s1), (r2, s2) = divmod(int(cells[b, a]), side), divmod(int(cells[c, e]), side)
                far = b != c or max(abs(r1 - r2), abs(s1 - s2)) > 1
                if far and shown[c, e]:
                    below += math.exp(float(q[i] @ k[j]) / 0.2)
            total, count = total - math.log(positive / below), count + 1
    assert count > 0
    assert float(values(model, views)["contrast_patch"].detach()) == pytest.approx(total / count, abs=1e-6)


# One code path serves 2D and 3D; two variants stand for it in 3D.
@pytest.mark.parametrize(("dims", "variant"), [*((2, name) for name in VARIANTS), (3, "default"), (3, "both, mixed")])
def test_branchwise_gradient_equals_one_graph(make, views_of, variant, dims):
    model = make(dims=dims, **VARIANTS[variant])
    views = views_of(model, b=4 if dims == 2 else 2)
    names = list(backpropagate(model.losses(views, 0.3)))
    branchwise = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad(set_to_none=True)
    whole = values(model, views, 0.3)
    torch.stack([v.double() for v in whole.values()]).sum().backward()
    assert names == list(whole)
    for n, p in model.named_parameters():
        if p.requires_grad:
            assert (p.grad is None) == (branchwise[n] is None), n
            if p.grad is not None:
                assert float((p.grad - branchwise[n]).abs().max()) <= 1e-12, n


def test_all_of_the_ordinary_branch_is_the_ordinary_term(make, views_of):
    model = make()
    views = views_of(model)
    views.drawn["alpha"] = 1.0
    found = values(model, views)
    assert float((found["rebuild_hybrid"] - found["rebuild_ordinary"]).abs()) < 1e-14


def test_constant_features_give_log_of_the_number_of_keys(make, views_of):
    model = make(rebuild_weight=0.0)
    for head in (model.projector, model.teacher["projector"]):
        torch.nn.init.zeros_(head.layers[2].weight)
        torch.nn.init.ones_(head.layers[2].bias)
    views = views_of(model, filled=0)
    model.queue.enqueue(torch.ones(7, 6).double() / 6**0.5, torch.arange(100, 107), torch.arange(100, 107))
    assert float(values(model, views)["contrast"].detach()) == pytest.approx(math.log(8), abs=1e-6)


def test_weight_follows_progress(make, views_of):
    model, views = make(rebuild_weight=(2.0, 0.5), contrast_weight=0.0), None
    views = views_of(model)
    start, half, end = (float(values(model, views, p)["rebuild_hybrid"].detach()) for p in (0.0, 0.5, 1.0))
    assert half == pytest.approx(start * 1.25 / 2) and end == pytest.approx(start * 0.25)


def test_balanced_makes_both_gradients_equally_strong(make, views_of):
    model = make(rebuild_weight="balanced", norm="group")
    views = views_of(model)
    for _ in range(2):  # the first pass measures, the second obeys
        model.zero_grad()
        backpropagate(model.losses(views, 0.0))
        contrast, rebuild = model.noted[-1]["norms"].tolist()
        ratio = float(model.balance.weight()) * rebuild / contrast
        model.balance.observe(model.noted[-1]["norms"])
    assert ratio == pytest.approx(1.0, rel=1e-5)
