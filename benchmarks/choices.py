"""Row 10. What a run chooses by itself beside the other choices: samples a second, memory, and the limits of the card.

The limits are measured here: a large matrix product, and a large copy. The bytes of a step are those that its
operations read and write if each does so once, so that their share of the bandwidth tells how far fusing could help.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import infonce
from benchmarks.agreement import tf32
from benchmarks.case import DTYPES, Case
from benchmarks.held import Moved, peak_bytes
from benchmarks.measure import Metric, Run, seconds
from benchmarks.step import cases
from medssl.engine.parts import release
from medssl.losses import tiled

WARM, REPEATS = 3, 10
STRIPS = (2**21, 2**23, 2**25)  # similarities at a time


@dataclass(frozen=True)
class Card:
    """The device and what it can do: FLOP/s by precision, bytes a second; ``repeats`` of a step that is timed."""

    device: str
    rates: dict[str, float]
    bandwidth: float
    repeats: int


def metrics(pairs: int, quick: bool, device: str = "cpu") -> Iterator[Metric]:
    """The limits, then one step in every way; compilation comes last, since it takes a minute each time."""
    precisions = [p for p in DTYPES if p != "float16" or device != "cpu"]
    rates = {precision: _products(precision, quick, device) for precision in precisions}
    card = Card(device, rates, _copies(quick, device), 1 if quick else REPEATS)
    for precision, rate in rates.items():
        yield Metric(row=10, name=f"matrix products, {precision}, TFLOP/s", value=rate / 1e12, note=_tf32(precision))
    yield Metric(row=10, name="memory bandwidth of a copy, GB/s", value=card.bandwidth / 1e9, note="read and written")
    every = list(product(cases(quick, device).items(), precisions))
    counts = {}
    for (name, arguments), precision in every:
        counts[name, precision] = _counted(arguments, precision, device)
        for contiguous, fused in product((False, True), (True, False)):
            options = {"precision": precision, "contiguous": contiguous, "fused": fused}
            yield _choice(name, arguments, options, counts[name, precision], card)
    yield from _strips(quick, device)
    if not quick:
        # bf16 first, as a run would take it: the time may be over before the others.
        for (name, arguments), precision in sorted(every, key=lambda one: one[1]):
            options = {"precision": precision, "compiled": True}
            yield _choice(name, arguments, options, counts[name, precision], card)


def _choice(name: str, arguments: tuple, options: dict[str, Any], counts: tuple[int, int], card: Card) -> Metric:
    """Samples a second, and the most memory that model, batch and step take; on a processor what the step keeps."""
    release()
    gpu = card.device != "cpu"
    before = torch.cuda.memory_allocated() if gpu else 0
    case = Case(*arguments, device=card.device, **options)
    first = seconds(case.step, card.device)
    for _ in range(min(WARM, card.repeats)):
        case.step()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    spent = float(np.median([seconds(case.step, card.device) for _ in range(card.repeats)]))
    most = torch.cuda.max_memory_allocated() - before if gpu else case.held_bytes(case.branchwise)
    rate = counts[0] / spent / card.rates[options["precision"]]
    words = [f"{1000 * spent:.3g} ms a step", f"{most / 2**20:.0f} MiB", f"{rate:.0%} of the matrix rate"]
    if "compiled" in options:
        words.append(f"the first step {first:.0f} s")
    else:
        words.append(f"{counts[1] / spent / card.bandwidth:.0%} of the bandwidth")
    told = ["contiguous" if options.get("contiguous") else "channels last", options["precision"]]
    told += ([] if options.get("fused", True) else ["optimiser not fused"]) + ["compiled"] * ("compiled" in options)
    name = f"samples a second, {name}: {', '.join(told)}"
    return Metric(row=10, name=name, value=arguments[1] / spent, note="; ".join(words))


def _counted(arguments: tuple, precision: str, device: str) -> tuple[int, int]:
    """Floating-point operations of matrix products and convolutions, and bytes moved, of one step."""
    release()
    case = Case(*arguments, precision=precision, device=device)  # type: ignore[arg-type]
    with FlopCounterMode(display=False) as products, Moved() as moved:
        case.step()
    return products.get_total_flops(), moved.bytes


def _products(precision: str, quick: bool, device: str) -> float:
    """FLOP/s of one large product; float32 with TF32, which convolutions of a GPU take by default."""
    n = 8192 if device != "cpu" else 256 if quick else 1024
    a, b = (torch.randn(n, n, device=device, dtype=DTYPES[precision] or torch.float32) for _ in range(2))
    with tf32(True):
        return 2 * n**3 / _least(partial(torch.mm, a, b), device)


def _tf32(precision: str) -> str:
    return "with TF32 where the card has it, as convolutions take it" if precision == "float32" else ""


def _copies(quick: bool, device: str) -> float:
    """Bytes a second, read and written."""
    size = 2**30 if device != "cpu" else 2**22 if quick else 2**28
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / _least(lambda: target.copy_(source), device)


def _least(run: Run, device: str) -> float:
    """Of several, after two that warm up."""
    return min([seconds(run, device) for _ in range(2 + REPEATS)][2:])


def _strips(quick: bool, device: str) -> Iterator[Metric]:
    """The height of a strip was chosen for a CPU's caches."""
    n = 512 if quick else 8192 if device == "cpu" else 32768
    parts = infonce.case(n, device=device)
    for strip in STRIPS[:1] if quick else STRIPS:
        with mock.patch.object(tiled, "STRIP", strip):
            run = partial(infonce.run, tiled.tiled_info_nce, parts)
            spent = _least(run, device)
            note = "" if device == "cpu" else f"{peak_bytes(run) / 2**20:.0f} MiB"
        name = f"InfoNCE of {n} by strips of 2^{strip.bit_length() - 1} similarities, ms"
        yield Metric(row=10, name=name, value=1000 * spent, note=note)
