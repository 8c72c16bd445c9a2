"""Two gloo ranks compare the modalities of both halves of a batch, and learn what one process would."""

import torch

from medssl import distributed
from medssl.contract import Batch, backpropagate
from medssl.methods.dae import DAE
from medssl.rng import Rng
from two_ranks import two_ranks

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


def _share(rank: int) -> dict[str, tuple[float, list]]:
    found = {}
    for cmcl in ("discriminate", "align"):
        terms, grads = learnt(slice(2 * rank, 2 * rank + 2), cmcl)
        found[cmcl] = terms["cmcl"], [g.tolist() for g in grads]
    return found


def test_two_ranks_equal_one_process():
    found = two_ranks(_share)
    for cmcl in ("discriminate", "align"):
        terms, grads = learnt(slice(0, 4), cmcl)
        for rank in (0, 1):
            value, ours = found[rank][cmcl]
            assert terms["cmcl"] > 0 and abs(value - terms["cmcl"]) <= 1e-6
            for a, b in zip(ours, grads, strict=True):
                torch.testing.assert_close(torch.tensor(a, dtype=torch.float64), b, rtol=1e-6, atol=1e-8)
