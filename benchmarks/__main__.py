"""`make bench`: measure every row, or those asked for, and write what was found, a line a metric, and the page.

    python -m benchmarks [--rows 1 4 6] [--pairs 21] [--quick] [--page]

benchmarks/results/MACHINE.json keeps the lines of rows that were not asked for; --page only writes the page anew.
"""

import argparse
import importlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it

from benchmarks import results

ROWS = {1: "step", 2: "memory", 3: "published", 4: "crops", 5: "stall", 6: "infonce", 7: "start", 8: "use"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--pairs", type=int, default=21, help="of runs, ours and the peer's, for each ratio")
    parser.add_argument("--quick", action="store_true", help="3 pairs and small cases, to see that all runs; not kept")
    parser.add_argument("--page", action="store_true", help="write the page from the results there are")
    options = parser.parse_args()
    if not options.page:
        import torch

        torch.set_num_threads(1)
        for row in options.rows:
            found = []
            for metric in importlib.import_module(f"benchmarks.{ROWS[row]}").metrics(
                3 if options.quick else options.pairs, options.quick
            ):
                print(results.told(metric), flush=True)
                found.append(metric)
                if not options.quick:
                    results.keep(row, found)  # at once: a row takes minutes, and may be stopped
    results.write_page()


if __name__ == "__main__":
    main()
