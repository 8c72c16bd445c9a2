"""Pooling, projection, features at positions, and the hybrid's mixture."""

import pytest
import torch

from medssl.networks.heads import Comparer, Projector, at_cells, at_places, mixed, pool, pool_within


def test_pool_is_the_mean_over_positions():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = torch.tensor([[sum(float(v) for v in c.flatten()) / 20 for c in image] for image in x]).double()
    assert torch.allclose(pool(x), expected, atol=1e-6)
    assert pool(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("size", [(4, 6), (4, 6, 2)])
def test_a_structure_is_the_mean_over_its_voxels_each_with_its_cells_feature(size):
    grid = tuple(n // 2 for n in size)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *grid, dtype=torch.float64, generator=generator)
    mask = torch.randint(0, 3, (2, *size), generator=generator)
    row, label = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 1])
    for found, r, one in zip(pool_within(x, mask, row, label), row.tolist(), label.tolist(), strict=True):
        voxels = [tuple(v) for v in (mask[r] == one).nonzero().tolist()]
        cells = torch.stack([x[(r, slice(None), *(i // 2 for i in v))] for v in voxels])
        assert torch.allclose(found, cells.mean(0), atol=1e-12) and len(voxels) > 1
    none = torch.zeros(0, dtype=torch.long)
    assert pool_within(x.requires_grad_(), mask, none, none).requires_grad


def test_projector_is_fc_relu_fc_in_float32():
    torch.manual_seed(0)
    head, x = Projector(6, hidden=5, out=3), torch.randn(4, 6)
    first, last = head.layers[0], head.layers[2]
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    assert torch.allclose(head(x), hidden @ last.weight.T + last.bias, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = head(x.bfloat16())
    assert inside.dtype == torch.float32 and torch.equal(inside, head(x.bfloat16().float()))


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 2)])
def test_features_at_cells_and_at_their_centres_agree(shape):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *shape)
    cells = torch.stack([torch.randperm(x[0, 0].numel())[:5] for _ in range(2)])
    index = torch.stack(torch.unravel_index(cells, shape), dim=-1)
    places = ((2 * index + 1) / torch.tensor(shape) - 1).flip(-1)
    found = at_cells(x, cells)
    for row in range(10):
        b, a = divmod(row, 5)
        assert torch.equal(found[row], x[(b, slice(None), *index[b, a].tolist())])
    assert torch.allclose(at_places(x, places), found, atol=1e-5)


def test_positions_and_shares_are_not_rounded_with_the_map():
    torch.manual_seed(0)
    x, places = torch.randn(1, 3, 8, 8).bfloat16(), torch.rand(1, 20, 2) * 2 - 1
    found = at_places(x, places)
    assert found.dtype == torch.float32 and torch.equal(found, at_places(x.float(), places))
    x, mask, one = torch.randn(1, 3, 2, 2).bfloat16(), torch.zeros(1, 64, 64, dtype=torch.long), torch.tensor([1])
    mask[0, :27, :33] = mask[0, 40:, 40:] = 1
    assert torch.equal(pool_within(x, mask, one - 1, one), pool_within(x.float(), mask, one - 1, one))


def test_mixture_of_every_level():
    a, b = ([torch.randn(2, c, 3, dtype=torch.float64) for c in (2, 4)] for _ in range(2))
    for x, y, z in zip(a, b, mixed(a, b, 0.7), strict=True):
        assert torch.allclose(z, 0.7 * x + 0.3 * y, atol=1e-14)


def test_all_of_the_first_is_the_first():
    a, b = [torch.randn(2, 3, 4)], [torch.randn(2, 3, 4)]
    assert torch.equal(mixed(a, b, 1.0)[0], a[0])


def test_the_border_goes_on_to_the_edge():
    x = torch.ones(1, 2, 4, 4)
    assert torch.allclose(at_places(x, torch.tensor([[[-1.0, 1.0], [0.99, 0.0]]])), torch.ones(2, 2))


def test_comparer_is_a_normalised_mean_and_its_prediction():
    torch.manual_seed(0)
    head, x = Comparer(3).double(), torch.randn(5, 3, 4, 2, dtype=torch.float64)
    first, norm, _, last = head.predictor

    def normalised(rows, layer):
        return (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + layer.eps).sqrt()

    z, p = head(x)
    torch.testing.assert_close(z, normalised(x.flatten(2).mean(2), head.norm))
    torch.testing.assert_close(p, last(normalised(first(z), norm).clamp(min=0)))
    assert first.out_features == 6
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(out.dtype == torch.float32 for out in Comparer(3)(x.bfloat16()))
