"""Two processes learn what one would, and stop at the same step."""

import pytest
import torch
from tiny import Tiny, tiny_batches

from medssl.engine.fit import fit
from medssl.engine.machine import Machine, make_fabric, place
from medssl.engine.optim import make_optimizer
from medssl.engine.stop import Stop
from two_ranks import two_ranks


def _learnt(share, rank=0):
    """The steps told, and the weights; rank 1 is asked to stop at step 3, and all stop."""
    fabric = make_fabric(Machine("cpu", "32", 1))
    torch.manual_seed(0)
    method = place(fabric, Tiny(norm=False), 2)
    told = []
    with Stop() as stop:
        optimizer = make_optimizer(method, lr=1e-2)
        for step in fit(method, tiny_batches(**share), optimizer, fabric, steps=5, lr=lambda progress: 1e-2):
            told.append({"samples": step.samples, **step.floats()})
            stop.requested = step.step == 3 and rank == 1
            if stop.due(agreed=step.logged or step.step == 3):
                break
    return told, {name: value.tolist() for name, value in method.state_dict().items()}


def _share(rank):
    return _learnt({"first": 2 * rank, "last": 2 * rank + 2}, rank)


def test_two_ranks_equal_one_and_stop_together():
    alone, weights = _learnt({}, rank=1)
    for told, theirs in two_ranks(_share).values():
        assert len(told) == 3
        for both, one in zip(told, alone, strict=True):
            assert both == pytest.approx(one, rel=1e-5)
        for name, value in weights.items():
            torch.testing.assert_close(torch.tensor(theirs[name]), torch.tensor(value), rtol=1e-4, atol=1e-6, msg=name)
