"""MR of the same body: known contrasts, one place for all scans of a study, a shift only where one was asked for."""

import numpy as np
import pytest
from scipy import ndimage

from medssl.data.phantom import PhantomScan, make_scan, misregistration, names_of, present
from medssl.data.phantom_anatomy import LESION, LIVER, SPLEEN
from medssl.data.phantom_mr import T1, T2, mr_scanner, painter
from medssl.data.phantom_shapes import Canvas

SIZE = 56


@pytest.fixture(scope="module")
def study() -> dict[str, PhantomScan]:
    return {name: make_scan(0, 5, size=SIZE, modality=name) for name in ("CT", T1, T2)}


def middle_mm(scan: PhantomScan, label: int) -> np.ndarray:
    """Centre of mass of a structure, in mm from the middle of the scan; world and scan share their middle."""
    return (np.argwhere(scan.mask == label).mean(0) - (np.array(scan.mask.shape) - 1) / 2) * scan.spacing_mm


def inner(scan: PhantomScan, label: int) -> float:
    return float(np.median(scan.array[ndimage.binary_erosion(scan.mask == label)]))


def test_the_scans_of_a_study_show_one_body_in_one_place_on_grids_of_their_own(study) -> None:
    assert len({scan.array.shape for scan in study.values()}) == 3
    assert study["CT"].labels == study[T1].labels == study[T2].labels
    for label in (1, 2, 3):
        for name in (T1, T2):
            apart = middle_mm(study[name], label) - middle_mm(study["CT"], label)
            assert np.linalg.norm(apart) < 0.25 * max(study["CT"].spacing_mm), (name, label)
            volume = [(s.mask == label).sum() * np.prod(s.spacing_mm) for s in (study[name], study["CT"])]
            assert volume[0] == pytest.approx(volume[1], rel=0.1)


def test_contrasts_are_those_of_their_sequence(study) -> None:
    assert inner(study[T1], LIVER) > 1.2 * inner(study[T1], SPLEEN)  # on T1 the liver is brighter, on T2 the spleen
    assert inner(study[T2], SPLEEN) > 1.4 * inner(study[T2], LIVER)
    assert abs(inner(study["CT"], LIVER) - inner(study["CT"], SPLEEN)) < 60
    t1, t2 = painter(T1), painter(T2)
    fat, water, air, bone, muscle = -105, 8, -1000, 400, 52
    assert t1(fat, None) > t1(muscle, None) > t1(water, None) > t1(air, None) == 0
    assert t2(water, None) > t2(fat, None) > t2(muscle, None) > t2(bone, None) > t2(air, None) == 0
    assert t2(30, LESION) > 2 * t2(56, LIVER) and t1(30, LESION) < t1(56, LIVER)


def test_partial_volume_is_blended_in_signals_not_in_ct_numbers() -> None:
    """A lung next to muscle has no bright rim, though the CT numbers between theirs are those of fat."""
    x = np.linspace(-50, 50, 401, dtype=np.float32)[:, None, None] * np.ones((1, 3, 3), np.float32)
    canvas = Canvas.blank(x, 0 * x, 0 * x, 4.0, painter(T1))
    canvas.draw(np.abs(x) - 40, 52)
    canvas.draw(np.abs(x) - 20, -850)
    signal = canvas.hu[150:260, 1, 1]
    assert signal.max() <= painter(T1)(52, None) + 1e-6
    assert painter(T1)(-110, None) > 2 * signal.max()


def test_the_scanner_adds_rician_noise_and_a_bias_field() -> None:
    flat, empty = np.ones((40, 40, 40), np.float32), np.zeros((40, 40, 40), np.float32)
    seen, noise = (mr_scanner(np.random.default_rng(3), a).astype(float) for a in (flat, empty))
    assert noise.min() >= 0 and noise.mean() / noise.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)
    smooth = ndimage.gaussian_filter(seen, 4)[6:-6, 6:-6, 6:-6]
    assert 0.05 < smooth.std() / smooth.mean() < 0.4  # one side brighter than the other, and no noise left to say so


@pytest.mark.parametrize("name", [T1, T2])
def test_a_shift_moves_the_body_by_just_so_much(name) -> None:
    moved_mm = (9.0, -6.0, 12.0)
    still, moved = make_scan(0, 5, size=SIZE, modality=name), make_scan(0, 5, 1, 3, SIZE, name, moved_mm)
    assert np.allclose(middle_mm(moved, LIVER) - middle_mm(still, LIVER), moved_mm, atol=1.0)


def test_misregistration_is_at_most_what_was_asked_for_and_never_of_the_ct() -> None:
    lengths = [np.linalg.norm(misregistration(0, p, 1, name, 10.0)) for p in range(20) for name in (T1, T2)]
    assert min(lengths) >= 5 and max(lengths) <= 10 and len({round(v, 6) for v in lengths}) == 40
    assert misregistration(0, 0, 1, "CT", 10.0) == (0.0, 0.0, 0.0)
    assert np.allclose(misregistration(0, 0, 1, T1, 0.0), 0)


def test_the_missing_share_is_missing_and_a_scan_always_stays() -> None:
    kinds = ("CT", T1, T2)
    there = [present(0, patient, 1, kinds, 0.4) for patient in range(400)]
    assert all(set(names) & set(kinds) for names in there)
    assert np.mean(["" in names for names in there]) == pytest.approx(0.6, abs=0.08)
    assert 0.58 < np.mean([len(set(names) & set(kinds)) for names in there]) / 3 < 0.72
    assert {len(present(0, p, 1, kinds, 1.0)) for p in range(20)} == {1}
    assert present(0, 0, 1, kinds, 0.0) == [*kinds, ""]
    assert [n for p in range(9) for n in names_of(0, p, 3, kinds, 0.4)] == [
        f"P{p + 1:03d}_S{study}{'' if kind == 'CT' else '_' + kind}.nii.gz"
        for p in range(9)
        for study in range(1, len(names_of(0, p, 3)) + 1)
        for kind in present(0, p, study, kinds, 0.4)
        if kind
    ]
