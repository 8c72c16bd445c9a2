"""Light augmentation of labelled images: nothing that could change what the label says.

Crops that lose little, small turns, a touch of contrast, brightness and gamma; mirrored left to right where the task
allows it. Up and down, front and back are never exchanged: anatomy tells them apart, and so may labels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from medssl.rng import Rng
from medssl.views.geometry import Boxes, apply_crop

ZOOM = 1.2  # the region a patch is cut from, as a multiple of the patch
TURN_P, TURN_DEG = 0.3, 10.0
CONTRAST, BRIGHTNESS, GAMMA = 0.15, 0.1, 0.2  # largest relative change; share of the range; of the exponent's log


@dataclass(frozen=True)
class Change:
    """All the chance of one batch. ``mirror`` (b,) bool; the three of ``tone`` (b, 3): contrast, brightness, gamma."""

    boxes: Boxes
    angles: Float[Tensor, "b a"]
    mirror: Tensor
    tone: Float[Tensor, "b 3"]


def region_of(size: tuple[int, ...]) -> tuple[int, ...]:
    """The region from which patches of ``size`` are cut, so that turning and zooming bring in image, not border."""
    return tuple(round(n * ZOOM) for n in size)


def sample_change(rng: Rng, n: int, region: tuple[int, ...], smallest: float, mirror: bool) -> Change:
    """Boxes with sides of ``smallest`` to 1 of the region, anywhere in it, and the rest."""
    dims = len(region)
    sides = np.array(region, float)
    chance = rng.uniform("augment/box", n, dims + 1)
    edge = np.rint((smallest + (1 - smallest) * chance[:, :1]) * sides).clip(1, sides)
    low = np.floor(chance[:, 1:] * (sides - edge + 1))
    turns = rng.uniform("augment/turn", n, 1 + (1 if dims == 2 else 3))
    angles = (2 * turns[:, 1:] - 1) * np.radians(TURN_DEG) * (turns[:, :1] < TURN_P)
    tone = 2 * rng.uniform("augment/tone", n, 3) - 1
    tone = np.stack([1 + CONTRAST * tone[:, 0], BRIGHTNESS * tone[:, 1], np.exp(GAMMA * tone[:, 2])], axis=1)
    return Change(
        Boxes(torch.from_numpy(low).float(), torch.from_numpy(edge).float()),
        torch.from_numpy(angles).float(),
        torch.from_numpy((rng.uniform("augment/mirror", n) < 0.5) & mirror),
        torch.from_numpy(tone).float(),
    )


def centred(n: int, region: tuple[int, ...], size: tuple[int, ...]) -> Change:
    """No change but the cut of the middle."""
    low = torch.tensor([(r - s) // 2 for r, s in zip(region, size, strict=True)]).float().repeat(n, 1)
    edge = torch.tensor(size).float().repeat(n, 1)
    angles = torch.zeros(n, 1 if len(size) == 2 else 3)
    return Change(Boxes(low, edge), angles, torch.zeros(n, dtype=torch.bool), torch.tensor([[1.0, 0, 1]]).repeat(n, 1))


def apply_images(
    images: Float[Tensor, "b c *s"], change: Change, size: tuple[int, ...], value_range: tuple[float, float]
) -> Float[Tensor, "b c *o"]:
    """The changed images, within their value range."""
    moved = mirrored(apply_crop(images, change.boxes, change.angles, size), change.mirror)
    low, high = value_range
    shape = (-1, *(1,) * (images.ndim - 1))
    contrast, brightness, gamma = (t.view(shape).to(images.device) for t in change.tone.unbind(1))
    unit = ((moved - low) / (high - low) - 0.5) * contrast + 0.5 + brightness
    return unit.clamp_(0, 1) ** gamma * (high - low) + low


def apply_classes(
    classes: Int[Tensor, "b *s"], count: int, change: Change, size: tuple[int, ...]
) -> Int[Tensor, "b *o"]:
    """The same move for class numbers 0 to ``count`` - 1: each place takes the class of which there is most.

    Where nothing is resampled that is the class itself; elsewhere it is nearest-neighbour, but without its ragged
    edges on turned masks. A class at a time, so that memory does not grow with their number.
    """
    most = apply_crop((classes == 0).float()[:, None], change.boxes, change.angles, size)
    found = torch.zeros(len(classes), 1, *size, dtype=classes.dtype, device=classes.device)
    for number in range(1, count):
        share = apply_crop((classes == number).float()[:, None], change.boxes, change.angles, size)
        found.masked_fill_(share > most, number)
        most = torch.maximum(most, share)
    return mirrored(found, change.mirror)[:, 0]


def mirrored(x: Tensor, chosen: Tensor) -> Tensor:
    """(b, c, *s) with left and right exchanged where chosen: columns of an image, the first axis of a RAS volume."""
    side = 3 if x.ndim == 4 else 2
    return torch.where(chosen.to(x.device).view(-1, *(1,) * (x.ndim - 1)), x.flip(side), x)
