"""A canvas of CT numbers in anatomical coordinates, and the shapes drawn on it.

Coordinates are millimetres to the patient's right (r), front (a) and head (s). Shapes are signed distances in mm,
negative inside; drawing blends over one voxel, so that borders look as a scanner's partial volume does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Field = np.ndarray
Point = tuple[float, float, float]
Box = tuple[slice, slice, slice]

BENT_MM = 25.0

Paint = Callable[[float | Field, int | None], float | Field]
"""What a CT number, drawn under a label (or None), looks like; see ``phantom_mr.painter``."""


@dataclass
class Canvas:
    """``hu`` is drawn on; ``labels`` names voxels; ``r``, ``a``, ``s`` say where each voxel lies in the body.

    With ``paint`` it holds another scanner's signals in place of CT numbers; what draws goes on speaking in these.
    """

    r: Field
    a: Field
    s: Field
    soft_mm: float
    hu: Field
    labels: Field
    paint: Paint | None = None

    @classmethod
    def blank(cls, r: Field, a: Field, s: Field, soft_mm: float, paint: Paint | None = None) -> "Canvas":
        """Air everywhere."""
        air = -1000 if paint is None else paint(-1000, None)
        return cls(r, a, s, soft_mm, np.full(r.shape, air, np.float32), np.zeros(r.shape, np.uint8), paint)

    def draw(self, shape: Field, hu: float | Field, label: int | None = None) -> None:
        """Fill a shape with CT numbers; voxels more than half inside take the label, 0 takes labels away."""
        cover = np.clip(0.5 - shape / self.soft_mm, 0, 1)
        value = hu if self.paint is None else self.paint(hu, label)
        self.hu += cover * (value - self.hu)
        if label is not None:
            self.labels[shape < 0] = label

    def ellipsoid(self, centre: Point, radii: Point, tilt_deg: float = 0.0, roll_deg: float = 0.0) -> Field:
        """Tilted in the coronal plane (r, s), then rolled in the axial plane (r, a)."""
        r, a, s = self.r - centre[0], self.a - centre[1], self.s - centre[2]
        if tilt_deg:
            cos, sin = turn(tilt_deg)
            r, s = cos * r + sin * s, cos * s - sin * r
        if roll_deg:
            cos, sin = turn(roll_deg)
            r, a = cos * r + sin * a, cos * a - sin * r
        r, a, s = r / radii[0], a / radii[1], s / radii[2]
        near = np.sqrt(r * r + a * a + s * s)
        slope = np.sqrt((r / radii[0]) ** 2 + (a / radii[1]) ** 2 + (s / radii[2]) ** 2)
        return near * (near - 1) / np.maximum(slope, 1e-6)

    def column(self, centre: tuple[float, float], radii: tuple[float, float]) -> Field:
        """An elliptic cylinder along the body."""
        near = np.hypot((self.r - centre[0]) / radii[0], (self.a - centre[1]) / radii[1])
        return (near - 1) * min(radii)

    def box(self, low: Sequence[float], high: Sequence[float]) -> Box:
        """Voxels between two corners in mm, with a margin.

        The body is bent a little, so the box is found on straightened axes and widened by ``BENT_MM``.
        """
        x, y, z = (n // 2 for n in self.r.shape)
        axes = (self.r[:, y, z], self.a[x, :, z], self.s[x, y])
        ends = [np.searchsorted(axis, (p - BENT_MM, q + BENT_MM)) for axis, p, q in zip(axes, low, high, strict=True)]
        return slice(*ends[0]), slice(*ends[1]), slice(*ends[2])

    def near(self, centre: Point, reach_mm: float) -> tuple["Canvas", Box]:
        """The part of the canvas about a point, to draw small things on; what is drawn there is drawn here."""
        box = self.box([c - reach_mm for c in centre], [c + reach_mm for c in centre])
        r, a, s = self.r[box], self.a[box], self.s[box]
        return Canvas(r, a, s, self.soft_mm, self.hu[box], self.labels[box], self.paint), box

    def draw_tubes(self, tubes: Sequence["Tube"], hu: float, inside: Field | None = None) -> None:
        """Draw many thin tubes, denser than what they cross, each within its own little box of the canvas."""
        value = hu if self.paint is None else self.paint(hu, None)
        for tube in tubes:
            ends = list(zip(tube.start, tube.end, strict=True))
            box = self.box([min(pair) - tube.width for pair in ends], [max(pair) + tube.width for pair in ends])
            distance = tube.distance(self.r[box], self.a[box], self.s[box])
            if inside is not None:
                distance = np.maximum(distance, inside[box])
            # Tubes thinner than a voxel fade instead of vanishing.
            fade = min(1.0, (2 * tube.width / self.soft_mm) ** 2)
            cover = np.clip(0.5 - distance / self.soft_mm, 0, 1) * fade
            blended = self.hu[box] + cover * (value - self.hu[box])
            # Denser is brighter on CT alone.
            self.hu[box] = np.maximum(self.hu[box], blended) if self.paint is None else blended


@dataclass(frozen=True)
class Tube:
    """A straight piece of a vessel."""

    start: Point
    end: Point
    width: float

    def distance(self, r: Field, a: Field, s: Field) -> Field:
        """Signed distance in mm."""
        d = [q - p for p, q in zip(self.start, self.end, strict=True)]
        length = max(sum(x * x for x in d), 1e-6)
        r, a, s = r - self.start[0], a - self.start[1], s - self.start[2]
        along = np.clip((r * d[0] + a * d[1] + s * d[2]) / length, 0, 1)
        return np.sqrt((r - along * d[0]) ** 2 + (a - along * d[1]) ** 2 + (s - along * d[2]) ** 2) - self.width


def branch(rng: np.random.Generator, start: Point, aim: Point, width: float, length: float, depth: int) -> list[Tube]:
    """A tree of tubes from ``start`` towards ``aim``: each piece splits in two, thinner and shorter (Murray's law)."""
    direction = np.asarray(aim, float) - start
    direction /= max(float(np.linalg.norm(direction)), 1e-6)
    end = np.asarray(start) + direction * length
    tubes = [Tube(start, (float(end[0]), float(end[1]), float(end[2])), width)]
    if depth == 0:
        return tubes
    across = np.cross(direction, rng.normal(size=3))
    across /= max(float(np.linalg.norm(across)), 1e-6)
    for side in (-1, 1):
        goal = end + direction + side * rng.uniform(0.35, 0.85) * across
        tubes += branch(rng, tubes[0].end, tuple(goal), width * 0.79, length * rng.uniform(0.72, 0.92), depth - 1)
    return tubes


def turn(degrees: float) -> tuple[float, float]:
    """Cosine and sine, as Python floats: NumPy's would make every field double precision."""
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def union(*shapes: Field) -> Field:
    """Inside any of the shapes."""
    return np.minimum.reduce(shapes)


def common(*shapes: Field) -> Field:
    """Inside all of the shapes."""
    return np.maximum.reduce(shapes)


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], waves: int) -> Field:
    """A random field of unit size made of a few cosines an axis; cheap at any resolution."""
    waves_ = np.arange(waves)
    weights = rng.normal(size=(waves,) * 3) / (1 + np.add.outer(np.add.outer(waves_**2, waves_**2), waves_**2))
    weights[0, 0, 0] = 0
    bases = [np.cos(np.pi * waves_[:, None] * (np.arange(n) + 0.5) / n) for n in shape]
    field = np.einsum("ijk,ix,jy,kz->xyz", weights, *bases, optimize=True)
    return (field / max(float(field.std()), 1e-6)).astype(np.float32)
