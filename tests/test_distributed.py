"""Two gloo ranks: gathered rows, their gradients, averaged gradients, absent ones as zeros or absent; one changes
nothing."""

import torch

from medssl import distributed
from two_ranks import two_ranks


def test_one_process_is_the_identity():
    x = torch.arange(3.0)
    assert distributed.gather(x) is x and distributed.gather_rows(x) is x
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    p = torch.nn.Parameter(torch.ones(2))
    distributed.average_gradients([p])
    assert p.grad is None


def _shared_loss(rows, whole):
    """A loss of which each row depends on all rows."""
    return (rows @ whole.T).pow(2).mean()


def _share(rank):
    x = torch.full((2, 3), float(rank))
    a = torch.nn.Parameter(torch.zeros(2, 2, 3, 3).to(memory_format=torch.channels_last))
    b, frozen = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    a.grad = torch.full_like(a, 1.0 + rank)
    strides = a.grad.stride()
    if rank == 1:
        b.grad = torch.full((3,), 4.0)
    idle = torch.nn.Parameter(torch.zeros(2))
    distributed.average_gradients([a, b, frozen, idle])
    ok = idle.grad is None and bool((distributed.gather(x)[:, 0] == torch.tensor([0.0, 0.0, 1.0, 1.0])).all())
    # One row on rank 0, three on rank 1; the same loss of all four on both.
    mine = torch.arange(4.0)[:, None][1:] if rank else torch.arange(4.0)[:1, None]
    mine.requires_grad_()
    rows = distributed.gather_rows(mine)
    (rows.squeeze(1) ** 3).sum().backward()
    none = distributed.gather_rows(torch.ones(2 * rank, 2, dtype=torch.long))
    ok &= rows.flatten().tolist() == [0, 1, 2, 3] and none.tolist() == [[1, 1], [1, 1]]
    nobody = torch.ones(0, 2, requires_grad=True)
    distributed.gather_rows(nobody).sum().backward()
    ok &= nobody.grad.shape == (0, 2)
    ok &= torch.equal(mine.grad / 2, 3 * mine.detach() ** 2)  # both ranks' gradients, as an average will halve them
    rows = torch.arange(8.0).view(4, 2)[2 * rank : 2 * rank + 2].requires_grad_()
    _shared_loss(rows, distributed.gather_rows(rows)).backward()
    return ok, float(a.grad.mean()), b.grad.tolist(), a.grad.stride() == strides, rows.grad.tolist()


def test_two_ranks():
    found = two_ranks(_share)
    assert [found[r][:4] for r in (0, 1)] == [(True, 1.5, [2.0, 2.0, 2.0], True)] * 2
    rows = torch.arange(8.0).view(4, 2).requires_grad_()
    (2 * _shared_loss(rows, rows)).backward()  # the sum of both ranks' means is twice the mean over all
    torch.testing.assert_close(torch.tensor([found[0][4], found[1][4]]).view(4, 2), rows.grad)
