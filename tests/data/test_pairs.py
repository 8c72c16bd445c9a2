"""A batch of pairs is a pure function of (seed, step, position), balanced over modalities, each pair in one place."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.contract import Batch
from medssl.data.pairing import subjects
from medssl.data.pairs import paired_batches
from medssl.data.store import Store
from medssl.errors import UserError
from paired_scans import cohort, paired_store

REGION = (12, 12, 8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return paired_store(tmp_path / "data", cohort())


def draw(store: Store, **options) -> list[Batch]:
    usual = {"region": REGION, "batch": 8, "steps": 6, "seed": 3, "subjects": subjects(store)}
    given = usual | options
    rows = given.pop("rows", range(len(store)))
    return list(paired_batches(store, rows, **given))


def equal(a: Batch, b: Batch) -> bool:
    pairs = [(value, getattr(b, name)) for name, value in vars(a).items() if isinstance(value, torch.Tensor)]
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_worker_counts_change_nothing(store: Store) -> None:
    text = np.arange(len(store) * 3).reshape(-1, 3)
    for a, b in zip(draw(store, text=text), draw(store, text=text, workers=2), strict=True):
        assert equal(a, b) and a.text.equal(torch.from_numpy(text)[a.item])


def test_a_resumed_run_sees_what_it_would_have_seen(store: Store) -> None:
    through, resumed = draw(store, steps=9), draw(store, steps=9, start=5)
    assert len(resumed) == 4 and all(equal(a, b) for a, b in zip(through[5:], resumed, strict=True))


def test_ranks_share_the_global_batch(store: Store) -> None:
    parts = [draw(store, rank=rank, world=2) for rank in range(2)]
    for whole, first, second in zip(draw(store), *parts, strict=True):
        for name in ("image", "item", "subject", "place", "modality"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(first, name), getattr(second, name)])), name


def test_seeds_and_steps_differ(store: Store) -> None:
    a, b = draw(store), draw(store, seed=4)
    assert not torch.equal(a[0].image, b[0].image) and not torch.equal(a[0].image, a[1].image)


def test_batches_are_balanced_and_hold_pairs_that_every_epoch_visits(store: Store) -> None:
    seen = []
    for batch in draw(store, steps=6):
        assert sorted(Counter(batch.modality.tolist()).values()) == [4, 4]
        pairs = batch.subject.view(4, 2)  # subject by subject
        assert (pairs[:, 0] == pairs[:, 1]).all()
        seen += pairs[:, 0].tolist()
    assert all(sorted(seen[i : i + 6]) == list(range(6)) for i in range(0, 24, 6))
    assert len({tuple(seen[i : i + 6]) for i in range(0, 24, 6)}) > 1


def test_a_study_is_a_subject_and_other_studies_of_the_patient_are_others(store: Store) -> None:
    for batch in draw(store):
        for i, row in enumerate(batch.item.tolist()):
            assert batch.subject[i] == subjects(store)[row] and batch.patient[i] == store.patients[row]
    assert len(set(subjects(store))) == 6 and len(set(store.patients)) == 4


def test_paired_regions_show_the_same_voxels_of_the_world(store: Store) -> None:
    """Every voxel holds a code of where it lies, so equal places have equal numbers."""
    for batch in draw(store, steps=20):
        for i in range(0, 8, 2):
            assert torch.equal(batch.image[i], batch.image[i + 1])
            assert torch.equal(batch.place[i], batch.place[i + 1])


def test_the_place_says_where_the_region_was_cut(store: Store) -> None:
    for batch in draw(store):
        for image, place in zip(batch.image, batch.place, strict=True):
            for voxel in ((0, 0, 0), (11, 3, 7)):
                x, y, z = (place @ torch.tensor([*voxel, 1.0], dtype=torch.float64))[:3].tolist()
                assert image[(0, *voxel)] == -900 + 12 * (x % 30) + 5 * (y % 30) + z % 5
        assert batch.place.dtype == torch.float64


def test_unpaired_data_fill_balanced_batches_too(tmp_path: Path) -> None:
    scans = [(f"c{i}", "", "CT", (20, 20, 20), (0, 0, 0)) for i in range(9)]
    scans += [(f"m{i}", "", "MR", (20, 20, 20), (0, 0, 0)) for i in range(3)]
    store = paired_store(tmp_path / "data", scans)
    counts: Counter[int] = Counter()
    for batch in draw(store, batch=6, steps=60):
        assert sorted(Counter(batch.modality.tolist()).values()) == [3, 3]
        counts.update(batch.item.tolist())
    assert len(counts) == 12 and min(counts[i] for i in range(9, 12)) > 2 * max(counts[i] for i in range(9))


def test_a_missing_modality_is_filled_by_a_scan_that_the_batch_does_not_hold(tmp_path: Path) -> None:
    scans = [scan for i, scan in enumerate(cohort(8)) if i not in (1, 6)]  # subject 0 has no MR, subject 3 no CT
    store = paired_store(tmp_path / "data", scans)
    for batch in draw(store, steps=40, batch=8):  # half of the subjects, so that no epoch ends within a batch
        assert sorted(Counter(batch.modality.tolist()).values()) == [4, 4]
        assert len(batch.item.unique()) == 8


def test_three_modalities_in_a_batch_of_any_size_come_equally_often(tmp_path: Path) -> None:
    scans = [(f"p{i}", "", kind, (16, 16, 16), (0, 0, 0)) for i in range(5) for kind in ("CT", "MR-T1", "MR-T2")]
    store = paired_store(tmp_path / "data", scans)
    for batch in (2, 4, 6):
        made = draw(store, batch=batch, steps=150)
        counts = Counter(code for one in made for code in one.modality.tolist())
        assert max(Counter(one.modality.tolist()).most_common(1)[0][1] for one in made) <= -(-batch // 3)
        assert max(counts.values()) < 1.25 * min(counts.values())


def test_one_modality_alone_is_an_ordinary_epoch(tmp_path: Path) -> None:
    store = paired_store(tmp_path / "data", [(f"p{i}", "", "CR", (16, 16, 16), (0, 0, 0)) for i in range(6)])
    drawn = torch.cat([batch.item for batch in draw(store, batch=3, steps=4)]).tolist()
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6))


def test_several_scans_of_one_modality_take_turns(tmp_path: Path) -> None:
    scans = [("p0", "1", kind, (16, 16, 16), (0, 0, 0)) for kind in ("CT", "CT", "CT", "MR")]
    store = paired_store(tmp_path / "data", scans + [("p1", "1", k, (16, 16, 16), (0, 0, 0)) for k in ("CT", "MR")])
    counts = Counter(torch.cat([batch.item for batch in draw(store, batch=4, steps=60)]).tolist())
    assert all(10 < counts[row] < 32 for row in range(3)) and counts[3] == 60


def test_labels_masks_and_rows_are_those_of_the_samples(store: Store) -> None:
    rows = [1, 0, 5, 4, 7, 6]
    labels = np.array(rows, np.float32)[:, None]
    for batch in draw(store, rows=rows, labels=labels, batch=4):
        assert batch.label[:, 0].tolist() == batch.item.tolist() and set(batch.item.tolist()) <= set(rows)
    with pytest.raises(UserError, match="2 rows of text for 12 scans"):
        draw(store, text=np.zeros((2, 3)))
