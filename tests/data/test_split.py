"""No patient and no image on two sides, whatever the input; shares and strata as asked."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.split import SPLITS, Member, assign
from medssl.errors import UserError

SHARES = (0.7, 0.1, 0.2)
few = st.integers(0, 6).map(str)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(few, few, st.sampled_from([None, *SPLITS]), few), max_size=30), st.integers(0, 3))
def test_nothing_is_ever_on_two_sides(rows: list[tuple[str, str, str | None, str]], seed: int) -> None:
    """Also where an earlier run had put things so that newcomers would tie sides together."""
    members = [Member(str(i), patient, image, kept, None, s) for i, (patient, image, kept, s) in enumerate(rows)]
    sides = assign(members, SHARES, seed)
    assert set(sides) == {m.name for m in members}
    for what in ("patient", "hash"):
        seen: dict[str, set] = {}
        for m in members:
            if sides[m.name] is not None:
                seen.setdefault(getattr(m, what), set()).add(sides[m.name])
        assert all(len(s) == 1 for s in seen.values())


def test_chains_of_shared_images_stay_together() -> None:
    """a and b share an image, b and c another: one group."""
    links = [("a", "1"), ("b", "1"), ("b", "2"), ("c", "2")]
    for seed in range(10):
        sides = assign([Member(f"{k}", *link) for k, link in enumerate(links)], SHARES, seed)
        assert len(set(sides.values())) == 1


def test_shares_and_strata() -> None:
    members = [Member(f"{k}", f"p{k}", f"h{k}", stratum="rare" if k < 20 else "common") for k in range(200)]
    sides = assign(members, SHARES, 0)
    for stratum, n in (("rare", 20), ("common", 180)):
        count = Counter(sides[m.name] for m in members if m.stratum == stratum)
        assert all(abs(count[side] - share * n) <= 1 for side, share in zip(SPLITS, SHARES, strict=True))


def test_seed_decides_and_order_of_names_does_not() -> None:
    members = [Member(f"{k}", f"p{k}", f"h{k}") for k in range(50)]
    renamed = [Member(m.name, m.patient[::-1] + "salted", m.hash) for m in members]
    assert assign(members, SHARES, 1) == assign(renamed, SHARES, 1)
    assert assign(members, SHARES, 1) != assign(members, SHARES, 2)


@pytest.mark.parametrize(("patients", "sides"), [(1, {"train"}), (2, {"train", "test"}), (3, set(SPLITS))])
def test_few_patients_fill_the_sides_that_matter_first(patients: int, sides: set[str]) -> None:
    drawn = assign([Member(f"{k}", f"p{k}", f"h{k}") for k in range(patients)], SHARES, 0)
    assert set(drawn.values()) == sides


def test_kept_sides_stay_and_newcomers_join_their_patient() -> None:
    old = [Member(f"{k}", f"p{k}", f"h{k}", kept=SPLITS[k % 3]) for k in range(30)]
    new = [Member("new", "p4", "fresh"), Member("other", "p99", "h5")]
    sides = assign([*old, *new], SHARES, 5)
    assert all(sides[m.name] == m.kept for m in old)
    assert (sides["new"], sides["other"]) == ("val", "test")


def test_a_newcomer_that_ties_two_sides_is_refused() -> None:
    old = [Member("a", "p1", "h1", kept="train"), Member("b", "p2", "h2", kept="test")]
    assert assign([*old, Member("c", "p1", "h2")], SHARES, 0) == {"a": "train", "b": "test", "c": None}


def test_a_given_split_that_leaks_is_an_error_that_counts() -> None:
    members = [Member("a", "p", "1", given="train"), Member("b", "p", "2", given="test")]
    members += [Member("c", "q", "3", given="train"), Member("d", "r", "3", given="val")]
    with pytest.raises(UserError, match=r"1 patients on two sides.*1 images") as error:
        assign(members, SHARES, 0)
    assert "column split" in str(error.value.fix)


def test_what_a_given_split_leaves_out_is_never_tested_on() -> None:
    members = [Member(f"{k}", f"p{k}", f"h{k}", given="test" if k < 3 else None) for k in range(20)]
    sides = assign([*members, Member("more", "p0", "x")], SHARES, 0)
    assert Counter(sides.values()) == {"train": 17, "test": 4}
    assert sides["more"] == "test"
