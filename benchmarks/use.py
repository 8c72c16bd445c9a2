"""Row 8. Two processes beside one; embedding beside the bare forward; nearest neighbours beside faiss, scikit-learn."""

import contextlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Metric, missing, of_ratios, paired
from benchmarks.ranks import seconds_a_step
from benchmarks.stall import _prepared
from benchmarks.step import cases
from medssl.config import ModelConfig
from medssl.evaluate.features import embed, frozen, windows
from medssl.evaluate.nearest import nearest
from medssl.networks.pyramid import build_encoder

K = 10


def metrics(pairs: int, quick: bool) -> Iterator[Metric]:
    """Ranks by the clock, which needs two idle cores; the others as CPU time of one thread."""
    yield _ranks(max(3, pairs // 5), quick)
    yield _embedding(pairs, quick)
    yield from _neighbours(max(3, pairs // 3), quick)


def _ranks(pairs: int, quick: bool) -> Metric:
    case = next(iter(cases(quick).values()))
    ratios = [seconds_a_step(1, case).clock / seconds_a_step(2, case).clock for _ in range(pairs)]
    note = (
        "samples a second of 2 processes ÷ twice those of 1, by the clock: other load on the machine counts against it"
    )
    return of_ratios(8, "efficiency of 2 processes, a core each", ">= 0.9", ratios, note)


def _embedding(pairs: int, quick: bool) -> Metric:
    size = (64, 64) if quick else (224, 224)
    encoder = build_encoder(ModelConfig(encoder="resnet18", dims=2, width=16 if quick else 64, patch=size))
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(sys.stderr):
            store = _prepared(Path(folder), 2, size)
        rows = range(len(store))
        shapes = [w.size for r in rows for w in windows(r, store.shapes[r], size, encoder.strides[-1])]
        noise = [torch.rand(shapes.count(shape), 1, *shape) for shape in dict.fromkeys(shapes)]

        def bare() -> None:
            with frozen(encoder):
                for x in noise:
                    for part in x.split(16):
                        encoder(part)

        name = "embedding a second ÷ bare forward"
        # The bare forward's time over ours, reading and decompressing included: at most 1.
        return paired(8, name, ">= 0.95", bare, lambda: embed(encoder, store, rows, patch=size), pairs)


def _neighbours(pairs: int, quick: bool) -> Iterator[Metric]:
    n, m = (20_000, 64) if quick else (1_000_000, 256)
    name = f"time, {m} × {n} × 128"
    rng = np.random.default_rng(0)
    known, asked = (rng.standard_normal((k, 128), dtype=np.float32) for k in (n, m))
    for x in (known, asked):
        x /= np.linalg.norm(x, axis=1, keepdims=True)

    def ours() -> np.ndarray:
        return nearest(known, asked, K)[1]

    if importlib.util.find_spec("faiss") is None:
        yield missing(8, f"{name}, ÷ faiss FlatIP", "<= 1.2", "faiss-cpu")
    else:
        import faiss

        faiss.omp_set_num_threads(1)
        flat = faiss.IndexFlatIP(128)
        flat.add(known)
        assert (ours() == flat.search(asked, K)[1]).mean() > 0.999  # the same neighbours, but for ties in rounding
        yield paired(8, f"{name}, ÷ faiss FlatIP", "<= 1.2", ours, lambda: flat.search(asked, K), pairs)
    from sklearn.neighbors import NearestNeighbors

    brute = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(known)
    yield paired(8, f"{name}, ÷ scikit-learn", "", ours, lambda: brute.kneighbors(asked), pairs)
