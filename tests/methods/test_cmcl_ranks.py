"""Two gloo ranks with uneven shares of a batch have the terms and the gradients of one process."""

import socket

import pytest
import torch
import torch.multiprocessing as mp
from cmcl_case import batch_of, make, views_of

from medssl import distributed
from medssl.contract import backpropagate

ALL = {"local_weight": 0.5, "learn_temperature": True}
# Where the second rank's share begins. Studies that ranks share meet in the global form only; in the last case the
# second rank has one modality, and no positions that two images share.
CASES = {
    "two and four": (2, ALL),
    "five and one": (5, ALL),
    "a study on both": (4, {"learn_temperature": True}),
    "sigmoid": (4, {"loss": "sigmoid", "learn_temperature": True}),
    "discriminate": (4, {"towers": {"CT": "unet", "MR": "unet"}, "objective": "discriminate", "share": "all"}),
}


def learnt(options, rows):
    model = make(**options)
    views = views_of(model, batch_of(model, rows, text=model.space.text is not None), start=rows[0])
    terms = backpropagate(model.losses(views, 0.0))
    distributed.average_gradients(model.parameters())
    return {k: float(v) for k, v in terms.items()}, [None if p.grad is None else p.grad for p in model.parameters()]


def _rank(rank, port, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {}
    for name, (border, options) in CASES.items():
        terms, grads = learnt(options, range(border, 6) if rank else range(border))
        found[name] = terms, [g.tolist() for g in grads]
    results[rank] = found
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_rank, args=(port, results), nprocs=2)
        return dict(results)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one(both, name):
    terms, grads = learnt(CASES[name][1], range(6))
    for rank in (0, 1):
        assert both[rank][name][0] == pytest.approx(terms, abs=1e-6)
        for theirs, ours in zip(both[rank][name][1], grads, strict=True):
            assert float((torch.tensor(theirs, dtype=torch.float64) - ours).abs().max()) <= 1e-6
