"""Storage, throughput and hours for many studies, from what a small DATA and a short RUN of your own have measured.

    python -m benchmarks.sizing --data DATA --run RUN --prepare-s 3.1 [--samples-per-s 12]
        [--studies 10000 100000 1000000] [--passes 100] [--cores 64] [--devices 8] [--efficiency 0.9]

The bytes of a study come from DATA/prepared.parquet, the samples a second from RUN/metrics.jsonl unless they are given.
--prepare-s: CPU seconds a study, the user and system time that `time medssl prepare DATA --workers 1` tells, divided by
its scans. Prints the inputs and a Markdown table. All grows in proportion: nothing was measured at a million studies.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medssl.files import read_rows, read_toml


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one study, one core and one device cost."""

    stored_bytes: float
    """Of a prepared study on disk."""
    sample_bytes: float
    """That a sample of a step takes: one region, as the loader sends it."""
    prepare_s: float
    """CPU seconds to prepare a study."""
    samples_per_s: float
    """Of pre-training on one device, data waiting included."""


def sizes(
    one: Measured, studies: int, *, passes: float, cores: int, devices: int, efficiency: float
) -> dict[str, float]:
    """Terabytes, hours and megabytes a second for ``studies``; ``passes``: samples drawn of each study."""
    rate = one.samples_per_s * devices * (efficiency if devices > 1 else 1.0)
    return {
        "store_tb": studies * one.stored_bytes / 1e12,
        "prepare_h": studies * one.prepare_s / cores / 3600,
        "pretrain_h": studies * passes / rate / 3600,
        "read_mb_per_s": rate * one.sample_bytes / 1e6,
    }


def measured(data: Path, run: Path, prepare_s: float, samples_per_s: float | None) -> tuple[Measured, str]:
    """The figures in the two folders, and a sentence that says where they come from."""
    prepared, record = pl.read_parquet(data / "prepared.parquet"), read_toml(run / "run.toml")
    rates = [row["samples_per_s"] for row in read_rows(run / "metrics.jsonl") if "samples_per_s" in row]
    if samples_per_s is not None:
        rates = [samples_per_s]
    if not rates:
        raise SystemExit(f"{run} tells no samples a second: run at least 2 × --log-every steps")
    model, machine = record["model"], record["machine"]
    region = model["patch"] or ([224, 224] if model["dims"] == 2 else [64, 64, 32])
    one = Measured(
        stored_bytes=float(prepared["bytes"].mean()),  # type: ignore[arg-type]
        sample_bytes=2.0 * model["channels"] * float(np.prod(region)),  # int16; views may ask for a larger region
        prepare_s=prepare_s,
        samples_per_s=float(np.median(rates)),
    )
    sides = "×".join(map(str, region))
    where = f"{machine['device']}, precision {machine['precision']}, {machine['threads']} thread(s)"
    words = (
        f"{len(prepared)} scans of {one.stored_bytes / 1e6:.3g} MB, prepared in {prepare_s:.3g} CPU seconds each; "
        f"{record['method']}, {model['encoder']}, patch {sides}: {one.samples_per_s:.3g} samples/s on {where}"
    )
    return one, words


def table(one: Measured, counts: list[int], args: argparse.Namespace) -> str:
    """Markdown, a column a number of studies."""
    how = {"passes": args.passes, "cores": args.cores, "devices": args.devices, "efficiency": args.efficiency}
    found = [sizes(one, n, **how) for n in counts]
    names = {
        "store_tb": "store, TB",
        "prepare_h": f"prepare on {args.cores} cores, hours",
        "pretrain_h": f"pre-train, {args.passes:g} samples a study, {args.devices} device(s), hours",
        "read_mb_per_s": "the loaders read, MB/s",
    }
    lines = [
        "| studies | " + " | ".join(f"{n:,}".replace(",", " ") for n in counts) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    lines += [f"| {label} | " + " | ".join(f"{row[name]:.3g}" for row in found) + " |" for name, label in names.items()]
    return "\n".join(lines)


def main() -> None:
    """Print the inputs and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--prepare-s", type=float, required=True)
    parser.add_argument("--studies", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--passes", type=float, default=100)
    parser.add_argument("--cores", type=int, default=64)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--efficiency", type=float, default=0.9)
    parser.add_argument("--samples-per-s", type=float, default=None)
    args = parser.parse_args()
    one, words = measured(args.data, args.run, args.prepare_s, args.samples_per_s)
    print(f"Measured: {words}. Assumed: {args.efficiency:g} of the speed of one device when several share a step.\n")
    print(table(one, args.studies, args))


if __name__ == "__main__":
    main()
