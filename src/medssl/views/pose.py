"""The pose of a reconstruction: a view goes in as it is, T_t of it is to come out."""

from dataclasses import replace
from math import prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.rng import Rng
from medssl.views import geometry
from medssl.views.pair import Pair, PairConfig
from medssl.views.turn import turn, turn_matrix, unturn


def before_turn(pair: Pair, rng: Rng, mirror: bool = True) -> Pair:
    """Take T out of the network's inputs and leave it in the targets: clean = T_t(x without corruption).

    Where inputs and targets share a pose, a decoder may ignore the code t; now only t tells what to rebuild. With
    ``mirror`` inputs are flipped on their own (images left-right, volumes along every axis): with T_w the turn that was
    drawn and U these flips, the input is U(crop), the target stays T_w(crop), and t names T_t = T_w·U.
    """
    changes: dict[str, Tensor] = {}
    for i in "12":
        drawn, place = getattr(pair, f"t{i}"), getattr(pair, f"place{i}")
        size, dims = tuple(pair.x1.shape[2:]), pair.x1.ndim - 2
        flips = sample_mirror(rng, f"views/{i}", len(drawn), dims, mirror).to(drawn)
        code = torch.cat([(drawn[:, :dims] - flips).abs(), drawn[:, dims:]], dim=1)
        changes |= {f"x{i}": unturn(getattr(pair, f"x{i}"), code), f"t{i}": code}
        changes[f"place{i}"] = place @ torch.linalg.inv(turn_matrix(code, size))
    return replace(pair, **changes)


def without_turn(pair: Pair) -> Pair:
    """A pair after ``before_turn`` with T left out of the targets too: clean is x without corruption, t says so."""
    still = torch.zeros_like(pair.t1)
    still[:, pair.x1.ndim - 2] = 1  # no flip, no quarter turn
    posed = {f"clean{i}": unturn(getattr(pair, f"clean{i}"), getattr(pair, f"t{i}")) for i in "12"}
    for i in "12":  # what was taken away is told where the target shows it
        posed[f"corrupted{i}"] = unturn(getattr(pair, f"corrupted{i}")[:, None], getattr(pair, f"t{i}"))[:, 0]
    return replace(pair, t1=still, t2=still.clone(), **posed)


def sample_mirror(rng: Rng, name: str, n: int, dims: int, mirror: bool = True) -> Float[Tensor, "n d"]:
    """Which axes of an input are flipped, 0 or 1: a volume along every axis, an image left-right, keeping its top."""
    flips = torch.from_numpy(rng.uniform(f"{name}/mirror", n, dims) < 0.5 * mirror).float()
    if dims == 2:
        flips[:, 0] = 0
    return flips


@torch.no_grad()
def clean_view(
    images: Float[Tensor, "b c *region"], config: PairConfig, rng: Rng, mirror: bool = True
) -> Float[Tensor, "b c *s"]:
    """What the first input of a pair shows before anything is corrupted: the same crop, rotation and flips."""
    n, dims = len(images), len(config.size)
    box = geometry.sample_box(rng, n, tuple(images.shape[2:]), config.scale, config.ratio)
    angles = geometry.sample_angles(rng, "views/1/rotate", n, dims, config.rotate_p, config.rotate_deg)
    return mirrored(
        geometry.apply_crop(images, box, angles, config.size), sample_mirror(rng, "views/1", n, dims, mirror)
    )


def mirrored(images: Float[Tensor, "b c *s"], flips: Float[Tensor, "b d"]) -> Float[Tensor, "b c *s"]:
    """Flip each sample along its axes of 1."""
    still = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(flips), 4)
    return turn(images, torch.cat([flips, still], dim=1))


def anchors(
    pair: Pair, stride: tuple[int, ...], count: int, rng: Rng
) -> tuple[Int[Tensor, "b a"], Float[Tensor, "b a d"], Bool[Tensor, "b a"]]:
    """Up to ``count`` cells a sample, drawn from those of view 1 that view 2 shows too; cells span ``stride`` voxels.

    Their flat numbers, where they lie in view 2 (as ``grid_sample`` takes it), and whether they really do: where
    fewer cells are shared, the rest are marked.
    """
    size = tuple(pair.x1.shape[2:])
    grid = tuple(n // s for n, s in zip(size, stride, strict=True))
    chance = torch.from_numpy(rng.uniform("views/anchors", len(pair.x1), prod(grid)))
    return geometry.shared_cells(pair.place1, pair.place2, size, grid, count, chance)


def poses(size: tuple[int, ...]) -> tuple[list[str], Float[Tensor, "n k"]]:
    """A few poses to look at, with their names: as it is, each flip, and the quarter turns that the sides allow."""
    dims = len(size)
    turns = [1, 2, 3] if size[0] == size[1] else [2]
    codes = torch.zeros(1 + dims + len(turns), dims + 4)
    codes[: 1 + dims, dims] = 1
    codes[1 : 1 + dims, :dims] = torch.eye(dims)
    for row, k in enumerate(turns, start=1 + dims):
        codes[row, dims + k] = 1
    names = ["as it is", *(f"flip axis {axis}" for axis in range(dims)), *(f"turn {90 * k}°" for k in turns)]
    return names, codes
