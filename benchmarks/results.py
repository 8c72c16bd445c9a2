"""Where results are kept, and the page of the documentation that is made from them."""

import contextlib
import json
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import Metric
from medssl.data.jobs import cores
from medssl.files import write_text

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs/results/performance.md"
TITLES = {
    1: "A step beside its bare passes",
    2: "Branch by branch beside one graph",
    3: "Samples a second beside the published loop",
    4: "Crops from the store",
    5: "Waiting for data",
    6: "InfoNCE by strips beside the whole matrix",
    7: "Starting",
    8: "Several processes, embeddings, neighbours",
    9: "Whether the device computes what it should",
    10: "Choices: layout, precision, optimiser, compilation",
    11: "Views on the device beside views made by processes",
}
LIMITS = {  # what stands in the way of a goal, where measuring has shown it
    1: """Arithmetic beyond the passes is that of the views (resampling by matrix products). It does not grow with the
width, and a 3D network of width 16 is small beside it.""",
    3: """In float32 nothing is left to gain but passes: row 1 says that a step takes what its own take. bf16, which a
run takes where the processor multiplies it fast, brings the rest, or nearly. Mixed inputs, off by default, are passes
that the published loop does too.""",
}
MET = {True: "**met**", False: "missed", None: "cannot tell"}
INTRODUCTION = """# Performance

Made by `make bench` (`python -m benchmarks --rows 1 4` for some rows; `--page` makes this page from the results there
are); the peers come with `pip install .[bench]`. Times are ratios of CPU times: both sides run by turns in one process
on one thread, and the median of the pairs counts, with a 95 % bootstrap interval. **met** and *missed* need the whole
interval on one side of the goal. Counts (arithmetic, bytes) have no noise and are tests as well. What is missed stays.

`python -m benchmarks.gpu` measures on a GPU: rows 1, 2, 3 and 6 by the clock, and rows 9 to 11, within 8 minutes.
How the cost grows with size: [scaling](scaling.md), by `python -m benchmarks.scaling`.
"""
NO_GPU = "No GPU has been at hand so far: all results here are of processors.\n"


def keep(row: int, metrics: Iterable[Metric], *, device: str = "cpu", folder: Path = FOLDER, commit: str = "") -> None:
    """Replace the lines of this row in this machine's file; a GPU's results are kept under its name."""
    hardware = name_of(device)
    path = folder / (re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-") + ".json")
    lines = [line for line in read(path) if line["row"] != row] if path.exists() else []
    for metric in metrics:
        measured = {"met": metric.met, "commit": commit or commit_here(), "hardware": hardware, "device": device}
        lines.append(rounded(asdict(metric)) | measured)
    lines.sort(key=lambda line: line["row"])
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def write_page(folder: Path = FOLDER, page: Path = PAGE) -> None:
    """The page of all machines' results."""
    machines = [read(path) for path in sorted(folder.glob("*.json"))]
    gpus = any(line["device"] == "cuda" for lines in machines for line in lines)
    parts = [INTRODUCTION, *([] if gpus else [NO_GPU])]
    for lines in machines:
        parts.append(f"## {lines[0]['hardware']}\n")
        for row in sorted({line["row"] for line in lines}):
            parts.append(f"### {row}. {TITLES[row]}\n")
            parts.append("| metric | value | 95 % interval | goal | | how |\n|---|---|---|---|---|---|")
            parts.append("\n".join(_cells(line) for line in lines if line["row"] == row) + "\n")
            if row in LIMITS:
                parts.append(LIMITS[row] + "\n")
    write_text(page, "\n".join(parts))


def told(metric: Metric) -> str:
    """One line for the terminal."""
    shown = _cells(asdict(metric) | {"met": metric.met})
    return f"{metric.row}  " + "  ".join(cell.strip() for cell in shown.replace("**", "").split("|") if cell.strip())


def _cells(line: dict[str, Any]) -> str:
    interval = "" if not line["interval"] else "{} to {}".format(*map(_short, line["interval"]))
    goal = line["goal"].replace("<=", "≤").replace(">=", "≥")
    exact = line["note"].startswith("count")  # a goal may lie in the fourth digit
    value = "—" if line["value"] is None else _short(line["value"], 4 if exact else 3)
    cells = [line["name"], value, interval, goal, MET[line["met"]] if goal else "", line["note"]]
    return "| " + " | ".join(cells) + " |"


def _short(x: float, digits: int = 3) -> str:
    return f"{x:.{digits}g}" if abs(x) < 1000 else f"{x:.0f}"


def rounded(value: Any) -> Any:
    """To four digits, whatever holds the numbers."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def commit_here() -> str:
    """Name of the commit that is measured; empty where the files came without their history."""
    with contextlib.suppress(FileNotFoundError):  # git itself
        asked = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(asked, capture_output=True, text=True, cwd=FOLDER.parent, check=False).stdout.strip()
    return ""


def name_of(device: str = "cpu") -> str:
    """Of the GPU or the processor, and the cores beside it."""
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists() and (said := re.search(r"model name\s*:\s*(.+)", cpu.read_text())):
        model = said[1]
    if device == "cuda":
        import torch

        model = torch.cuda.get_device_name()
    return f"{model}, {cores()} cores"
