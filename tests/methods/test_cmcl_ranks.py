"""Two gloo ranks with uneven shares of a batch have the terms and the gradients of one process."""

from dataclasses import replace

import pytest
import torch
from cmcl_case import batch_of, make, views_of

from medssl import distributed
from medssl.contract import backpropagate
from two_ranks import two_ranks

ALL = {"local_weight": 0.5, "learn_temperature": True}
# Where the second rank's share begins. Studies that ranks share meet in the global form only; in the last case the
# second rank has one modality, and no positions that two images share.
CASES = {
    "two and four": (2, ALL),
    "five and one": (5, ALL),
    "a study on both": (4, {"learn_temperature": True}),
    "sigmoid": (4, {"loss": "sigmoid", "learn_temperature": True}),
    "labels": (4, {"positives": "label", "learn_temperature": True}),
    "structures on one": (2, {"positives": "structure", "towers": {"CT": "unet", "MR": "unet"}}),
    "discriminate": (4, {"towers": {"CT": "unet", "MR": "unet"}, "objective": "discriminate", "share": "all"}),
}


def learnt(options, rows):
    model = make(**options)
    batch = batch_of(model, rows, text=model.space.text is not None)
    mask = torch.zeros(6, *model.region(), dtype=torch.int16)
    mask[:2, :8], mask[1, 8:] = 1, 2  # the second rank has no structure, and still goes backward
    label = torch.tensor([[0.0], [0.0], [1.0], [1.0], [0.0], [1.0]])
    batch = replace(batch, mask=mask[list(rows)], label=label[list(rows)])
    views = views_of(model, batch, start=rows[0])
    terms = backpropagate(model.losses(views, 0.0))
    distributed.average_gradients(model.parameters())
    return {k: float(v) for k, v in terms.items()}, [None if p.grad is None else p.grad for p in model.parameters()]


def _share(rank):
    found = {}
    for name, (border, options) in CASES.items():
        terms, grads = learnt(options, range(border, 6) if rank else range(border))
        found[name] = terms, [g.tolist() for g in grads]
    return found


@pytest.fixture(scope="module")
def both():
    return two_ranks(_share)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one(both, name):
    terms, grads = learnt(CASES[name][1], range(6))
    for rank in (0, 1):
        assert both[rank][name][0] == pytest.approx(terms, abs=1e-6)
        for theirs, ours in zip(both[rank][name][1], grads, strict=True):
            assert float((torch.tensor(theirs, dtype=torch.float64) - ours).abs().max()) <= 1e-6
