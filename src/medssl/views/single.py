"""One view of each image, for methods whose other view is another modality."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.rng import Rng
from medssl.views import corrupt, geometry
from medssl.views.pair import PairConfig, change_grey, take_away
from medssl.views.pose import mirrored, sample_mirror


@dataclass(frozen=True)
class Single:
    """x: what the network sees; clean: the same crop before any change; place: voxels of the view to the region's."""

    x: Float[Tensor, "b c *s"]
    clean: Float[Tensor, "b c *s"]
    place: Float[Tensor, "b d1 d1"]


@torch.no_grad()
def single_view(images: Float[Tensor, "b c *region"], config: PairConfig, rng: Rng, mirror: bool) -> Single:
    """Crop, rotate a little, perhaps mirror; then grey values, then what is taken away."""
    n, dims, size = len(images), len(config.size), config.size
    box = geometry.sample_box(rng, n, tuple(images.shape[2:]), config.scale, config.ratio)
    angles = geometry.sample_angles(rng, "views/1/rotate", n, dims, config.rotate_p, config.rotate_deg)
    flips = sample_mirror(rng, "views/1", n, dims, mirror)
    clean = mirrored(geometry.apply_crop(images, box, angles, size), flips)
    kind = corrupt.sample_paint_kind(rng, "views/paint", n, config.paint_p, config.paint_inner)
    x = take_away(change_grey(clean, config, rng, "views/1"), kind, config, rng, "views/1")
    code = torch.cat([flips, torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4)], dim=1)
    return Single(x, clean, geometry.view_matrix(box, angles, code, size).to(images.device))


@dataclass(frozen=True)
class Meeting:
    """Views of two modalities, each pair of one subject; ``rows`` (p,) are numbers among those of their modality.

    ``cells`` (p, a) of the first view; ``there`` (p, a, d): the same in the second, as ``grid_sample`` takes it.
    """

    codes: tuple[int, int]
    rows: tuple[Tensor, Tensor]
    cells: Int[Tensor, "p a"]
    there: Float[Tensor, "p a d"]


@dataclass(frozen=True)
class Meetings:
    """All meetings of a batch; of their n anchors, one after the other: whose they are, shown by both, and where."""

    groups: list[Meeting]
    sample: Int[Tensor, " n"]
    shown: Bool[Tensor, " n"]
    world_mm: Float[Tensor, "n d"]


def meetings(
    codes: Sequence[int],
    subjects: Sequence[int],
    place: Float[Tensor, "b d1 d1"],
    size: tuple[int, ...],
    grids: Sequence[tuple[int, ...]],
    count: int,
    rng: Rng,
) -> Meetings:
    """All pairs of samples of one subject and two modalities, with ``count`` positions that both views show.

    ``place``: voxels of the views to mm in the world. ``grids``: of each modality's feature map.
    """
    device, dims = place.device, len(size)
    groups: list[Meeting] = []
    sample, shown, world = [torch.zeros(0).long()], [torch.zeros(0).bool()], [torch.zeros(0, dims)]
    for first, second in combinations(sorted(set(codes)), 2):
        left, right = ([i for i, c in enumerate(codes) if c == code] for code in (first, second))
        met = _met([subjects[i] for i in left], [subjects[i] for i in right])
        if not met:
            continue
        rows = tuple(torch.tensor(side, device=device) for side in zip(*met, strict=True))
        ours, theirs = [left[i] for i, _ in met], [right[j] for _, j in met]
        a, b = (place[torch.tensor(side, device=device)] for side in (ours, theirs))
        grid = grids[first]
        chance = torch.from_numpy(rng.uniform("views/anchors", len(codes), prod(grid))[ours])
        cells, there, both = geometry.shared_cells(a, b, size, grid, count, chance)
        groups.append(Meeting((first, second), (rows[0], rows[1]), cells, there))
        sample.append(torch.tensor(ours).repeat_interleave(cells.shape[1]))
        shown.append(both.flatten())
        world.append(geometry.cell_points(a, cells, size, grid).flatten(0, 1).float())
    return Meetings(groups, *(torch.cat([x.to(device) for x in parts]) for parts in (sample, shown, world)))


def _met(left: Sequence[int], right: Sequence[int]) -> list[tuple[int, int]]:
    """Which of the left have the subject of which of the right."""
    places: dict[int, list[int]] = {}
    for j, subject in enumerate(right):
        places.setdefault(subject, []).append(j)
    return [(i, j) for i, subject in enumerate(left) for j in places.get(subject, [])]
