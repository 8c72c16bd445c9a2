"""Where results are kept, and the page of the documentation that is made from them."""

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
}
MET = {True: "**met**", False: "missed", None: "cannot tell"}
INTRODUCTION = """# Performance

Made by `make bench` (`python -m benchmarks --rows 1 4` for some rows; `--page` makes this page from the results there
are); the peers come with `pip install .[bench]`. Times are ratios of CPU times: both sides run by turns in one process
on one thread, and the median of the pairs counts, with a 95 % bootstrap interval. **met** and *missed* need the whole
interval on one side of the goal. Counts (arithmetic, bytes) have no noise and are tests as well. What is missed stays.
"""


def keep(row: int, metrics: Iterable[Metric]) -> None:
    """Replace the lines of this row in this machine's file."""
    hardware = _hardware()
    path = FOLDER / (re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-") + ".json")
    lines = [line for line in _read(path) if line["row"] != row] if path.exists() else []
    for metric in metrics:
        rounded = {k: _rounded(v) for k, v in asdict(metric).items()}
        lines.append(rounded | {"met": metric.met, "commit": _commit(), "hardware": hardware})
    lines.sort(key=lambda line: line["row"])
    FOLDER.mkdir(exist_ok=True)
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def write_page() -> None:
    """The page of all machines' results."""
    parts = [INTRODUCTION]
    for path in sorted(FOLDER.glob("*.json")):
        lines = _read(path)
        parts.append(f"## {lines[0]['hardware']}\n")
        for row in sorted({line["row"] for line in lines}):
            parts.append(f"### {row}. {TITLES[row]}\n")
            parts.append("| metric | value | 95 % interval | goal | | how |\n|---|---|---|---|---|---|")
            parts.append("\n".join(_cells(line) for line in lines if line["row"] == row) + "\n")
    write_text(PAGE, "\n".join(parts))


def told(metric: Metric) -> str:
    """One line for the terminal."""
    shown = _cells(asdict(metric) | {"met": metric.met})
    return f"{metric.row}  " + "  ".join(cell.strip() for cell in shown.replace("**", "").split("|") if cell.strip())


def _cells(line: dict[str, Any]) -> str:
    interval = "" if not line["interval"] else "{} to {}".format(*map(_short, line["interval"]))
    goal = line["goal"].replace("<=", "≤").replace(">=", "≥")
    value = "—" if line["value"] is None else _short(line["value"])
    cells = [line["name"], value, interval, goal, MET[line["met"]] if goal else "", line["note"]]
    return "| " + " | ".join(cells) + " |"


def _short(x: float) -> str:
    return f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _commit() -> str:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=FOLDER.parent, check=False
    )
    return run.stdout.strip()


def _hardware() -> str:
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists() and (said := re.search(r"model name\s*:\s*(.+)", cpu.read_text())):
        model = said[1]
    return f"{model}, {cores()} cores"
