from pathlib import Path

import pytest

from medssl.data.pairing import about_pairs, pairs_of, subjects
from medssl.data.store import Store
from medssl.errors import UserError
from paired_scans import cohort, paired_store

SHAPE = (16, 16, 16)


def made(tmp_path: Path, *scans: tuple, **columns) -> Store:
    filled = [(p, study, kind, SHAPE, origin) for p, study, kind, origin in scans]
    return paired_store(tmp_path / "data", filled, **columns)


HERE, FAR = (0, 0, 0), (400, 0, 0)


def test_patient_and_study_make_a_subject_or_the_column_that_was_named(tmp_path: Path) -> None:
    scans = [("a", "1", "CT", HERE), ("a", "1", "MR", HERE), ("a", "2", "MR", HERE), ("b", "1", "CT", HERE)]
    scans += [("c", "", "CT", HERE), ("c", "", "MR", HERE)]
    store = made(tmp_path, *scans, **{"label.visit": ["x", "y", "x", None, None, "y"]})
    assert subjects(store).tolist() == [0, 0, 1, 2, 3, 3]
    assert subjects(store, "patient").tolist() == [0, 0, 0, 1, 2, 2]
    visit = subjects(store, "visit").tolist()
    assert visit[0] == visit[2] and visit[1] == visit[5] and len(set(visit)) == 4  # the unknown ones are alone
    with pytest.raises(
        UserError, match=r"no column 'vist' in the index .*: choose one of patient, study, series, visit"
    ):
        subjects(store, "vist")


def test_pairs_are_scans_of_one_subject_and_two_modalities(tmp_path: Path) -> None:
    scans = [("a", "", "CT", HERE), ("b", "", "MR", HERE), ("a", "", "MR", HERE), ("a", "", "CT", HERE)]
    store = made(tmp_path, *scans)
    assert sorted(map(sorted, pairs_of(store, range(4), subjects(store)))) == [[0, 2], [2, 3]]
    assert pairs_of(store, [0, 1, 3], subjects(store)) == []


def test_what_there_is_is_told_in_a_sentence(tmp_path: Path) -> None:
    store = paired_store(tmp_path / "data", cohort())
    told = about_pairs(store, range(len(store)), subjects(store))
    assert told == ["pairs: 6 of 6 subjects have scans of two or more modalities (CT, MR)"]


def test_a_modality_of_one_subject_is_told(tmp_path: Path) -> None:
    store = made(tmp_path, *[(p, "", "CT", HERE) for p in "abc"], ("a", "", "MR", HERE), ("a", "", "PT", HERE))
    told = about_pairs(store, range(len(store)), subjects(store))
    assert len(told) == 3 and "'MR' appears in one subject only" in told[1] and "'PT'" in told[2]


def test_unpaired_data_are_told(tmp_path: Path) -> None:
    store = made(tmp_path, *[(p, "", "CT", HERE) for p in "abc"], *[(p, "", "MR", HERE) for p in "de"])
    told = about_pairs(store, range(len(store)), subjects(store))
    assert told[0].startswith("pairs: 0 of 5") and "no subject has scans of two modalities" in told[1]


def test_pairs_apart_are_counted_and_refused_where_none_meets(tmp_path: Path) -> None:
    scans = [
        (p, "", kind, FAR if (p, kind) in (("a", "MR"), ("b", "MR")) else HERE) for p in "abc" for kind in ("CT", "MR")
    ]
    store = made(tmp_path, *scans)
    (_, told) = about_pairs(store, range(6), subjects(store))
    assert told.startswith("warning: 2 of 3 pairs of scans do not overlap in world space") and "--register" in told
    with pytest.raises(UserError, match="none of the 2 pairs of scans overlaps in world space") as caught:
        about_pairs(store, range(4), subjects(store))
    assert "--register" in str(caught.value)
