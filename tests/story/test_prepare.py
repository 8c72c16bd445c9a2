"""`medssl prepare` as a person uses it: plan, edit, run again, add scans, ask for something else."""

import csv
from pathlib import Path

import numpy as np
import pytest

from medssl.cli import main
from medssl.data.plan import Plan
from medssl.data.store import Store
from medssl.stages.options.data import Prepare
from medssl.stages.prepare import run
from scan_files import index, noise, write_nifti

LEFT_POSTERIOR = np.diag([-1.0, -1.0, 2.0, 1.0])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four CT volumes with bodies in air, one of them lying otherwise, two with masks; and two MR volumes."""
    scans = tmp_path / "scans"
    rows = [["path", "patient_id", "modality", "mask_path"]]
    for i in range(6):
        image = np.full((24, 20, 16), -1000, np.int16)
        image[6:18, 5:15, 4:12] = 100 + noise(i, 12, 10, 8) // 100
        if i > 3:
            image = (image + 1000).astype(np.int16)
        write_nifti(scans / f"{i}.nii.gz", image, LEFT_POSTERIOR if i == 1 else np.diag([1.0, 1.0, 2.0, 1.0]))
        mask = np.zeros(image.shape, np.uint8)
        mask[8:12, 7:11, 6:9] = 1
        if i in (1, 2):
            write_nifti(scans / f"mask{i}.nii.gz", mask, LEFT_POSTERIOR if i == 1 else np.diag([1.0, 1.0, 2.0, 1.0]))
        rows.append([f"{i}.nii.gz", f"p{i}", "MR" if i > 3 else "CT", f"mask{i}.nii.gz" if i in (1, 2) else ""])
    with (scans / "labels.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    index(scans, tmp_path / "data")
    return tmp_path / "data"


def written(data: Path) -> dict[str, int]:
    """Stored files and the instants they were written at."""
    return {path.name: path.stat().st_mtime_ns for path in (data / "store").iterdir()}


def test_the_whole_way(data: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["prepare", str(data), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "disk: about" in said
    assert "prepared: 6 of 6 scans" in said
    store = Store(data)
    assert store.plan.spacing_mm == (1.0, 1.0, 2.0)
    assert store.items["path"].to_list() == [f"{i}.nii.gz" for i in range(6)]
    assert store.has_mask.tolist() == [False, True, True, False, False, False]
    assert store.shapes.max() < 24  # air is gone
    for row in range(4):
        values = store.normalised(row)
        assert 0.54 < np.median(values[values > 0.5]) < 0.56  # 100 HU in a window of -1000 to 1000
    # The scan that lies otherwise is turned, its mask with it.
    turned, mask = store.read(1)[0], store.read_mask(1)
    assert (turned[mask == 1] > 0).all()
    assert tuple(np.diag(np.reshape(store.items["affine"][1].to_list(), (4, 4)))) == (1, 1, 2, 1)
    back = store.place_back(1, mask)
    assert back.array[0, 8:12, 7:11, 6:9].all()
    assert back.array.sum() == 48


def test_running_again_does_nothing_anew(data: Path, capsys: pytest.CaptureFixture) -> None:
    run(Prepare(data=data, workers=1))
    before, table = written(data), (data / "prepared.parquet").read_bytes()
    capsys.readouterr()
    run(Prepare(data=data, workers=1))
    assert "6, of which 0 to prepare" in capsys.readouterr().out
    assert written(data) == before
    assert (data / "prepared.parquet").read_bytes() == table


def test_an_edited_plan_redoes_what_the_change_concerns(data: Path) -> None:
    run(Prepare(data=data, workers=1))
    before, first = written(data), Store(data)
    path = data / "plan.toml"
    text = path.read_text().replace('[modality.MR]\nnormalise = "percentile"\nlow = 0.5', "[modality.MR]\nlow = 2.0")
    path.write_text("# my own words\n" + text.replace("[modality.MR]\n", '[modality.MR]\nnormalise = "percentile"\n'))
    run(Prepare(data=data, workers=1))
    assert path.read_text().startswith("# my own words")
    assert Plan.read(path).modality["MR"].low == 2
    changed = {name.split(".")[0] for name, instant in written(data).items() if instant != before[name]}
    assert changed == set(first.items["item"].to_list()[4:])
    assert Store(data).hash != first.hash


def test_options_change_an_existing_plan(data: Path) -> None:
    run(Prepare(data=data, workers=1))
    before = written(data)
    run(Prepare(data=data, workers=1, window_hu=(-100.0, 300.0)))
    store = Store(data)
    assert (store.plan.modality["CT"].low, store.plan.modality["CT"].high) == (-100, 300)
    kept = [name for name, instant in written(data).items() if instant == before[name] and ".mask." not in name]
    assert sorted(kept) == sorted(f"{item}.b2nd" for item in store.items["item"].to_list()[4:])
    run(Prepare(data=data, workers=1, spacing_mm=(2.0,), mr="zscore"))
    store = Store(data)
    assert store.plan.spacing_mm == (2.0, 2.0, 2.0)
    assert store.plan.modality["CT"].low == -100  # what was asked for before stays
    assert store.normalised(5).min() < 0


def test_scans_that_come_and_go(data: Path, tmp_path: Path) -> None:
    run(Prepare(data=data, workers=1))
    before = written(data)
    image = np.full((24, 20, 16), -1000, np.int16)
    image[6:18, 5:15, 4:12] = noise(9, 12, 10, 8)
    write_nifti(tmp_path / "scans" / "7.nii.gz", image)
    (tmp_path / "scans" / "3.nii.gz").unlink()
    index(tmp_path / "scans", data, modality="CT")
    run(Prepare(data=data, workers=1))
    store = Store(data)
    assert [Path(p).name[0] for p in store.items["path"].to_list()] == ["0", "1", "2", "4", "5", "7"]
    now = written(data)
    assert len(set(before) - set(now)) == 1  # the one that left
    assert {name: now[name] for name in now if name in before} == {n: t for n, t in before.items() if n in now}


def test_plan_first_work_later(data: Path) -> None:
    assert main(["prepare", str(data), "--plan-only"]) == 0
    assert (data / "plan.toml").exists()
    assert not (data / "store").exists()


def test_processes_change_nothing(data: Path, tmp_path: Path) -> None:
    run(Prepare(data=data, workers=1))
    alone = Store(data)
    values = [alone.read(row) for row in range(6)]
    for path in (data / "store").iterdir():
        path.unlink()
    run(Prepare(data=data, workers=2))
    together = Store(data)
    assert together.hash == alone.hash
    for row in range(6):
        np.testing.assert_array_equal(together.read(row), values[row])


def test_real_hippocampi(shared_data: Path, tmp_path: Path) -> None:
    """Orientation and labels of real MR: place_back of the stored mask is the mask of the file."""
    folder = shared_data / "mr_hippo"
    scans = tmp_path / "scans"
    for name in ("hippocampus_001", "hippocampus_058", "hippocampus_230"):
        for part in ("images", "labels"):
            (scans / part).mkdir(parents=True, exist_ok=True)
            (scans / part / f"{name}.nii.gz").symlink_to(folder / part / f"{name}.nii.gz")
    table = "path,mask_path\n" + "".join(
        f"images/{p.name},labels/{p.name}\n" for p in sorted((scans / "images").iterdir())
    )
    (scans / "labels.csv").write_text(table)
    index(scans, tmp_path / "data", modality="MR")
    run(Prepare(data=tmp_path / "data", workers=1))
    store = Store(tmp_path / "data")
    import nibabel as nib

    for row in range(3):
        wanted = np.asarray(nib.load(scans / store.items["mask_path"][row]).dataobj)
        np.testing.assert_array_equal(store.place_back(row, store.read_mask(row)).array[0], wanted)
        assert 0.2 < store.normalised(row).mean() < 0.8


def test_a_corrected_header_is_prepared_anew(tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    for k in range(2):
        write_nifti(scans / f"{k}.nii", np.abs(noise(k, 12, 13, 14)))
    index(scans, out)
    run(Prepare(data=out, workers=1))
    before = written(out)
    write_nifti(scans / "1.nii", np.abs(noise(1, 12, 13, 14)), np.diag([2.0, 2, 3, 1]))  # the same voxels, elsewhere
    index(scans, out)
    run(Prepare(data=out, workers=1))
    assert sum(written(out)[name] != before[name] for name in before) == 1
    assert Store(out).shapes.tolist() == [[12, 13, 14], [24, 26, 42]]
