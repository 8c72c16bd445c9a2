"""Alignment losses against their equations, written out number by number; then what must not change them."""

import itertools
import math

import pytest
import torch

from medssl.losses.align import (
    align,
    infonce,
    sigmoid,
    voxel_infonce,
    word_infonce,
    word_similarity,
)
from medssl.losses.contrastive import unit
from medssl.losses.relate import relations, texts_once


def vectors(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=-1)


def dot(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def naive_infonce(a, b, positive, negative, tau, beta=0.0, hardest=0):
    """Row by row and positive by positive, in both directions."""
    halves = []
    for x, y, pos, neg in ((a, b, positive, negative), (b, a, positive.T, negative.T)):
        rows = []
        for i in range(len(x)):
            s = [dot(x[i], y[j]) / tau for j in range(len(y))]
            hard = sorted((s[j] for j in range(len(y)) if neg[i, j]), reverse=True)[: hardest or None]
            mean = sum(math.exp(beta * v) for v in hard) / max(len(hard), 1)
            below = sum(math.exp(beta * v) / mean * math.exp(v) for v in hard)
            mine = [-math.log(math.exp(s[p]) / (math.exp(s[p]) + below)) for p in range(len(y)) if pos[i, p]]
            if mine:
                rows.append(sum(mine) / len(mine))
        halves.append(sum(rows) / max(len(rows), 1))
    return sum(halves) / 2


def naive_sigmoid(a, b, positive, negative, tau, bias):
    total = 0.0
    for i, j in itertools.product(range(len(a)), range(len(b))):
        if positive[i, j] or negative[i, j]:
            sign = 1 if positive[i, j] else -1
            total -= math.log(1 / (1 + math.exp(-sign * (dot(a[i], b[j]) / tau + bias))))
    rows = sum(any(row) for row in positive.tolist()), sum(any(row) for row in positive.T.tolist())
    return total / (sum(rows) / 2) if sum(rows) else 0.0


def related(n, m, seed=0):
    """Several positives in some rows, none in others, some that are neither."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(0, 4, (n, m), generator=generator)
    kind[2] = 1 + kind[2] % 3
    return kind == 0, kind >= 2


HARD = {"plain": (0.0, 0), "reweighted": (0.7, 0), "top 2": (0.0, 2), "both": (1.5, 3), "more than there are": (0.0, 9)}


@pytest.mark.parametrize(("beta", "hardest"), HARD.values(), ids=HARD)
def test_infonce_equals_the_formula(beta, hardest):
    a, b, (positive, negative) = vectors(5, 4), vectors(6, 4, seed=1), related(5, 6)
    value = infonce(a, b, positive, negative, 0.3, beta, hardest)
    assert float(value) == pytest.approx(naive_infonce(a, b, positive, negative, 0.3, beta, hardest), abs=1e-12)


def test_sigmoid_equals_the_formula():
    a, b, (positive, negative) = vectors(5, 4), vectors(6, 4, seed=1), related(5, 6)
    value = sigmoid(a, b, positive, negative, 0.1, -10.0)
    assert float(value) == pytest.approx(naive_sigmoid(a, b, positive, negative, 0.1, -10.0), abs=1e-12)


def test_plain_pairs_give_the_published_losses():
    a, b, eye = vectors(6, 4), vectors(6, 4, seed=1), torch.eye(6, dtype=torch.bool)
    logits, target = a @ b.T / 0.07, torch.arange(6)
    cross = torch.nn.functional.cross_entropy
    clip = (cross(logits, target) + cross(logits.T, target)) / 2
    assert float(infonce(a, b, eye, ~eye, 0.07)) == pytest.approx(float(clip), abs=1e-12)
    signs = 2 * torch.eye(6, dtype=torch.float64) - 1
    siglip = -torch.nn.functional.logsigmoid(signs * (a @ b.T * 10 - 10)).sum() / 6
    assert float(sigmoid(a, b, eye, ~eye, 0.1, -10.0)) == pytest.approx(float(siglip), abs=1e-12)


@pytest.mark.parametrize("form", ["infonce", "sigmoid", "hard"])
def test_gradients_equal_those_of_finite_differences(form):
    a, b, (positive, negative) = vectors(4, 3), vectors(3, 3, seed=1), related(4, 3)
    tau, bias = torch.tensor(0.4, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in ((a, b, tau, bias) if form == "sigmoid" else (a, b, tau))]

    def loss(a, b, tau, *bias):
        if bias:
            return sigmoid(a, b, positive, negative, tau, *bias)
        return infonce(a, b, positive, negative, tau, 0.5 if form == "hard" else 0.0, 2 if form == "hard" else 0)

    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-8)


FLAT = (torch.tensor([0, 1, 0, 1, 2, 0, 2, 1]), torch.tensor([5, 5, 6, 6, 6, 7, 8, 5]))


@pytest.mark.parametrize("form", ["infonce", "sigmoid"])
def test_a_flat_batch_is_the_sum_over_its_pairs_of_modalities(form):
    z, (modality, subject) = vectors(8, 5), FLAT
    patient = torch.tensor([1, 1, 1, 1, 1, 2, 3, 1])  # 5 and 6 are two studies of one patient
    naive = 0.0
    for first, second in itertools.combinations(range(3), 2):
        rows, columns = ([i for i in range(8) if modality[i] == m] for m in (first, second))
        positive = torch.tensor([[bool(subject[i] == subject[j]) for j in columns] for i in rows])
        negative = torch.tensor([[bool(patient[i] != patient[j]) for j in columns] for i in rows])
        if form == "sigmoid":
            naive += naive_sigmoid(z[rows], z[columns], positive, negative, 0.2, -3.0)
        else:
            naive += naive_infonce(z[rows], z[columns], positive, negative, 0.2)
    value = align(z, modality, subject, 0.2, same=[patient], form=form, bias=-3.0)
    assert float(value) == pytest.approx(naive, abs=1e-12)


@pytest.mark.parametrize("form", ["infonce", "sigmoid"])
def test_masking_a_subject_equals_removing_it_and_order_does_not_matter(form):
    z, (modality, subject) = vectors(8, 5), FLAT
    alike = (torch.arange(8)[:, None] - torch.arange(8)).abs() == 3
    rest = subject != 6
    masked = align(z, modality, subject, 0.2, present=rest, alike=alike, form=form)
    removed = align(z[rest], modality[rest], subject[rest], 0.2, alike=alike[rest][:, rest], form=form)
    assert float(masked) == pytest.approx(float(removed), abs=1e-13)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    again = align(z[order], modality[order], subject[order], 0.2, alike=alike[order][:, order], form=form)
    assert float(again) == pytest.approx(float(align(z, modality, subject, 0.2, alike=alike, form=form)), abs=1e-13)


def test_the_same_subject_patient_or_content_is_never_a_negative():
    subject, patient = torch.tensor([0, 0, 1, 2, 3]), torch.tensor([9, 9, 9, 4, 5])
    alike = torch.zeros(5, 5, dtype=torch.bool)
    alike[0, 4] = alike[4, 0] = True
    positive, negative = relations(subject, [patient], alike)
    for i, j in itertools.product(range(5), range(5)):
        assert bool(positive[i, j]) == (subject[i] == subject[j] or {i, j} == {0, 4})
        assert bool(negative[i, j]) == (not positive[i, j] and patient[i] != patient[j])


def test_a_text_counts_once_a_subject_and_equal_texts_are_alike():
    is_text = torch.tensor([0, 0, 0, 1, 1, 1, 1], dtype=torch.bool)
    subject, content = torch.tensor([5, 5, 6, 5, 5, 6, 7]), torch.tensor([9, 9, 9, 9, 9, 9, 0])
    present, alike = texts_once(is_text, subject, content)
    assert present.tolist() == [True] * 3 + [True, False, True, False]  # the second of study 5, and the empty one
    for i, j in itertools.product(range(7), range(7)):
        assert bool(alike[i, j]) == bool(content[i] == content[j] != 0 and (is_text[i] or is_text[j]))


@pytest.mark.parametrize("b", [1, 2, 64])
def test_equal_features_give_the_log_of_the_batch(b):
    one = unit(torch.ones(2 * b, 8))
    modality, subject = torch.arange(2 * b) % 2, torch.arange(2 * b) // 2
    for beta, hardest in HARD.values():
        value = align(one, modality, subject, 0.07, beta=beta, hardest=hardest)
        assert float(value) == pytest.approx(math.log(min(b, hardest + 1) if hardest else b), abs=1e-5)


@pytest.mark.parametrize("form", ["infonce", "sigmoid"])
def test_a_batch_without_pairs_gives_zero_with_a_graph(form):
    cases = {"one modality": ([0, 0, 0], [0, 1, 0]), "no subject twice": ([0, 1, 1], [0, 1, 2]), "one": ([1], [0])}
    for name, (modality, subject) in cases.items():
        z = vectors(len(subject), 4).requires_grad_()
        value = align(z, torch.tensor(modality), torch.tensor(subject), 0.1, form=form, bias=-10.0)
        value.backward()
        assert float(value.detach()) == 0 and bool((z.grad == 0).all()), name


@pytest.mark.parametrize("form", ["infonce", "sigmoid"])
@pytest.mark.parametrize("sign", [1, -1])
def test_finite_and_not_negative_at_logits_of_ten_thousand(form, sign):
    z = vectors(4, 5).float().repeat_interleave(2, 0)
    z[1::2] *= sign
    z.requires_grad_()
    modality, subject = torch.arange(8) % 2, torch.arange(8) // 2
    for beta, hardest in HARD.values():
        value = align(z, modality, subject, 1e-4, form=form, bias=-10.0, beta=beta, hardest=hardest)
        value.backward()
        assert bool(value.isfinite()) and float(value.detach()) >= 0 and bool(z.grad.isfinite().all())


def test_similarities_are_float32_within_autocast():
    z, modality, subject = vectors(32, 64).float(), torch.arange(32) % 2, torch.arange(32) // 2
    regions, words = vectors(4, 6, 32).float(), vectors(4, 5, 32, seed=1).float()
    eye, real = torch.eye(4, dtype=torch.bool), torch.ones(4, 5, dtype=torch.bool)
    for loss in (lambda: align(z, modality, subject, 0.07), lambda: word_infonce(regions, words, real, eye, ~eye)):
        outside = loss()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss()
        assert inside.dtype == torch.float32 and float(inside) == float(outside)


# Local forms ---------------------------------------------------------------------------------------------------


def test_voxels_contrast_with_far_positions_and_other_subjects_only():
    n, tau, ignore = 7, 0.3, 5.0
    query, key = vectors(n, 4), vectors(n, 4, seed=1)
    world = torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 12
    subject, patient = torch.tensor([0, 0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 0, 0, 0, 0, 3])
    counted = torch.tensor([True, True, True, False, True, True, True])
    halves = []
    for a, b in ((query, key), (key, query)):
        rows = []
        for i in range(n):
            below = math.exp(dot(a[i], b[i]) / tau)
            for j in range(n):
                far = math.dist(world[i].tolist(), world[j].tolist()) > ignore
                if counted[j] and (far if subject[i] == subject[j] else patient[i] != patient[j]):
                    below += math.exp(dot(a[i], b[j]) / tau)
            if counted[i]:
                rows.append(math.log(below) - dot(a[i], b[i]) / tau)
        halves.append(sum(rows) / len(rows))
    value = voxel_infonce(query, key, world, subject, counted, tau, ignore, [patient])
    assert float(value) == pytest.approx(sum(halves) / 2, abs=1e-12)


def test_no_shared_position_gives_zero_with_a_graph():
    for n in (0, 3):
        query = vectors(n, 4).requires_grad_()
        nothing = torch.zeros(n, dtype=torch.bool)
        value = voxel_infonce(query, vectors(n, 4), torch.zeros(n, 3).double(), torch.arange(n), nothing, 0.1, 1.0)
        value.backward()
        assert float(value.detach()) == 0 and bool(query.grad.isfinite().all())


def naive_words(regions, words, real, attend=0.25, gather=0.2):
    out = torch.zeros(len(regions), len(words), dtype=torch.float64)
    for n, m in itertools.product(range(len(regions)), range(len(words))):
        terms = []
        for l in range(words.shape[1]):
            if not real[m, l]:
                continue
            weight = [math.exp(dot(words[m, l], v) / attend) for v in regions[n]]
            found = sum(w * v for w, v in zip(weight, regions[n], strict=True)) / sum(weight)
            terms.append(math.exp(dot(found, words[m, l]) / math.sqrt(dot(found, found)) / gather))
        out[n, m] = gather * math.log(sum(terms) / len(terms)) if terms else 0.0
    return out


def test_words_find_their_regions_as_the_formula_says():
    regions, words = vectors(3, 6, 4), vectors(4, 5, 4, seed=1)
    real = torch.arange(5) < torch.tensor([5, 2, 1, 0])[:, None]
    found, expected = word_similarity(regions, words, real), naive_words(regions, words, real)
    assert float((found - expected).abs().max()) < 1e-12
    positive = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    negative = ~positive & torch.tensor([True, True, True, False])
    # A product with a unit vector is the number itself: the matrix stands for the similarities.
    naive = naive_infonce(expected, torch.eye(4).double(), positive, negative, 0.1)
    assert float(word_infonce(regions, words, real, positive, negative)) == pytest.approx(naive, abs=1e-10)


def test_padding_and_texts_without_words_change_nothing():
    regions, words, real = vectors(3, 6, 4), vectors(3, 5, 4, seed=1), torch.ones(3, 5, dtype=torch.bool)
    eye = torch.eye(3, dtype=torch.bool)
    more = torch.cat([words, torch.full((3, 2, 4), 7.0).double()], 1)
    padded = torch.cat([real, torch.zeros(3, 2, dtype=torch.bool)], 1)
    value = word_infonce(regions, words, real, eye, ~eye)
    assert float(word_infonce(regions, more, padded, eye, ~eye)) == pytest.approx(float(value), abs=1e-13)
    words = torch.cat([words, words[:1]]).requires_grad_()
    real = torch.cat([real, torch.zeros(1, 5, dtype=torch.bool)])
    none = torch.zeros(3, 1, dtype=torch.bool)
    again = word_infonce(regions, words, real, torch.cat([eye, none], 1), torch.cat([~eye, none], 1))
    again.backward()
    assert float(again.detach()) == pytest.approx(float(value), abs=1e-13) and bool(words.grad.isfinite().all())


def test_equal_words_and_regions_give_the_log_of_the_batch():
    one, eye = unit(torch.ones(1, 8))[None].double(), torch.eye(5, dtype=torch.bool)
    real = torch.arange(4) < torch.tensor([4, 1, 2, 3, 1])[:, None]  # texts of any length
    value = word_infonce(one.expand(5, 3, 8), one.expand(5, 4, 8), real, eye, ~eye)
    assert float(value) == pytest.approx(math.log(5), abs=1e-6)
