"""On a GPU: whether it computes what it should, rows 1, 2, 3 and 6 of the table, and what to choose. One call.

    python -m benchmarks.gpu [--device cuda] [--minutes 8] [--pairs 21] [--quick] [--out FOLDER] [--commit NAME]

Prints a line a metric as it goes; a part that fails says why in its line, and the others go on. Keeps the lines in
benchmarks/results under the GPU's name and writes the page anew; with --out both go to that folder.
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it

import torch

from benchmarks import results
from benchmarks.measure import Metric
from medssl.engine.parts import release

# What the time suffices for is decided by the order.
PARTS = {9: "agreement", 1: "step", 2: "memory", 6: "infonce", 11: "augment", 3: "published", 10: "choices"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 1 where a part failed, 2 where there is nothing to measure on."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to see that all runs")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which nothing else is begun")
    parser.add_argument("--pairs", type=int, default=21, help="of runs, ours and the peer's, for each ratio")
    parser.add_argument("--quick", action="store_true", help="one pair and small cases; kept only with --out")
    parser.add_argument("--out", type=Path, help="folder of the results and the page, instead of the project's")
    parser.add_argument("--commit", default="", help="its name, where the files came without their history")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.gpu: torch sees no GPU here; --device cpu measures on the processor", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True  # as a run has it
    until = time.monotonic() + 60 * options.minutes
    pairs = 1 if options.quick else options.pairs
    folder, page = (options.out, options.out / "performance.md") if options.out else (results.FOLDER, results.PAGE)
    failed = False
    for row, name in PARTS.items():
        found, well = measure(row, name, pairs, options.quick, options.device, until)
        failed |= not well
        if options.out or not options.quick:
            results.keep(row, found, device=options.device, folder=folder, commit=options.commit)
            results.write_page(folder, page)
    return int(failed)


def measure(row: int, name: str, pairs: int, quick: bool, device: str, until: float) -> tuple[list[Metric], bool]:
    """The metrics of one part as far as it came, and whether no error ended it."""
    found: list[Metric] = []

    def tell(metric: Metric) -> None:
        print(results.told(metric), flush=True)
        found.append(metric)

    def left_out(why: str) -> None:
        tell(Metric(row=row, name=f"{'the rest of ' * bool(found)}{results.TITLES[row]}", value=None, note=why))

    try:
        part = importlib.import_module(f"benchmarks.{name}").metrics(pairs, quick, device)
        while time.monotonic() < until:
            if (metric := next(part, None)) is None:
                return found, True
            tell(metric)
        left_out("not measured: the time was over")
        return found, True
    except Exception as error:  # whatever it is, the other parts shall be measured
        left_out(f"{type(error).__name__}: {error}".splitlines()[0].replace("|", "/"))
        return found, False
    finally:
        release()


if __name__ == "__main__":
    sys.exit(main())
