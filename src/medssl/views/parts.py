"""Small views beside a pair, for methods that compare parts of an image with larger parts of it."""

from math import prod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medssl.rng import Rng
from medssl.views import geometry
from medssl.views.geometry import SMALLEST, Boxes
from medssl.views.pair import PairConfig, change_grey
from medssl.views.pose import mirrored, sample_mirror

MARGIN = 3  # voxels by which a part may begin outside of both views


def sample_part(
    rng: Rng,
    purpose: str,
    n: int,
    region: tuple[int, ...],
    size: tuple[int, ...],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    around: tuple[Boxes, Boxes] | None = None,
) -> Boxes:
    """A box a sample with the proportions of ``size``, sides apart by ``ratio``, and ``scale`` of the region's volume.

    It begins anywhere it fits, or, with ``around``, inside the box that bounds both of these (three voxels more on
    each side), and is then moved into the region.
    """
    dims, sides = len(region), np.array(region, float)
    chance = rng.uniform(purpose, n, 2 * dims + 1)
    share = scale[0] + (scale[1] - scale[0]) * chance[:, :1]
    aspect = np.log(ratio[0]) + (np.log(ratio[1]) - np.log(ratio[0])) * chance[:, 1 : dims + 1]
    aspect = np.exp((aspect - aspect.mean(axis=1, keepdims=True)) * 0.5)
    unit = (share * prod(region) / prod(size)) ** (1 / dims)
    edge = np.rint(unit * np.array(size) * aspect).clip(np.minimum(SMALLEST, sides), sides)
    start, end = np.zeros((n, dims)), sides - edge + 1
    if around is not None:
        start = np.minimum(*(box.low.numpy() for box in around)) - MARGIN
        end = np.maximum(*((box.low + box.edge).numpy() for box in around)) + MARGIN
        start, end = start.clip(0), np.minimum(end, sides)
    low = np.floor(start + (end - start) * chance[:, dims + 1 :]).clip(0, sides - edge)
    return Boxes(torch.from_numpy(low).float(), torch.from_numpy(edge).float())


@torch.no_grad()
def make_parts(
    images: Float[Tensor, "b c *region"],
    pair: PairConfig,
    rng: Rng,
    *,
    count: int,
    size: tuple[int, ...],
    scale: tuple[float, float],
    near: bool,
    mirror: bool = True,
) -> list[Float[Tensor, "b c *s"]]:
    """``count`` views of ``size``, their grey values changed as the pair's are, nothing taken away.

    ``near``: they begin where the two crops of the pair are, which the same ``rng`` gives once more.
    """
    n, region = len(images), tuple(images.shape[2:])
    around = geometry.sample_box_pair(rng, n, region, pair.scale, pair.ratio, pair.min_iou) if near else None
    found = []
    for name in (f"views/part{k}" for k in range(1, count + 1)):
        box = sample_part(rng, f"{name}/box", n, region, size, scale, pair.ratio, around)
        angles = geometry.sample_angles(rng, f"{name}/rotate", n, len(size), pair.rotate_p, pair.rotate_deg)
        part = geometry.apply_crop(images, box, angles, size)
        part = mirrored(part, sample_mirror(rng, name, n, len(size), mirror))
        found.append(change_grey(part, pair, rng, name))
    return found
