"""The page and the plot of how time and memory grow, from the points that `python -m benchmarks.scaling` kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from benchmarks.results import read
from medssl.files import atomic, write_text
from medssl.wording import listed

WHAT = {
    "step_s": "a step, CPU seconds",
    "kept_bytes": "bytes kept for the backward",
    "rank_s": "a step of one rank, seconds",
    "index_s": "medssl index, CPU seconds",
    "prepare_s": "medssl prepare, CPU seconds",
}
AGAINST = {
    "voxels": "voxels of a sample or file",
    "batch": "samples of a batch",
    "ranks": "ranks, a batch each",
    "scans": "scans",
}
PANELS = [
    ("step_s", "voxels"), ("step_s", "batch"), ("rank_s", "ranks"), ("prepare_s", "scans"),
    ("kept_bytes", "voxels"), ("kept_bytes", "batch"), ("prepare_s", "voxels"), ("index_s", "scans"),
]  # fmt: skip
LOOKS = {
    "2D": {"color": "#1b6ca8", "marker": "o"},
    "3D": {"color": "#c4572c", "marker": "s"},
    "CPU": {"color": "#1b6ca8", "marker": "o"},
    "clock": {"color": "#6a3d9a", "marker": "^"},
}
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "medssl", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9.5, "axes.titlelocation": "left",
}  # fmt: skip
TEXT = """# How the cost grows

Made by `python -m benchmarks.scaling` (`--only ranks` measures some anew; `--page` makes page and plot from the results
there are), in ten minutes of a quiet core. CPU seconds of one thread, the median of the repeats; bytes are counts. PCRL
with ResNet-18 of width 16 in 2D and a U-Net of width 8 in 3D, generated scans.
"""
NONE = "Nothing has been measured yet: it takes a machine on which nothing else runs.\n"
READ = """The exponent, beside the names in the plot, is the slope of the points: at 1 the cost grows in proportion,
below 1 a fixed part weighs on the small end, above 1 a larger case pays more for each voxel. What the two largest
points say is nearer to what a still larger one would cost. For ranks 0 is ideal: each has a batch of its own, and
its step takes no longer. CPU seconds of a rank leave out its waiting for others; the clock counts it, and needs an
idle core for each.
"""
FULL = """In a step as small as that of the ranks messages weigh much, and more ranks than cores share their caches;
two processes at full size are row 8 of [performance](performance.md).
"""


@dataclass(frozen=True)
class Point:
    """One size, and what it cost: the median, the least and the most of the repeats."""

    what: str
    against: str
    series: str
    x: float
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, what: str, against: str, series: str, x: float, values: Sequence[float]) -> "Point":
        """Of the repeats."""
        return cls(what, against, series, x, *(float(pick(values)) for pick in (np.median, min, max)))


def told(point: Point) -> str:
    """One line for the terminal."""
    return f"{WHAT[point.what]}, {point.series}: {point.value:.3g} at {point.x:g} {point.against}"


def exponent(points: Sequence[Point]) -> float:
    """Least-squares slope of log cost over log size."""
    x, y = np.log([[p.x, p.value] for p in points]).T
    x = x - x.mean()
    return float(x @ y / (x @ x))


def write(kept: Path, folder: Path) -> None:
    """scaling.md and scaling.svg into ``folder``."""
    lines = read(kept) if kept.exists() else []
    if not lines:
        write_text(folder / "scaling.md", f"{TEXT}\n{NONE}")
        return
    points = [Point(**{name: line[name] for name in Point.__dataclass_fields__}) for line in lines]
    with atomic(folder / "scaling.svg") as path, matplotlib.rc_context(STYLE):
        draw(points).savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    commits = listed([*dict.fromkeys(line["commit"] for line in lines)])
    where = f"Measured on {lines[0]['hardware']}, at {commits}.\n"
    plot = "![Each cost against what it grows with, on logarithmic axes](scaling.svg)\n"
    write_text(folder / "scaling.md", "\n".join([TEXT, where, plot, READ, _table(points)]))


def draw(points: Sequence[Point]) -> Figure:
    """A panel for each cost and what it grows with; dashed: in proportion; beside the names the exponents."""
    figure = Figure(figsize=(11, 5.2), layout="constrained", facecolor="white")
    for axes, (what, against) in zip(figure.subplots(2, 4).flat, PANELS, strict=True):
        drawn = [p for p in points if (p.what, p.against) == (what, against)]
        for series, found in _by_series(drawn):
            x, y = [p.x for p in found], [p.value for p in found]
            spread = [[p.value - p.low for p in found], [p.high - p.value for p in found]]
            label = series if len(found) < 2 else f"{series}: {exponent(found):.2f}"
            axes.errorbar(x, y, yerr=spread, linewidth=1.5, markersize=4, capsize=2, label=label, **LOOKS[series])
            if against != "ranks":
                axes.plot(x, y[0] * np.array(x) / x[0], "--", color="#999999", linewidth=0.8, zorder=0)
        _scales(axes, against, drawn)
        axes.set(title=WHAT[what], xlabel=AGAINST[against])
        if drawn:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.1, 1.1), ncols=2, frameon=False, handlelength=1.2)
    return figure


def _scales(axes: Axes, against: str, drawn: Sequence[Point]) -> None:
    sizes = sorted({p.x for p in drawn})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)) if against == "voxels" else FixedLocator(sizes))
    if against == "ranks":  # a straight line would be ideal
        axes.set_ylim(0, 1.1 * max((p.high for p in drawn), default=1.0))
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))


def _table(points: Sequence[Point]) -> str:
    lines = [
        "| cost | grows with | | measured | cost from … to | exponent | two largest |",
        "|---|---|---|---|---|---|---|",
    ]
    for what, against in PANELS:
        for series, found in _by_series([p for p in points if (p.what, p.against) == (what, against)]):
            sizes = ", ".join(_short(p.x) for p in found)
            slopes = (
                "| too few points | " if len(found) < 2 else f"| {exponent(found):.2f} | {exponent(found[-2:]):.2f} "
            )
            cost = f"{_short(found[0].value)} … {_short(found[-1].value)}"
            lines.append(f"| {WHAT[what]} | {AGAINST[against]} | {series} | {sizes} | {cost} {slopes}|")
    return "\n".join([*lines, "", FULL if any(p.against == "ranks" for p in points) else ""])


def _by_series(points: Sequence[Point]) -> list[tuple[str, list[Point]]]:
    ordered = sorted(points, key=lambda p: (p.series, p.x))
    return [(series, list(found)) for series, found in groupby(ordered, key=lambda p: p.series)]


def _short(x: float) -> str:
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if x >= size:
            return f"{x / size:.3g}{unit}"
    return f"{x:.3g}"
