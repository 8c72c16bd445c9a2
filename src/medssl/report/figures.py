"""Plots as inline SVG whose ink and series colours are CSS variables, so that a page in the dark draws them light."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

# Stand-ins that no plot uses for anything else; `_svg` puts the page's variables in their place.
INK, FAINT, GRID = "#010203", "#010204", "#010205"
SERIES = tuple(f"#0102{i:02x}" for i in range(0x10, 0x1C))
_MARKERS = "os^DvPX"  # colours alone are not told apart by everyone, and there are more arms than clear colours
FEW = 4  # arms whose bands and legend find room in one plot
_VARIABLES = {INK: "--ink", FAINT: "--muted", GRID: "--line"} | {c: f"--series-{i}" for i, c in enumerate(SERIES)}

_STYLE: Any = {  # matplotlib's stubs know keys as literals only
    "svg.fonttype": "none",  # text stays text: it can be read aloud, selected, and follows the page's font
    "svg.hashsalt": "medssl",  # the same data give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each arm, the same in every figure; scratch is grey, as what the others are measured against."""
    others = [name for name in names if name != "scratch"]
    return {"scratch": SERIES[0]} | {name: SERIES[1 + i % (len(SERIES) - 1)] for i, name in enumerate(others)}


def efficiency(verdict: Mapping[str, Any], metric: str, colour: Mapping[str, str]) -> Markup:
    """Score against number of labels: mean, 95 % band, and every seed as a dot."""
    levels = verdict["labels"]
    counts = [at["n_labels"] for at in levels]
    arms = list(dict.fromkeys(arm for at in levels for arm in at["arms"]))
    few, marker = len(arms) <= FEW, _markers(colour)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(*([] if few else _BROAD))
        for arm in arms:
            mine = [at for at in levels if arm in at["arms"]]
            x = [at["n_labels"] for at in mine]
            mean = [at["arms"][arm]["mean"] for at in mine]
            bands = [_known(at["arms"][arm]["interval"]) for at in mine]
            if few and all(bands):
                low, high = zip(*bands, strict=True)  # type: ignore[arg-type]
                axes.fill_between(x, low, high, color=colour[arm], alpha=0.13, linewidth=0)
                if len(x) == 1:
                    axes.errorbar(x, mean, yerr=None, color=colour[arm])
                    axes.vlines(x, low, high, color=colour[arm], alpha=0.35, linewidth=7)
            for at in mine if few else []:
                dots = at["scores"][arm]
                axes.scatter([at["n_labels"]] * len(dots), dots, s=9, color=colour[arm], alpha=0.45, linewidths=0)
            axes.plot(x, mean, marker[arm] + "-", color=colour[arm], markersize=5, label=arm)
        _label_axis(axes, counts)
        axes.set_title(f"Test {metric}")
        _legend(figure, few)
        return _svg(figure, f"Test {metric} against the number of labelled patients, by arm")


def differences(verdict: Mapping[str, Any], metric: str, colour: Mapping[str, str]) -> Markup:
    """Paired difference to scratch, against number of labels; the margin is shaded.

    Thick: its 95 % interval; thin: corrected for the number of arms, on which the words rest.
    """
    levels, margin = verdict["labels"], verdict["margin"]
    several = any(c["compared"] > 1 for at in levels for c in at["comparisons"])
    counts = [at["n_labels"] for at in levels]
    arms = list(dict.fromkeys(c["arm"] for at in levels for c in at["comparisons"]))
    few, marker = len(arms) < FEW, _markers(colour)
    # Side by side, not one over the other, and label counts apart.
    gap = min((b / a for a, b in pairwise(counts)), default=4)
    step = min(1.06, gap ** (0.7 / max(len(arms) - 1, 1)))
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(*([] if few else _BROAD))
        axes.axhspan(-margin, margin, color=GRID, alpha=0.55, linewidth=0)
        axes.axhline(0, color=FAINT, linewidth=1)
        for i, arm in enumerate(arms):
            shift = step ** (i - (len(arms) - 1) / 2)
            for at in levels:
                for c in (c for c in at["comparisons"] if c["arm"] == arm):
                    x = at["n_labels"] * shift
                    if c["compared"] > 1 and (wider := _known(c["corrected"]["interval"])):
                        axes.vlines(x, *wider, color=colour[arm], linewidth=0.8)
                    if ends := _known(c["interval"]):
                        axes.vlines(x, *ends, color=colour[arm], linewidth=2.4)
                    name = arm if at is levels[0] else None
                    axes.plot(x, c["difference"], marker[arm], color=colour[arm], markersize=6, label=name)
        _label_axis(axes, counts, max(1.25, step ** (len(arms) / 2 + 0.5)))
        if not few:
            _legend(figure, few)
        end = "\n" if few else " "  # of the line, where the figure is narrow
        thin = f";{end}thin: corrected for the number of arms" if several else ""
        axes.set_title(f"Difference to scratch in {metric}, 95 % interval{thin}")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:+g}".replace("-", "−") if y else "0"))
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -2 * margin), max(high, 2 * margin))
        return _svg(figure, f"Paired difference to scratch in test {metric}, by number of labelled patients")


def curves(
    title: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], colour: Mapping[str, str]
) -> Markup:
    """One quantity over the steps of one or several runs: {name: (steps, values)}."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(3.6, 2.25 if len(lines) <= FEW else 3.0)
        for name, (steps, values) in lines.items():
            x, smooth = np.asarray(steps), np.asarray(values, float)
            if len(smooth) > 40:
                axes.plot(x, smooth, color=colour[name], linewidth=0.8, alpha=0.3)
                smooth = _smoothed(smooth)
            marker = "o" if len(smooth) < 12 else None
            axes.plot(x, smooth, color=colour[name], linewidth=1.8, marker=marker, markersize=4, label=name)
        if len(lines) > FEW:
            figure.legend(loc="outside lower center", ncols=3, handlelength=1.2, columnspacing=1, fontsize=8)
        elif len(lines) > 1:
            axes.legend(loc="best", handlelength=1.2, fontsize=8.5)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        return _svg(figure, f"{title} over the steps")


def scatter(points: np.ndarray, labels: Sequence[str], title: str, links: Sequence[tuple[int, int]] = ()) -> Markup:
    """A map of points (n, 2) coloured by label; the axes of such a map mean nothing and are not drawn.

    ``links`` are pairs of points with a line between them.
    """
    with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
        figure, axes = _axes(4.4, 3.6)
        for i, j in links:
            axes.plot(*points[[i, j]].T, color=FAINT, linewidth=0.6, alpha=0.5, zorder=0.5)
        names = sorted(set(labels), key=lambda name: (name == "", name))
        shown = names if len(names) <= 7 else [*names[:6], "other"]
        kept = [label if label in shown else "other" for label in labels]
        for i, name in enumerate(shown):
            mine = np.array([label == name for label in kept])
            colour = SERIES[0] if name in ("", "other") else SERIES[1 + i % 7]
            text = f"{name or 'unlabelled'} ({mine.sum()})"
            axes.scatter(*points[mine].T, s=22, color=colour, alpha=0.75, linewidths=0, label=text)
        axes.set(xticks=[], yticks=[])
        axes.spines["bottom"].set_visible(False)
        axes.set_title(title)
        figure.legend(loc="outside lower center", ncols=3, handletextpad=0.2, columnspacing=1.2, fontsize=9)
        return _svg(figure, f"{title}: {len(points)} scans coloured by label")


def _axes(width: float = 4.7, height: float = 3.1) -> tuple[Figure, Axes]:
    # Narrow on purpose: a figure shrinks with the page, and its letters with it.
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


_BROAD = (9.2, 4.4)


def _markers(colour: Mapping[str, str]) -> dict[str, str]:
    return {arm: _MARKERS[i % len(_MARKERS)] for i, arm in enumerate(colour)}


def _legend(figure: Figure, few: bool) -> None:
    """Below the axes, where it covers no line."""
    figure.legend(loc="outside lower center", ncols=4 if few else 6, handlelength=1.4, columnspacing=1.4, fontsize=9)


def _label_axis(axes: Axes, counts: Sequence[int], margin: float = 1.25) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(counts)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlim(min(counts) / margin, max(counts) * margin)
    axes.set_xlabel("labelled patients")


def _known(interval: Sequence[float | None]) -> tuple[float, float] | None:
    low, high = interval
    return None if low is None or high is None else (low, high)


def _smoothed(values: np.ndarray) -> np.ndarray:
    width = max(3, len(values) // 25) | 1
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def _svg(figure: Figure, description: str) -> Markup:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = re.sub(r"^.*?(?=<svg)", "", text.getvalue(), flags=re.DOTALL)  # no XML prolog within a page
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    prefix = "f" + hashlib.blake2b(svg.encode(), digest_size=5).hexdigest()
    return Markup(
        _renamed(svg, prefix).replace("<svg ", f'<svg role="img" aria-label="{Markup.escape(description)}" ', 1)
    )


def _renamed(svg: str, prefix: str) -> str:
    """Ids are unique in a page, not only in one of its figures."""
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
