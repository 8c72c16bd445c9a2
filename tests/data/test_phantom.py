from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medssl.data import phantom
from medssl.data.phantom import STRUCTURES, make_patient, make_scan, names_of, write_patient

SIZE = 40


@pytest.fixture(scope="module")
def cohort() -> list[phantom.PhantomScan]:
    return [make_scan(0, patient, size=SIZE) for patient in range(12)]


def volume_ml(scan: phantom.PhantomScan, structure: str) -> float:
    number = {name: n for n, name in STRUCTURES[3].items()}[structure]
    return float((scan.mask == number).sum() * np.prod(scan.spacing_mm) / 1000)


def at(scan: phantom.PhantomScan, point_mm: tuple[float, float, float]) -> float:
    """Mean HU of the 27 voxels about a point, in mm from the middle towards right, front and head."""
    index = [round((n - 1) / 2 + p / s) for n, p, s in zip(scan.array.shape, point_mm, scan.spacing_mm, strict=True)]
    return float(scan.array[tuple(slice(i - 1, i + 2) for i in index)].mean())


def test_a_scan_is_bit_equal_when_made_again_and_differs_between_seeds_patients_and_studies() -> None:
    scan, again = make_scan(3, 1, size=32), make_scan(3, 1, size=32)
    assert np.array_equal(scan.array, again.array) and np.array_equal(scan.mask, again.mask)
    for other in (make_scan(4, 1, size=32), make_scan(3, 2, size=32), make_scan(3, 1, 2, size=32)):
        assert other.array.shape != scan.array.shape or not np.array_equal(other.array, scan.array)


def test_tissue_has_its_ct_number(cohort) -> None:
    air = [at(scan, (-165, 122, 0)) for scan in cohort]
    lung = [at(scan, (95, 20, 60)) for scan in cohort]
    liver = [float(np.median(scan.array[ndimage.binary_erosion(scan.mask == 1)])) for scan in cohort]
    assert all(-1024 <= v < -950 for v in air)
    assert -900 < float(np.median(lung)) < -750
    assert all(15 < v < 150 for v in liver)
    assert all(scan.array.dtype == np.int16 and scan.array.max() > 150 for scan in cohort)  # bone


def test_organs_have_the_size_of_organs(cohort) -> None:
    for name, (least, most) in {"liver": (350, 1900), "spleen": (40, 450), "heart": (250, 900)}.items():
        volumes = [volume_ml(scan, name) for scan in cohort]
        assert least < min(volumes) and max(volumes) < most, (name, volumes)
        assert np.std(volumes) > 0.05 * np.mean(volumes)  # patients differ


def test_organs_lie_where_they_should(cohort) -> None:
    for scan in cohort:
        middle = {
            name: (np.argwhere(scan.mask == n).mean(0) - (np.array(scan.mask.shape) - 1) / 2) * scan.spacing_mm
            for n, name in STRUCTURES[3].items()
            if name != "lesion"
        }
        assert middle["liver"][0] > 20 and middle["spleen"][0] < -60  # right, left
        assert middle["spleen"][1] < middle["liver"][1]  # the spleen lies further back
        assert middle["heart"][0] < 0 and middle["heart"][2] > middle["liver"][2] + 40
        for n in (1, 2, 3):  # in one piece
            sizes = np.bincount(ndimage.label(scan.mask == n)[0].ravel())[1:]
            assert sizes.max() > 0.97 * sizes.sum()


def test_the_lesion_label_agrees_with_the_mask() -> None:
    seen = set()
    for patient in range(14):
        scan = make_scan(1, patient, size=SIZE)
        has = bool((scan.mask == 4).any())
        assert has == (scan.labels["lesion"] == "yes") == (scan.labels["lesion_site"] != "none")
        seen.add(scan.labels["lesion_site"])
        for site in ("lung", "liver"):
            if scan.labels["lesion_site"] == site:
                spot = scan.array[scan.mask == 4]
                assert (-700 if site == "lung" else -80) < np.median(spot) < 130
    assert seen == {"none", "lung", "liver"}


def test_two_studies_of_a_patient_show_the_same_patient() -> None:
    first, second = (make_scan(0, 4, study, size=SIZE) for study in (1, 2))
    other = make_scan(0, 5, size=SIZE)
    assert first.labels == second.labels
    change = abs(volume_ml(first, "liver") - volume_ml(second, "liver"))
    assert change < 0.1 * volume_ml(first, "liver")
    assert change < abs(volume_ml(first, "liver") - volume_ml(other, "liver"))


def test_some_patients_have_two_studies() -> None:
    counts = [len(names_of(0, patient, 3)) for patient in range(40)]
    assert set(counts) == {1, 2} and 4 <= counts.count(2) <= 18


@pytest.mark.parametrize("patient", range(3))
def test_a_radiograph_shows_dark_lungs_a_bright_heart_and_its_masks(patient) -> None:
    scan = make_scan(0, patient, dims=2, size=64)
    assert scan.array.dtype == np.uint8 and scan.array.shape == scan.mask.shape and max(scan.array.shape) == 64
    lung, heart = (scan.array[scan.mask == n].mean() for n in (1, 2))
    assert heart > lung + 25
    rows, columns = np.nonzero(scan.mask == 2)
    assert columns.mean() > (scan.mask.shape[1] - 1) / 2 - 2  # the heart is on the patient's left: right in the film
    assert bool((scan.mask == 3).any()) == (scan.labels["lesion"] == "yes")
    assert scan.labels["lesion_site"] in ("none", "lung")
    assert rows.mean() < 0.65 * scan.mask.shape[0]


def test_files_hold_the_scan_in_whichever_order_it_was_stored(tmp_path) -> None:
    signs = set()
    for patient in range(6):
        rows = write_patient(tmp_path, 0, patient, 3, 32)
        scan = make_scan(0, patient, size=32)
        for key, wanted in (("path", scan.array), ("mask_path", scan.mask)):
            image = nib.load(tmp_path / rows[0][key])
            signs.add(float(np.sign(image.affine[0, 0])))
            canonical = nib.as_closest_canonical(image)
            assert np.array_equal(np.asarray(canonical.dataobj), wanted)
            assert np.allclose(canonical.affine[:3, :3], np.diag(scan.spacing_mm), atol=1e-3)
            centre = canonical.affine @ [*((n - 1) / 2 for n in wanted.shape), 1]
            assert np.allclose(centre[:3], 0, atol=1e-3)
    assert signs == {-1.0, 1.0}


def drawn(findings: phantom.Findings) -> phantom.Canvas:
    """Patient 0 with these findings, without pose, texture or scanner."""
    axes = np.meshgrid(*(np.linspace(-150, 150, 40, dtype=np.float32) for _ in range(3)), indexing="ij")
    canvas = phantom.Canvas.blank(*axes, soft_mm=7.5)
    person = replace(make_patient(0, 0), findings=findings)
    phantom.draw_patient(canvas, person, 0.0, np.random.default_rng(0), np.zeros((40,) * 3, np.float32))
    return canvas


def test_a_torso_is_made_of_lung_fat_soft_tissue_and_bone() -> None:
    canvas = drawn(phantom.Findings())
    kinds = {"lung": (-900, -780), "fat": (-120, -60), "soft": (10, 80), "bone": (160, 450)}
    shares = {name: ((canvas.hu > low) & (canvas.hu < high)).mean() for name, (low, high) in kinds.items()}
    assert all(share > 0.01 for share in shares.values()), shares
    assert shares["soft"] > shares["bone"]


def test_a_lesion_changes_its_own_place_only() -> None:
    healthy, sick = drawn(phantom.Findings()), drawn(phantom.Findings((("liver", (75.0, 0.0, -50.0), 14.0),)))
    changed = healthy.hu != sick.hu
    near = np.sqrt((sick.r - 75) ** 2 + sick.a**2 + (sick.s + 50) ** 2) < 14 * 1.4 + 8
    assert changed.any() and not (changed & ~near).any()
    assert set(np.unique(sick.labels)) - set(np.unique(healthy.labels)) == {4}


@pytest.mark.parametrize("side", [1, -1])
def test_pleural_fluid_lies_at_the_back_of_its_side_and_rises_with_its_height(side) -> None:
    healthy = drawn(phantom.Findings())
    low, high = (drawn(phantom.Findings(effusion=(side, height))) for height in (25.0, 55.0))
    changed = np.abs(high.hu - healthy.hu) > 100
    assert changed.any() and (side * high.r[changed] > -8).all() and (high.a[changed] < 20).all()
    assert 0 < (np.abs(low.hu - healthy.hu) > 100).sum() < 0.7 * changed.sum()
    assert abs(np.median(high.hu[changed]) - 12) < 5
