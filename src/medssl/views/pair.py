"""Two views of each image: geometry, then T, then the target is taken, then corruption."""

from dataclasses import dataclass, replace
from math import ceil

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medssl.rng import Rng
from medssl.views import corrupt, geometry, intensity
from medssl.views.geometry import Boxes
from medssl.views.turn import sample_turn, turn, unturn

LUNA_LARGEST = 112 / 64  # edge of the largest published crop, in edges of a view
LUNA_SMALLEST = (32 * 32 * 16) / (64 * 64 * 32)  # volume of the smallest, in volumes of a view

# What makes a view unlike its image, beside the size of the crop.
STRENGTH = ("rotate_deg", "blur_p", "noise_p", "jitter", "gamma_p", "cutout_p", "shuffle_p", "paint_p")

__all__ = ["Pair", "PairConfig", "equal_positions", "make_pair", "region_for", "turn", "unturn"]


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """How a pair is made. ``for_size`` gives the recipe of PCRL for 2D or 3D."""

    size: tuple[int, ...]
    """Spatial size of a view."""
    value_range: tuple[float, float] = (0.0, 1.0)
    """Range of the normalised images; views stay within it."""
    reach: float = 1.0
    """Edge of the region from which both views are cut, in edges of a view."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Share of the region's area or volume that a view shows."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """How much the sides of a crop may differ from those of the region."""
    min_iou: float = 0.1
    """Least intersection over union of the two crops."""
    rotate_p: float = 1.0
    """Probability of a small rotation."""
    rotate_deg: float = 10.0
    """Largest rotation in degrees; in 3D about each axis."""
    flip_p: float = 0.5
    """Probability of each flip of T; its quarter turns are uniform."""
    blur_p: float = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Its standard deviation in voxels of the view."""
    noise_p: float = 0.0
    """Probability of Gaussian noise."""
    noise: float = 0.2
    """Its largest standard deviation, as a share of the image's."""
    jitter_p: float = 1.0
    """Probability of contrast and brightness jitter."""
    jitter: float = 0.4
    """Its strength: factors in 1 ± jitter."""
    gamma_p: float = 0.0
    """Probability of a gamma curve with an exponent in 2/3 … 3/2."""
    cutout_p: float = 1.0
    """Probability of cutting holes."""
    cutouts: int = 3
    """Number of holes."""
    cutout_edge: float = 1 / 7
    """Edge of a hole as a share of the side: 32 of 224 pixels."""
    shuffle_p: float = 0.0
    """Probability of shuffling voxels within small cells."""
    shuffle_edge: float = 1 / 10
    """Largest cell as a share of the side."""
    paint_p: float = 0.0
    """Probability of in- or out-painting."""
    paint_inner: float = 0.2
    """Share of in-painting among paintings."""

    @classmethod
    def for_size(
        cls,
        size: tuple[int, ...],
        value_range: tuple[float, float] = (0.0, 1.0),
        scan: tuple[int, ...] = (),
        strength: float = 1.0,
        **changes: object,
    ) -> "PairConfig":
        """The published recipe for 2D (X-ray) or 3D (CT), by the number of axes of ``size``; ``changes`` override it.

        ``strength`` weakens all of it alike, but for the turns of T: at 0 a view is a patch of the region as it is.

        3D: the five crop shapes of the LUNA recipe, 32×32×16 to 112×112×64, become one range of volumes. Rotations
        are rarer there (ours): they alone need a full gather. Where the median ``scan`` is smaller than the largest
        crop, the largest crop shrinks to it (ours): the published recipe never met a scan of 36×50×36 voxels.
        """
        reach = min([LUNA_LARGEST, *(max(1.0, have / wanted) for have, wanted in zip(scan, size, strict=False))])
        volume = {
            "reach": reach,
            "scale": (LUNA_SMALLEST / reach**3, 1.0),
            "min_iou": 0.25,
            "rotate_p": 0.3,
            "jitter_p": 0.0,
            "cutout_p": 0.0,
            "shuffle_p": 0.5,
            "paint_p": 0.9,
        }
        chosen = volume if len(size) == 3 else {}
        full = cls(size=tuple(size), value_range=value_range, **{**chosen, **changes})  # type: ignore[arg-type]
        return full.weakened(strength)

    def weakened(self, strength: float) -> "PairConfig":
        """The same with every change but the pose scaled by ``strength`` in [0, 1]; crops tend to a patch unscaled."""
        plain = self.reach ** -len(self.size)  # the share of the region that a view shows voxel by voxel
        low, high = (plain + (end - plain) * strength for end in self.scale)
        scaled = {name: getattr(self, name) * strength for name in STRENGTH}
        return replace(self, scale=(low, high), ratio=(self.ratio[0] ** strength, self.ratio[1] ** strength), **scaled)


@dataclass(frozen=True)
class Pair:
    """Two views of b images. Numbers 1 and 2 in the names are the view.

    x: what the network sees. clean: the same without corruption, T(crop). t (b, dims + 4): the code of T.
    corrupted: where content was taken away or displaced (cutout, shuffling, painting), exactly; grey-value changes
    leave it in place and do not count. place: matrices from voxels of the finished view to voxels of the region.
    """

    x1: Float[Tensor, "b c *s"]
    x2: Float[Tensor, "b c *s"]
    clean1: Float[Tensor, "b c *s"]
    clean2: Float[Tensor, "b c *s"]
    t1: Float[Tensor, "b k"]
    t2: Float[Tensor, "b k"]
    corrupted1: Bool[Tensor, "b *s"]
    corrupted2: Bool[Tensor, "b *s"]
    place1: Float[Tensor, "b d1 d1"]
    place2: Float[Tensor, "b d1 d1"]


def region_for(config: PairConfig) -> tuple[int, ...]:
    """What a worker cuts from the store: both views fit in it."""
    return tuple(ceil(side * config.reach) for side in config.size)


@torch.no_grad()
def make_pair(images: Float[Tensor, "b c *region"], config: PairConfig, rng: Rng) -> Pair:
    """Two views of each of the normalised ``images``, on their device; all chance comes from ``rng``."""
    n, region = len(images), tuple(images.shape[2:])
    boxes = geometry.sample_box_pair(rng, n, region, config.scale, config.ratio, config.min_iou)
    # In- or out-painting is one choice for both views, or their features would tell the kind of painting apart.
    kind = corrupt.sample_paint_kind(rng, "views/paint", n, config.paint_p, config.paint_inner)
    parts: dict[str, Tensor] = {}
    for view, box in enumerate(boxes, start=1):
        made = _make_view(images, box, kind, config, rng, f"views/{view}")
        parts |= {f"{name}{view}": value for name, value in made.items()}
    return Pair(**parts)


def equal_positions(pair: Pair, grid: tuple[int, ...]) -> tuple[Float[Tensor, "b *g d"], Bool[Tensor, "b *g"]]:
    """Where the cells of a coarse grid of view 1 lie in view 2, for contrast between equal positions.

    Coordinates are those of ``grid_sample(map2, coordinates, align_corners=False)``; the mask says which cells lie
    inside view 2.
    """
    return geometry.equal_positions(pair.place1, pair.place2, tuple(pair.x1.shape[2:]), grid)


def _make_view(
    images: Tensor, box: Boxes, kind: tuple[Tensor, Tensor], config: PairConfig, rng: Rng, name: str
) -> dict[str, Tensor]:
    n, dims, device = len(images), len(config.size), images.device
    angles = geometry.sample_angles(rng, f"{name}/rotate", n, dims, config.rotate_p, config.rotate_deg)
    code = sample_turn(rng, f"{name}/turn", n, config.size, config.flip_p)
    clean = turn(geometry.apply_crop(images, box, angles, config.size), code)
    grey = change_grey(clean, config, rng, name)
    x = take_away(grey, kind, config, rng, name)
    return {
        "x": x,
        "clean": clean,
        "t": code.to(device),
        "corrupted": (x != grey).any(1),
        "place": geometry.view_matrix(box, angles, code, config.size).to(device),
    }


def change_grey(images: Tensor, config: PairConfig, rng: Rng, name: str) -> Tensor:
    """Tone, blur and noise of a view; every structure stays where it is."""
    n = len(images)
    tone = intensity.sample_tone(rng, f"{name}/tone", n, config.jitter_p, config.jitter, config.gamma_p)
    images = intensity.apply_tone(images, tone, config.value_range)
    sigma = intensity.sample_blur(rng, f"{name}/blur", n, config.blur_p, config.blur_sigma)
    images = intensity.apply_blur(images, sigma)
    share, seeds = intensity.sample_noise(rng, f"{name}/noise", n, config.noise_p, config.noise)
    return intensity.apply_noise(images, share, seeds, config.value_range)


def take_away(images: Tensor, kind: tuple[Tensor, Tensor], config: PairConfig, rng: Rng, name: str) -> Tensor:
    """Cutout, shuffling, painting: content goes, or moves."""
    n, size = len(images), config.size
    holes = corrupt.sample_cutout(rng, f"{name}/cutout", n, size, config.cutout_p, config.cutouts, config.cutout_edge)
    images = corrupt.apply_cutout(images, holes)
    shuffle = corrupt.sample_shuffle(rng, f"{name}/shuffle", n, size, config.shuffle_p, config.shuffle_edge)
    images = corrupt.apply_shuffle(images, shuffle)
    paint = corrupt.sample_paint(rng, f"{name}/paint", n, size, kind)
    return corrupt.apply_paint(images, paint, config.value_range)
