import itertools

import numpy as np
import pytest
import torch

from medssl.rng import Rng
from medssl.views.turn import code_size, sample_turn, turn, turn_matrix, unturn

SIZES = [(6, 6), (5, 4), (4, 4, 3), (4, 3, 2)]


def codes_of(size: tuple[int, ...]) -> torch.Tensor:
    """Every transformation that this size allows."""
    turns = range(4) if size[0] == size[1] else (0, 2)
    flips = itertools.product((0, 1), repeat=len(size))
    return torch.tensor([[*f, *np.eye(4)[k]] for f, k in itertools.product(flips, turns)], dtype=torch.float32)


@pytest.mark.parametrize("size", SIZES)
def test_turn_flips_then_turns_as_numpy_does(size: tuple[int, ...]) -> None:
    codes = codes_of(size)
    x = torch.rand(len(codes), 2, *size)
    for image, code, turned in zip(x.numpy(), codes.numpy(), turn(x, codes).numpy(), strict=True):
        wanted = np.flip(image, [1 + axis for axis in range(len(size)) if code[axis]])
        wanted = np.rot90(wanted, int(code[len(size) :].argmax()), axes=(1, 2))
        assert np.array_equal(turned, wanted)


@pytest.mark.parametrize("size", SIZES)
def test_turning_back_is_the_identity(size: tuple[int, ...]) -> None:
    codes = codes_of(size)
    x = torch.rand(len(codes), 1, *size)
    assert torch.equal(unturn(turn(x, codes), codes), x)
    assert torch.equal(turn(unturn(x, codes), codes), x)


@pytest.mark.parametrize("size", SIZES)
def test_the_matrix_says_where_each_voxel_came_from(size: tuple[int, ...]) -> None:
    codes = codes_of(size)
    where = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij"))
    turned = turn(where.expand(len(codes), *where.shape), codes).flatten(2)  # (b, dims, voxels): index before T
    points = torch.cat([where.flatten(1), torch.ones(1, turned.shape[2])])
    assert torch.equal((turn_matrix(codes, size) @ points)[:, :-1], turned)


@pytest.mark.parametrize("size", SIZES)
def test_codes_are_flips_and_a_one_hot_turn(size: tuple[int, ...]) -> None:
    codes = sample_turn(Rng(0, 0), "turn", 400, size)
    dims = len(size)
    assert codes.shape == (400, code_size(dims)) == (400, 6 if dims == 2 else 7)
    flips, k = codes[:, :dims], codes[:, dims:]
    assert torch.equal(k.sum(1), torch.ones(400))
    assert bool(((flips.mean(0) - 0.5).abs() < 0.1).all())
    shares = [0.25] * 4 if size[0] == size[1] else [0.5, 0, 0.5, 0]
    assert torch.allclose(k.mean(0), torch.tensor(shares), atol=0.08)
