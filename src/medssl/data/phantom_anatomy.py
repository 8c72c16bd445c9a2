"""A torso from lung tops to kidneys, organ by organ, in CT numbers.

Every patient has a build, organ sizes and places, vessels and perhaps findings of their own. CT numbers are those of
textbooks: neighbours such as spleen and stomach, or kidney and bowel, hardly differ without contrast medium.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from math import exp

import numpy as np

from medssl.data.phantom_shapes import Canvas, Field, Point, Tube, branch, common, union

LIVER, HEART, SPLEEN, LESION, KIDNEY, LUNG = range(1, 7)  # labels while drawing


@dataclass(frozen=True)
class Findings:
    """What is wrong with a patient: lesions as (site, centre, radius in mm), pleural fluid as (side, height in mm)."""

    lesions: tuple[tuple[str, Point, float], ...] = ()
    effusion: tuple[int, float] | None = None


@dataclass(frozen=True)
class Patient:
    """Build in mm (half the body's width and depth, layers of fat and muscle), standard normal jitter of each organ."""

    width: float
    depth: float
    fat: float
    muscle: float
    jitter: dict[str, list[float]] = field(repr=False)
    findings: Findings = Findings()

    def place(self, organ: str, centre: Point, radii: Point) -> tuple[Point, Point]:
        """An organ's centre and radii in this patient."""
        j = self.jitter[organ]
        grown = self.width / 170
        moved = [(c + 5 * d) * grown for c, d in zip(centre, j[:3], strict=True)]
        sized = [q * exp(0.09 * d) * grown for q, d in zip(radii, j[3:6], strict=True)]
        return (moved[0], moved[1], moved[2]), (sized[0], sized[1], sized[2])


ORGANS = ("liver", "lobe", "spleen", "stomach", "kidney r", "kidney l", "heart", "dome", "gallbladder", "spine")


@dataclass
class Torso:
    """Shapes that several organs need: outer wall, inner wall, diaphragm."""

    canvas: Canvas
    patient: Patient
    enhanced: float
    rng: np.random.Generator
    lungs: Field = field(init=False, repr=False)
    liver: Field = field(init=False, repr=False)

    def __post_init__(self) -> None:
        c, p = self.canvas, self.patient
        shoulder = 1 - 0.10 * np.clip((c.s - 90) / 80, 0, 1.5) ** 2
        waist = 1 - 0.06 * np.exp(-(((c.s + 110) / 60) ** 2))
        self.deep = _depth(c.r / (p.width * shoulder * waist), c.a / (p.depth * shoulder), c.r, c.a, 2.5)
        self.fat = p.fat * (0.55 + 0.45 * np.clip((-c.s - 10) / 60, 0, 1)) * (1 + 0.25 * np.sign(c.a) * (c.s < -40))
        self.wall = self.fat + p.muscle  # depth of the inner wall
        taper = np.sqrt(np.clip(1 - (np.clip(c.s - 40, 0, None) / 118) ** 2, 0.0025, 1))
        inner_r, inner_a = p.width - p.fat * 0.6 - p.muscle, p.depth - p.fat * 0.6 - p.muscle
        self.cage = -_depth(c.r / (inner_r * taper), (c.a + 2) / (inner_a * taper), c.r, c.a + 2, 2.2)
        self.cage[c.s > 158] = 50
        d = p.jitter["dome"]
        right = 8 + 7 * d[0] - 62 * (((c.r - 72) / 88) ** 2 + ((c.a - 12) / 95) ** 2)
        left = -6 + 7 * d[1] - 62 * (((c.r + 72) / 88) ** 2 + ((c.a - 12) / 95) ** 2)
        self.dome = np.maximum(np.maximum(right, left), -75)  # height of the diaphragm
        self.above = self.dome - c.s  # negative above it


def _depth(x: Field, y: Field, r: Field, a: Field, power: float) -> Field:
    """Depth in mm below the surface |x|ᵖ + |y|ᵖ = 1, along the ray from the middle."""
    q = (np.abs(x) ** power + np.abs(y) ** power) ** (1 / power)
    return np.hypot(r, a) * (1 / np.maximum(q, 0.05) - 1)


def draw_patient(canvas: Canvas, patient: Patient, enhanced: float, rng: np.random.Generator, texture: Field) -> None:
    """Draw everything; ``enhanced`` (0 to 1) is how much contrast medium there is, ``texture`` unit noise."""
    torso = Torso(canvas, patient, enhanced, rng)
    _draw_walls(torso, texture)
    _draw_chest(torso, texture)
    _draw_belly(torso, texture)
    _draw_bones(torso)
    _draw_findings(torso)


def _draw_walls(t: Torso, texture: Field) -> None:
    c = t.canvas
    c.draw(-t.deep, 15)  # skin
    c.draw(3 - t.deep, -105 + 8 * texture)
    c.draw(t.fat - t.deep, 52 + 6 * texture)  # muscle
    stripes = np.abs(t.deep - t.fat - 0.5 * t.patient.muscle) - 1.2
    c.draw(stripes, -40)  # fat between the layers of muscle
    c.draw(common(t.wall - t.deep, c.s + 20), -95 + 10 * texture)  # abdominal fat
    couch = np.abs(c.a + t.patient.depth + 8 - 0.0006 * c.r**2) - 3
    c.draw(common(couch, np.abs(c.r) - 165), -550)


def _draw_chest(t: Torso, texture: Field) -> None:
    c, p = t.canvas, t.patient
    c.draw(common(t.cage, t.above), -70 + 8 * texture)  # mediastinal fat
    (hr, ha, hs), heart_radii = p.place("heart", (-24, 22, 30), (56, 46, 50))
    ventricles = c.ellipsoid((hr, ha, hs), heart_radii, 32, 25)
    atria = c.ellipsoid((hr + 30, ha - 6, hs + 16), (30, 32, 36))
    heart = common(union(ventricles, atria), t.cage + 6)
    middle = 17 + 0.10 * np.clip(90 - c.s, 0, 200) - 0.10 * np.clip(c.a, 0, 60)
    lungs = common(t.cage + 3, t.above, np.maximum(middle, 6) - np.abs(c.r), 5 - heart)
    spine_side = 30 - np.hypot(c.r, c.a + 0.62 * p.depth)
    lungs = common(lungs, spine_side)
    dependent = np.clip(-c.a / p.depth, -1, 1)
    c.draw(lungs, -850 + 45 * dependent + 22 * texture, LUNG)
    for side in (-1, 1):
        for aim in ((130, 40, 150), (140, -50, 90), (135, 30, 30), (110, -70, -20), (100, 70, 90), (90, 0, -10)):
            goal = (side * aim[0], aim[1] * p.depth / 115, aim[2])
            tubes = branch(t.rng, (side * 26.0, -8.0, 66.0), goal, 4.4, 27, 4)
            c.draw_tubes(tubes, 45 + 120 * t.enhanced, lungs)
    c.draw(heart - 4, -60)
    c.draw(heart, 48 + 70 * t.enhanced + 5 * texture, HEART)
    part, box = c.near((hr, ha, hs), 60)
    left = part.ellipsoid((hr - 12, ha - 6, hs - 4), (24, 20, 24), 32, 25)
    part.draw(common(left, heart[box]), 40 + 150 * t.enhanced)
    part.draw(common(part.ellipsoid((hr + 20, ha + 2, hs + 8), (20, 22, 26)), heart[box]), 40 + 140 * t.enhanced)
    _draw_great_vessels(t)
    t.lungs = lungs


def _draw_great_vessels(t: Torso) -> None:
    c, back = t.canvas, -0.46 * t.patient.depth
    blood = 42 + 130 * t.enhanced
    path = [(10.0, 16.0, 50.0), (14.0, 20.0, 80.0), (6.0, 14.0, 102.0), (-10.0, -8.0, 112.0), (-20.0, back + 12, 104.0)]
    path += [(-24.0, back, 85.0), (-22.0, back, 20.0), (-12.0, back, -40.0), (-6.0, back + 4, -175.0)]
    arch = [Tube(p, q, 12.5 if q[2] > 0 else 10.0) for p, q in pairwise(path)]
    cava = [Tube((24, 12, 140), (24, 12, 50), 9), Tube((24, back + 22, 5), (18, back + 12, -175), 11)]
    c.draw_tubes([*arch, *cava], blood)
    c.draw_tubes([Tube((-6, back + 16, 150), (-10, back + 18, -20), 7)], 32)  # gullet
    pulmonary = [Tube((-8, 12, 70), (-34, -8, 74), 10), Tube((-4, 10, 72), (34, -6, 70), 9)]
    c.draw_tubes(pulmonary, blood)
    airways = [Tube((0, -8, 190), (0, -14, 92), 8.5)]
    airways += [Tube((0, -14, 94), (26, -14, 74), 6), Tube((0, -14, 94), (-30, -14, 72), 5.5)]
    windpipe = union(*(tube.distance(c.r, c.a, c.s) for tube in airways))
    c.draw(windpipe - 2, 30)
    c.draw(windpipe, -980)


def _draw_belly(t: Torso, texture: Field) -> None:
    c, p, e = t.canvas, t.patient, t.enhanced
    cavity = common(t.wall + 3 - t.deep, 2 - t.above, t.cage + 3 - 60 * (c.s < -75))
    _draw_bowel(t, cavity)
    centre, radii = p.place("stomach", (-58, 26, -48), (40, 36, 46))
    stomach = common(c.ellipsoid(centre, radii, 25), cavity)
    c.draw(stomach, 48 + 25 * e, 0)
    c.draw(stomach + 5, np.where(c.a > centre[1] + 10 + 6 * p.jitter["stomach"][3], -900, 22 + 10 * texture))
    centre, radii = p.place("spleen", (-104, -36, -46), (32, 44, 46))
    spleen = common(c.ellipsoid(centre, radii, -12, -32), 4 - stomach, cavity)
    c.draw(spleen, 48 + 58 * e + 5 * texture, SPLEEN)
    centre, radii = p.place("liver", (74, 2, -46), (78, 84, 70))
    lobe, lobe_radii = p.place("lobe", (14, 44, -28), (58, 40, 36))
    lobe_shape = common(c.ellipsoid(lobe, lobe_radii, -14), 9 - stomach)
    whole = union(c.ellipsoid(centre, radii, 14), lobe_shape)
    liver = common(whole, cavity, 26 - c.column((0, -0.55 * p.depth), (34, 34)), 3 - stomach)
    c.draw(liver, 56 + 46 * e + 5 * texture, LIVER)
    for aim in ((130, 30, -40), (100, -60, -60), (20, 60, -20), (90, 50, -100)):
        c.draw_tubes(branch(t.rng, (32.0, 2.0, -52.0), aim, 5.0, 30, 3), 52 + 90 * e, liver)
    centre, radii = p.place("gallbladder", (42, 48, -92), (13, 15, 24))
    part, _ = c.near(centre, max(radii))
    part.draw(part.ellipsoid(centre, radii), 8, 0)
    for name, side in (("kidney r", 1), ("kidney l", -1)):
        centre, radii = p.place(name, (side * 60, -46, -108 + 5 * (side < 0)), (25, 23, 48))
        part, box = c.near(centre, max(radii))
        kidney = common(part.ellipsoid(centre, radii, side * 14), cavity[box])
        part.draw(kidney - 6, -95 + 6 * texture[box], 0)  # its fat
        part.draw(kidney, 36 + 95 * e + 5 * texture[box], KIDNEY)
        part.draw(part.ellipsoid((centre[0] - side * 9, centre[1] + 5, centre[2]), (11, 9, 22), side * 14), -50, 0)
    t.liver = liver
    c.draw_tubes([Tube((-8, 14, -88), (-60, -14, -72), 9), Tube((-8, 14, -88), (26, 16, -98), 11)], 40 + 40 * e)


def _draw_bowel(t: Torso, cavity: Field) -> None:
    c, rng = t.canvas, t.rng
    for _ in range(28):
        r, a, s = rng.uniform(-105, 105), rng.uniform(-18, 62), rng.uniform(-175, -84)
        radii = (rng.uniform(13, 26), rng.uniform(12, 20), rng.uniform(13, 30))
        part, box = c.near((r, a, s), max(radii))
        loop = common(part.ellipsoid((r, a, s), radii, rng.uniform(-60, 60)), cavity[box])
        part.draw(loop, 42 + 30 * t.enhanced)
        part.draw(loop + 3.5, rng.choice([25.0, 40.0, -750.0], p=[0.4, 0.4, 0.2]))


def _draw_bones(t: Torso) -> None:
    c, p = t.canvas, t.patient
    back = -0.62 * p.depth
    phase = p.jitter["spine"][0] * 12
    for side in (-1, 1):  # muscles along the spine, and psoas
        c.draw(c.column((side * 30, back - 24), (24, 17)), 54)
        c.draw(common(c.column((side * 36, back + 4), (18, 19)), c.s + 70), 58, 0)
    body = c.column((0, back), (21, 16))
    disc = np.cos((c.s + phase) * 2 * np.pi / 27) > 0.86
    c.draw(body, np.where(disc, 85, 330), 0)
    c.draw(body + 4, np.where(disc, 80, 165))
    arch = union(c.column((0, back - 26), (22, 6)), c.column((0, back - 36), (4, 14)))
    c.draw(common(arch, 6 - 12 * ~disc), 320)
    c.draw(c.column((0, back - 20), (9, 8)), 25)  # spinal canal
    along = (c.s + 0.42 * (c.a + p.depth) + phase) / 25  # ribs sink towards the front
    band = np.abs((along % 1 - 0.5) * 25) - 5
    shell = np.abs(t.cage - 4.5) - 4.5
    arch_line = np.maximum(-c.s - 95 + 0.4 * (c.a + p.depth), c.s - 150)
    ribs = common(shell, band, arch_line, 22 - np.abs(c.r))
    c.draw(ribs, 430)
    c.draw(common(ribs + 3, shell), 190)
    front = common(np.abs(t.cage - 4) - 6, np.abs(c.r) - 17, 20 - c.s, c.s - 135, -c.a)
    c.draw(front, 260)
    for side in (-1, 1):
        c.draw_tubes([Tube((side * 18, 0.42 * p.depth, 138), (side * 130, 0.05 * p.depth, 160), 6)], 420)
        blade = Tube((side * 105, -0.72 * p.depth, 150), (side * 88, -0.80 * p.depth, 40), 4)
        c.draw_tubes([blade], 300)


def _draw_findings(t: Torso) -> None:
    c, findings = t.canvas, t.patient.findings
    if findings.effusion:
        side, height = findings.effusion
        level = height * np.clip(1 - c.s / 110, 0, 1.3)  # it gathers at the back and below
        fluid = common(t.lungs, c.a + t.patient.depth - t.wall - level, -side * c.r)
        c.draw(fluid, 12)
    for site, centre, radius in findings.lesions:
        part, box = c.near(centre, 1.4 * radius)
        organ = (t.lungs if site == "lung" else t.liver)[box]
        knobs = 0.18 * radius * np.sin(part.r * 0.31 + centre[0]) * np.sin(part.a * 0.29) * np.sin(part.s * 0.27)
        shape = common(part.ellipsoid(centre, (radius, radius * 0.9, radius * 1.1)) + knobs, organ)
        part.draw(shape, 35 + 20 * t.enhanced if site == "lung" else 26 + 22 * t.enhanced, LESION)
