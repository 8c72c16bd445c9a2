"""Two gloo ranks compare the modalities of both halves of a batch, and learn what one process would."""

import socket

import torch
import torch.multiprocessing as mp

from medssl import distributed
from medssl.contract import Batch, backpropagate
from medssl.methods.dae import DAE
from medssl.rng import Rng

MODALITY = torch.tensor([0, 0, 1, 1])  # each rank has one modality only, and nothing to compare by itself
PATIENT = torch.tensor([0, 1, 0, 1])


def learnt(rows: slice, cmcl: str) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Terms and averaged gradients of these rows of the batch."""
    model = DAE(encoder="unet", width=4, patch=(16, 16), norm="group", cmcl=cmcl, cmcl_weight=1.0, temperature=0.5)
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch.of(images[rows], PATIENT[rows], modality=MODALITY[rows])
    model.double()
    views = model.views(batch, Rng(0, 0, start=rows.start))
    views.images = {name: image.double() for name, image in views.images.items()}
    terms = backpropagate(model.losses(views, 0.0))
    distributed.average_gradients(model.parameters())
    return {name: float(value) for name, value in terms.items()}, [p.grad for p in model.parameters()]


def _rank(rank, port, results):
    store = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.set_num_threads(1)
    for cmcl in ("discriminate", "align"):
        terms, grads = learnt(slice(2 * rank, 2 * rank + 2), cmcl)
        results[rank, cmcl] = terms["cmcl"], [g.tolist() for g in grads]
    torch.distributed.destroy_process_group()


def test_two_ranks_equal_one_process():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_rank, args=(port, results), nprocs=2)
        found = dict(results)
    for cmcl in ("discriminate", "align"):
        terms, grads = learnt(slice(0, 4), cmcl)
        for rank in (0, 1):
            value, ours = found[rank, cmcl]
            assert terms["cmcl"] > 0 and abs(value - terms["cmcl"]) <= 1e-6
            for a, b in zip(ours, grads, strict=True):
                torch.testing.assert_close(torch.tensor(a, dtype=torch.float64), b, rtol=1e-6, atol=1e-8)
