"""Recall and rank against a search written out sample by sample, and against every order of what is tied."""

from itertools import combinations

import numpy as np
import pytest

from medssl.evaluate.retrieval import KS, PatientMedian, Samples, ranks, retrieval, unit
from medssl.rng import stream


def cohort(n: int = 24, d: int = 6, noise: float = 0.6, seed: int = 0) -> tuple[Samples, Samples]:
    """Two modalities of n subjects; every fourth patient has two studies; the second modality lacks some subjects."""
    rng = stream(seed, "cohort")
    patient = np.array([i // 2 if i % 8 < 2 else 1000 + i for i in range(n)])
    truth = rng.normal(size=(n, d))
    a = Samples(truth + noise * rng.normal(size=(n, d)), np.arange(n), patient)
    kept = np.array([i for i in range(n) if i % 5] + [3, 7])  # two subjects have a second sample
    b = Samples(truth[kept] + noise * rng.normal(size=(len(kept), d)), kept, patient[kept])
    return a, b


def naive(query: Samples, gallery: Samples) -> dict[int, tuple[list[float], float]]:
    """By query: recall at each k and rank, the mean over all orders of equal similarities."""
    found = {}
    for i, z in enumerate(query.z):
        entries = []
        for j, other in enumerate(gallery.z):
            cosine = float(z @ other / (np.linalg.norm(z) * np.linalg.norm(other) + 1e-300))
            if gallery.subject[j] == query.subject[i]:
                entries.append((round(cosine, 9), True))
            elif gallery.patient[j] != query.patient[i]:
                entries.append((round(cosine, 9), False))
        if not any(hit for _, hit in entries) or all(hit for _, hit in entries):
            continue
        best = max(c for c, hit in entries if hit)
        above = sum(c > best for c, _ in entries)
        tied = [hit for c, hit in entries if c == best]
        # The places that the partners take among what is tied, each choice as likely.
        places = [above + 1 + min(chosen) for chosen in combinations(range(len(tied)), sum(tied))]
        found[i] = [float(np.mean([p <= k for p in places])) for k in KS], float(np.mean(places))
    return found


@pytest.mark.parametrize("levels", [None, 1, 0])
def test_ranks_are_those_of_a_search_sample_by_sample(levels) -> None:
    """``levels``: digits that the embeddings keep, so that few or all similarities are tied."""
    query, gallery = cohort(14, d=2 if levels is not None else 6)
    if levels is not None:
        query, gallery = (
            Samples(np.round(s.z, levels) if levels else np.sign(s.z), s.subject, s.patient) for s in (query, gallery)
        )
    wanted, found = naive(query, gallery), ranks(query, gallery)
    assert found.query.tolist() == list(wanted)
    assert found.expected() == pytest.approx([rank for _, rank in wanted.values()], abs=1e-12)
    for n, k in enumerate(KS):
        assert found.recall(k) == pytest.approx([recall[n] for recall, _ in wanted.values()], abs=1e-9)


def test_a_constant_embedding_scores_as_chance_does() -> None:
    query, gallery = cohort()
    flat = [Samples(np.ones_like(s.z), s.subject, s.patient) for s in (query, gallery)]
    found = ranks(*flat)
    for k in KS:
        assert found.recall(k) == pytest.approx(found.chance_recall(k), abs=1e-9)
    assert found.expected() == pytest.approx(found.chance_rank())
    table = retrieval(*flat)
    assert table["median_rank"]["value"] == pytest.approx(table["median_rank"]["chance"], abs=0.5)


def test_chance_counts_patients_as_the_score_does() -> None:
    """A patient of four studies has fewer candidates, and asks four times: chance once was a mean over queries."""
    same = Samples(np.ones((9, 3)), np.arange(9), np.array([0, 0, 0, 0, 1, 2, 3, 4, 5]))
    table = retrieval(same, same)
    assert table["r@1"]["value"] == pytest.approx((1 / 6 + 5 / 9) / 6)
    for name in (*(f"r@{k}" for k in KS), "median_rank"):
        assert table[name]["chance"] == pytest.approx(table[name]["value"])


def test_chance_is_what_random_embeddings_score() -> None:
    rng, scores, chance = stream(0, "random"), [], 0.0
    for _ in range(60):
        query, gallery = (Samples(rng.normal(size=s.z.shape), s.subject, s.patient) for s in cohort())
        found = ranks(query, gallery)
        scores.append(found.recall(5).mean())
        chance = found.chance_recall(5).mean()
    assert np.mean(scores) == pytest.approx(chance, abs=3.5 * np.std(scores) / np.sqrt(60))


def test_a_perfect_embedding_finds_everyone_and_other_studies_of_a_patient_do_not_stand_in_the_way() -> None:
    query, gallery = cohort(noise=0.0)
    table = retrieval(query, gallery)
    assert table["r@1"]["value"] == 1 and table["median_rank"]["value"] == 1
    # The other study is more similar than the true partner: no miss, since it is left out.
    z = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    query = Samples(z[:1], np.array([0]), np.array([9]))
    near = Samples(np.array([[0.9, 0.4], [1.0, 0.0], [-1.0, 0.1]]), np.array([0, 1, 2]), np.array([9, 9, 7]))
    assert ranks(query, near).expected().tolist() == [1]
    stranger = Samples(near.z, near.subject, np.array([9, 8, 7]))
    assert ranks(query, stranger).expected().tolist() == [2]


def test_scale_and_order_of_the_samples_change_nothing() -> None:
    query, gallery = cohort()
    order, turn = stream(1, "o").permutation(len(query.z)), stream(2, "o").permutation(len(gallery.z))
    moved = Samples(3 * query.z[order], query.subject[order], query.patient[order])
    turned = Samples(0.1 * gallery.z[turn], gallery.subject[turn], gallery.patient[turn])
    one, other = retrieval(query, gallery), retrieval(moved, turned)
    assert one["r@1"]["value"] == pytest.approx(other["r@1"]["value"])
    assert one["median_rank"]["value"] == other["median_rank"]["value"]


def test_values_are_means_over_patients_with_intervals_about_them() -> None:
    query, gallery = cohort(60, noise=1.0)
    table = retrieval(query, gallery)
    found = ranks(query, gallery)
    patient = query.patient[found.query]
    by_patient = [found.recall(1)[patient == p].mean() for p in np.unique(patient)]
    assert table["r@1"]["value"] == pytest.approx(np.mean(by_patient))
    for name in ("r@1", "r@5", "r@10", "median_rank"):
        low, high = table[name]["interval"]
        assert low <= table[name]["value"] <= high and high - low > 0
    assert table["r@1"]["chance"] < table["r@5"]["chance"] < table["r@10"]["chance"]
    assert table == retrieval(query, gallery)
    fewer = retrieval(*cohort(240, noise=1.0, seed=3))
    width = [t["r@5"]["interval"][1] - t["r@5"]["interval"][0] for t in (table, fewer)]
    assert width[1] < 0.8 * width[0]


def test_a_few_patients_who_all_succeed_are_no_certainty() -> None:
    query, gallery = cohort(noise=0.0)
    table = retrieval(query, gallery)
    low, high = table["r@1"]["interval"]
    patients = table["patients"]
    assert high == 1 and (low**patients) == pytest.approx(0.025)  # as likely as that to see nothing but hits
    opposite = retrieval(Samples(-query.z, query.subject, query.patient), gallery)
    assert opposite["r@1"]["value"] == 0 and opposite["r@1"]["interval"] == pytest.approx([0, 1 - low])
    small = retrieval(*(Samples(s.z[:4], s.subject[:4], s.patient[:4] + np.arange(4) * 9) for s in (query, query)))
    assert small["r@10"]["interval"] == [1, 1]  # among four every order has it


def test_without_partners_there_is_nothing_to_retrieve() -> None:
    query, gallery = cohort()
    assert retrieval(query, Samples(gallery.z, gallery.subject + 500, gallery.patient + 5000)) == {"queries": 0}
    alone = Samples(query.z[:1], query.subject[:1], query.patient[:1])
    assert retrieval(alone, alone) == {"queries": 0}


def test_the_median_counts_a_patient_as_often_as_it_was_drawn() -> None:
    median = PatientMedian(np.array([5.0, 1.0, 3.0, 9.0]), np.array([0, 1, 1, 2]), 3)
    weights = np.array([[1, 1, 1], [3, 0, 0], [0, 1, 5], [1, 0, 1]])
    for row, found in zip(weights, median(weights), strict=True):
        drawn = sorted(np.repeat([5.0, 1.0, 3.0, 9.0], row[[0, 1, 1, 2]]))
        assert found == drawn[(len(drawn) - 1) // 2]


def test_a_row_of_zeros_stays_one() -> None:
    assert unit(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0, 0], [0.6, 0.8]]
