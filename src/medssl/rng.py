"""Named random streams: chance is a pure function of (seed, purpose, step, position in the global batch).

No generator has state that a checkpoint would have to keep, worker counts change nothing, and a rank draws
exactly what its samples would draw on one machine.
"""

import hashlib
from dataclasses import dataclass

import numpy as np


def key(seed: int, *purpose: object) -> int:
    """128 bits that depend on the seed and on every word of the purpose."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def stream(seed: int, *purpose: object) -> np.random.Generator:
    """A generator of its own for one purpose: ``stream(seed, "split")``, ``stream(seed, "order", epoch)``."""
    return np.random.Generator(np.random.Philox(key=key(seed, *purpose)))


@dataclass(frozen=True)
class Rng:
    """All chance of one step. ``start`` is the position of this rank's first sample in the global batch."""

    seed: int
    step: int
    start: int = 0

    def batch(self, purpose: str) -> np.random.Generator:
        """One generator a step, the same on all ranks (for α, λ, the drawn level)."""
        return stream(self.seed, purpose, self.step)

    def uniform(self, purpose: str, n: int, *shape: int) -> np.ndarray:
        """(n, *shape) numbers in [0, 1), float64; row i belongs to global position ``start + i``."""
        return self.batch(purpose).random((self.start + n, *shape))[self.start :]

    def normal(self, purpose: str, n: int, *shape: int) -> np.ndarray:
        """(n, *shape) standard normal numbers, float64, a row a sample."""
        return self.batch(purpose).standard_normal((self.start + n, *shape))[self.start :]

    def sample(self, purpose: str, position: int) -> np.random.Generator:
        """A generator for one sample, for draws whose number varies. ``position`` counts within this rank."""
        return stream(self.seed, purpose, self.step, self.start + position)
