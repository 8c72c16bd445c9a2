"""A registration test knows its shift."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from medssl.data.pairing import subjects
from medssl.data.phantom import PhantomScan, make_scan
from medssl.data.register import register_pairs, rigid
from medssl.data.store import Store
from medssl.errors import UserError
from medssl.files import read_json, write_json
from medssl.stages import index, phantom, prepare
from medssl.stages.options.data import Index, Phantom, Prepare

MOVED = np.array([9.0, -6.0, 12.0])


def affine(scan: PhantomScan) -> np.ndarray:
    made = np.diag([*scan.spacing_mm, 1.0])
    made[:3, 3] = -(np.array(scan.array.shape) - 1) / 2 * scan.spacing_mm
    return made


@pytest.mark.parametrize("modality", ["MR-T1", "MR-T2"])
def test_a_known_shift_between_ct_and_mr_is_recovered_within_a_voxel(modality: str) -> None:
    ct, mr = make_scan(0, 5, size=48), make_scan(0, 5, 1, 3, 48, modality, tuple(MOVED))
    window = np.clip((ct.array + 1000) / 2000.0, 0, 1)
    found = rigid(window, affine(ct), mr.array.astype(float), affine(mr))
    corners = np.array([[x, y, z, 1] for x in (-90, 90) for y in (-70, 70) for z in (-90, 90)], float)
    wrong = corners @ found.T - (corners - [*MOVED, 0])
    assert np.linalg.norm(wrong[:, :3], axis=1).max() < min(ct.spacing_mm)
    assert np.allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)  # rigid
    assert np.allclose(found, rigid(window, affine(ct), mr.array.astype(float), affine(mr)), atol=1e-6)


def slab(scan: PhantomScan, half_mm: float = 50.0) -> tuple[np.ndarray, np.ndarray]:
    """A thin stack of the scan's middle, in [0, 1] if CT."""
    z = (np.arange(scan.array.shape[2]) - (scan.array.shape[2] - 1) / 2) * scan.spacing_mm[2]
    kept, there = np.abs(z) < half_mm, affine(scan)
    there[2, 3] = z[kept][0]
    values = scan.array[:, :, kept].astype(float)
    return (np.clip((values + 1000) / 2000, 0, 1) if values.min() < -500 else values), there


def turned(mm: float, degrees: float) -> np.ndarray:
    """A shift and a turn, as a patient who has moved."""
    wrong = np.eye(4)
    wrong[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, -0.64, 0.48])).as_matrix()
    wrong[:3, 3] = mm * np.array([0.48, 0.6, -0.64])
    return wrong


@pytest.mark.parametrize("mm, degrees", [(0, 0), (6, 3), (12, 6)])
def test_thin_stacks_do_not_slide_out_of_each_other(mm: float, degrees: float) -> None:
    # Mutual information of the overlap grows as the overlap shrinks: unguarded, (12, 6) ended 75 mm away.
    (ct, there), (mr, own) = (slab(make_scan(0, 1, 1, 3, 64, kind)) for kind in ("CT", "MR-T2"))
    moved = turned(mm, degrees) @ own
    step = rigid(ct, there, mr, moved) @ moved @ np.linalg.inv(own)
    inner = np.array([[x, y, z, 1] for x in (-90, 90) for y in (-60, 60) for z in (-35, 35)], float)
    assert np.linalg.norm((inner @ step.T - inner)[:, :3], axis=1).mean() < 372 / 64  # a voxel


def test_a_pair_that_does_not_agree_better_stays_where_its_headers_have_it() -> None:
    ct, there = slab(make_scan(0, 1, 1, 3, 40))
    for seed in range(3):
        nothing = np.random.default_rng(seed).random(ct.shape)
        assert np.array_equal(rigid(ct, there, nothing, there), np.eye(4))


def test_thick_slices_are_placed_as_finely_as_cubes() -> None:
    """In-plane pixels of a fifth of the slices': a shift along them is found all the same."""
    rng = np.random.default_rng(0)
    body = gaussian_filter(rng.random((64, 64, 20)), (6, 6, 1))
    grid = np.diag([1.0, 1.0, 5.0, 1.0])
    moved = grid.copy()
    moved[:3, 3] = 4.0, -3.0, 2.0
    found = rigid(body, grid, 1 - body, moved)
    assert np.linalg.norm((found @ moved - grid)[:3, 3]) < 0.5


def test_scans_that_lie_apart_begin_centre_on_centre() -> None:
    ct, mr = make_scan(0, 5, size=40), make_scan(0, 5, 1, 3, 40, "MR-T1")
    there = affine(mr)
    there[:3, 3] += 900
    found = rigid(np.clip((ct.array + 1000) / 2000.0, 0, 1), affine(ct), mr.array.astype(float), there)
    assert np.linalg.norm(found[:3, :3] @ np.full(3, 900.0) + found[:3, 3]) < max(ct.spacing_mm)


def test_prepare_registers_once_and_the_store_lies_corrected(tmp_path, capsys) -> None:
    kinds = ("CT", "MR-T1")
    options = Phantom(out=tmp_path / "scans", patients=2, size=40, modalities=kinds, misregister_mm=18.0, seed=1)
    phantom.run(options)
    data = index.run(Index(scans=tmp_path / "scans", out=tmp_path / "data", workers=1, keep_ids=True))
    prepare.run(Prepare(data=data, workers=1))
    before = Store(data)
    prepare.run(Prepare(data=data, workers=1, register=True))
    after = Store(data)
    assert "registered: 2 scans, " in capsys.readouterr().out
    for row, item in enumerate(after.items.iter_rows(named=True)):
        step = after.affines[row] @ np.linalg.inv(before.affines[row])
        if item["modality"] == "CT":
            assert np.array_equal(after.affines[row], before.affines[row])
        else:
            patient = int(item["patient"][1:]) - 1
            moved = phantom_shift(patient, int(item["study"][-1]))
            middle = before.affines[row] @ [*((np.array(after.shapes[row]) - 1) / 2), 1]
            assert np.linalg.norm((step @ middle - middle)[:3] + moved) < 9.3  # a voxel
    written = (data / "registration.json").read_bytes()
    prepare.run(Prepare(data=data, workers=1, register=True))
    assert (data / "registration.json").read_bytes() == written
    told = read_json(data / "registration.json")["items"]
    assert len(told) == sum(kind == "MR-T1" for kind in after.items["modality"])
    (data / "registration.json").unlink()
    assert np.array_equal(Store(data).affines, before.affines)


def test_prepare_tells_which_scans_stay_as_they_were(tmp_path, capsys) -> None:
    kinds = ("CT", "MR-T1")
    phantom.run(Phantom(out=tmp_path / "scans", patients=1, size=32, modalities=kinds, seed=1))
    for path in (tmp_path / "scans/images").glob("*MR*"):  # an MR that shows nothing of the CT
        scan = sitk.ReadImage(str(path))
        noise = np.random.default_rng(0).random(scan.GetSize()[::-1]) * 1000
        other = sitk.GetImageFromArray(noise.astype(np.int16))
        other.CopyInformation(scan)
        sitk.WriteImage(other, str(path))
    data = index.run(Index(scans=tmp_path / "scans", out=tmp_path / "data", workers=1))
    prepare.run(Prepare(data=data, workers=1, register=True))
    assert "registered: 0 scans, 1 left where their headers have them, " in capsys.readouterr().out


def phantom_shift(patient: int, study: int) -> np.ndarray:
    from medssl.data.phantom import misregistration

    return np.array(misregistration(1, patient, study, "MR-T1", 18.0))


def test_a_correction_of_other_voxels_is_not_believed(tmp_path) -> None:
    from paired_scans import cohort, paired_store

    store = paired_store(tmp_path / "data", cohort(2))
    path = register_pairs(store, subjects(store), workers=1)
    told = read_json(path)
    for item in told["items"].values():
        item["correction"][3] += 5.0
    write_json(path, told)
    assert not np.array_equal(Store(store.data).affines[1], store.affines[1])
    path.write_text(path.read_text().replace("stamp1", "another"))
    assert np.array_equal(Store(store.data).affines[1], store.affines[1])


def test_images_are_not_registered(make_store, picture_plan) -> None:
    from medssl.volume import Volume

    pictures = [Volume(np.arange(900, dtype=np.uint8).reshape(1, 30, 30) % 251, np.eye(4))]
    store = make_store(picture_plan, pictures)
    with pytest.raises(UserError, match="--register is for volumes"):
        register_pairs(store, subjects(store))
