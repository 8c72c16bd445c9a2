import torch

from medssl.rng import Rng
from medssl.views.noise import mixed, normal_noise, sample_seeds, uniform_noise

CPU = torch.device("cpu")


def naive(x: int) -> int:
    """The hash as it is written for 32-bit words."""
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x = x * 0x735A2D97 % 2**32
    return x ^ (x >> 15)


def test_the_hash_equals_plain_integers() -> None:
    words = [0, 1, 2, 0xFFFFFFFF, 0x80000000, 123456789]
    assert mixed(torch.tensor(words)).tolist() == [naive(word) for word in words]


def test_a_row_depends_on_its_seed_alone() -> None:
    seeds = sample_seeds(Rng(0, 0), "noise", 4)
    both = uniform_noise(seeds, (1, 9, 7), CPU)
    assert torch.equal(both[2:3], uniform_noise(seeds[2:3], (1, 9, 7), CPU))
    assert not torch.equal(both[0], both[1])


def test_noise_has_the_moments_of_its_kind() -> None:
    seeds = sample_seeds(Rng(0, 0), "noise", 3)
    flat, bell = uniform_noise(seeds, (64, 64, 16), CPU), normal_noise(seeds, (64, 64, 16), CPU)
    assert 0 < float(flat.min()) < 1e-3 and 1 - 1e-3 < float(flat.max()) < 1
    assert abs(float(flat.mean()) - 0.5) < 5e-3 and abs(float(flat.std()) - 12**-0.5) < 5e-3
    assert abs(float(bell.mean())) < 1e-2 and abs(float(bell.std()) - 1) < 1e-2 and float(bell.abs().max()) < 5
    # Neither neighbours along any axis nor two samples look alike.
    for a, b in [(bell[:, 1:], bell[:, :-1]), (bell[..., 1:], bell[..., :-1]), (bell[:1], bell[1:2])]:
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.02
