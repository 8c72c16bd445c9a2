"""InfoNCE against the formula written out number by number; then what must not change it."""

import math

import pytest
import torch

from medssl.losses.contrastive import far_or_other, info_nce, nt_xent, simsiam, strangers, unit


def vectors(n, d=5, seed=0):
    torch.manual_seed(seed)
    return unit(torch.randn(n, d, dtype=torch.float64))


def naive(query, key, negatives, allowed, temperature, counted=None):
    """Index by index, as the equation reads."""
    total, rows = 0.0, 0
    for i in range(len(query)):
        if counted is not None and not counted[i]:
            continue
        positive = math.exp(sum(float(a) * float(b) for a, b in zip(query[i], key[i], strict=True)) / temperature)
        below = positive
        for j in range(len(negatives)):
            if allowed[i, j]:
                below += math.exp(
                    sum(float(a) * float(b) for a, b in zip(query[i], negatives[j], strict=True)) / temperature
                )
        total += -math.log(positive / below)
        rows += 1
    return total / max(rows, 1)


@pytest.mark.parametrize("counted", [None, torch.tensor([True, False, True, True])])
def test_equals_the_formula(counted):
    query, key, negatives = vectors(4), vectors(4, seed=1), vectors(7, seed=2)
    allowed = torch.rand(4, 7) < 0.6
    value = info_nce(query, key, negatives, allowed, 0.2, counted)
    assert float(value) == pytest.approx(naive(query, key, negatives, allowed, 0.2, counted), abs=1e-12)


def test_gradient_equals_finite_differences():
    query, key, negatives = vectors(3).requires_grad_(), vectors(3, seed=1), vectors(4, seed=2).requires_grad_()
    allowed = torch.ones(3, 4, dtype=torch.bool)
    allowed[0] = False
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, n, t: info_nce(q, key, n, allowed, t), (query, negatives, tau))


@pytest.mark.parametrize("negatives", [0, 1, 63])
def test_constant_features_give_log_of_the_number_of_choices(negatives):
    one = unit(torch.ones(6, 8))
    value = info_nce(one, one, one[:1].expand(negatives, -1), torch.ones(6, negatives, dtype=torch.bool), 0.2)
    assert float(value) == pytest.approx(math.log(negatives + 1), abs=1e-6)


def test_leaving_out_equals_removing():
    query, key, negatives = vectors(4), vectors(4, seed=1), vectors(9, seed=2)
    allowed = torch.ones(4, 9, dtype=torch.bool)
    allowed[:, [2, 5]] = False
    kept = [0, 1, 3, 4, 6, 7, 8]
    without = info_nce(query, key, negatives[kept], allowed[:, kept], 0.2)
    assert float(info_nce(query, key, negatives, allowed, 0.2)) == pytest.approx(float(without), abs=1e-14)


def test_order_of_the_batch_and_of_the_negatives_does_not_matter():
    query, key, negatives = vectors(4), vectors(4, seed=1), vectors(9, seed=2)
    allowed = torch.rand(4, 9) < 0.5
    rows, columns = torch.randperm(4), torch.randperm(9)
    shuffled = info_nce(query[rows], key[rows], negatives[columns], allowed[rows][:, columns], 0.2)
    assert float(info_nce(query, key, negatives, allowed, 0.2)) == pytest.approx(float(shuffled), abs=1e-14)


def test_no_negative_and_no_row_give_zero_with_a_graph():
    query = vectors(2).requires_grad_()
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    for counted in (None, torch.zeros(2, dtype=torch.bool)):
        value = info_nce(query, vectors(2), vectors(3), nothing, 0.2, counted)
        value.backward()
        assert float(value) == 0 and bool(query.grad.isfinite().all())


def test_finite_at_huge_logits():
    query = vectors(3).float().requires_grad_()
    value = info_nce(query, -query.detach(), vectors(5).float(), torch.ones(3, 5, dtype=torch.bool), 1e-4)
    value.backward()
    assert bool(value.isfinite()) and bool(query.grad.isfinite().all())


def test_similarities_are_float32_within_autocast():
    query, key, negatives = (vectors(n, 128, seed=n).float() for n in (8, 8, 32))
    key, allowed = key[:8], torch.ones(8, 32, dtype=torch.bool)
    outside = info_nce(query, key, negatives, allowed, 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = info_nce(query, key, negatives, allowed, 0.05)
    assert inside.dtype == torch.float32 and float(inside) == float(outside)


def test_anchors_contrast_with_far_cells_and_other_patients_only():
    cells = torch.tensor([[0, 1, 10], [0, 5, 15], [0, 5, 15], [3, 4, 9]])
    items, patients = torch.tensor([7, 7, 8, 9]), torch.tensor([1, 1, 1, 2])
    found = far_or_other(cells, (4, 4), items, patients, radius=1)
    flat = [(view, int(cell)) for view, row in enumerate(cells) for cell in row]
    for i, (v, a) in enumerate(flat):
        for j, (w, b) in enumerate(flat):
            if v == w:
                expected = max(abs(a // 4 - b // 4), abs(a % 4 - b % 4)) > 1
            else:
                expected = bool(items[v] != items[w] and patients[v] != patients[w])
            assert bool(found[i, j]) == expected, (i, j)
    assert not found.diagonal().any() and torch.equal(found, found.T)


def naive_nt_xent(first, second, allowed, temperature):
    """Eq. 1 as it reads: −log of the partner's share among all 2n − 1 others, those not allowed left out."""
    z, n = [*first, *second], len(first)
    total = 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        own = math.exp(float(z[i] @ z[partner]) / temperature)
        others = [k for k in range(2 * n) if k not in (i, partner) and allowed[i % n, k % n]]
        total -= math.log(own / (own + sum(math.exp(float(z[i] @ z[k]) / temperature) for k in others)))
    return total / (2 * n)


@pytest.mark.parametrize("patients", [[0, 1, 2, 3, 4], [0, 1, 1, 0, 2]])
def test_nt_xent_equals_its_equation(patients):
    first, second = vectors(5), vectors(5, seed=1)
    ids = torch.tensor(patients)
    allowed = strangers(torch.arange(5), ids, torch.arange(5), ids)
    value = nt_xent(first, second, (first, second), allowed, 0.3)
    assert float(value) == pytest.approx(naive_nt_xent(first, second, allowed, 0.3), abs=1e-12)


def test_strangers_share_neither_image_nor_patient():
    items, patients = torch.tensor([1, 2, 3]), torch.tensor([7, 7, 8])
    found = strangers(items, patients, torch.tensor([3, 4]), torch.tensor([9, 7]))
    assert found.tolist() == [[True, False], [True, False], [False, True]]


def test_nt_xent_over_halves_of_a_batch_is_the_mean_of_both():
    first, second = vectors(6), vectors(6, seed=1)
    allowed = ~torch.eye(6, dtype=torch.bool)
    halves = [nt_xent(first[s], second[s], (first, second), allowed[s], 0.3) for s in (slice(0, 3), slice(3, 6))]
    whole = nt_xent(first, second, (first, second), allowed, 0.3)
    assert float(sum(halves)) / 2 == pytest.approx(float(whole), abs=1e-14)


def test_simsiam_equals_its_equations_and_stops_the_projections():
    p1, z1, p2, z2 = (torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(4))
    total = 0.0
    for i in range(4):
        cosines = [sum(a * b for a, b in zip(p[i], z[i], strict=True)) / (p[i].norm() * z[i].norm())
                   for p, z in ((p1, z2), (p2, z1))]  # fmt: skip
        total -= 0.5 * float(sum(cosines).detach())
    value = simsiam(p1, z1, p2, z2)
    assert float(value.detach()) == pytest.approx(total / 4, abs=1e-12)
    value.backward()
    assert p1.grad is not None and p2.grad is not None and z1.grad is None and z2.grad is None
    assert float(simsiam(p1.detach(), 3 * p1, 2 * p1.detach(), p1).detach()) == pytest.approx(-1, abs=1e-12)
