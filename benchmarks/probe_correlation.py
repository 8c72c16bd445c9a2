"""How well the probe at the end of a pre-training foretells the score after fine-tuning, over recorded studies.

    python -m benchmarks.probe_correlation [--data docs/results/data] [--page docs/explanation/probe.md]

Reads */results.jsonl of DATA, writes the table between the markers of the page and the figure beside it (PAGE.svg), and
prints the table. A point is an arm: its last probe, and its difference to scratch with the same labels, means over its
pre-trainings and fine-tuning seeds. Studies differ in images and classes, so ranks are compared within each only.
"""

import argparse
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

from benchmarks.recorded import p_value, short
from medssl.evaluate.holm import ALPHA, holm
from medssl.files import write_text
from medssl.report.formats import Row, lines
from medssl.rng import stream
from medssl.wording import counted

MEAN = "mean"
KINDS = {
    "probe.knn": "nearest neighbours",
    "probe.linear": "linear",
    "probe.voxel": "voxel",
    MEAN: "mean of these",
    "effective_rank": "effective rank",
}
FEWEST = 3  # points that have an order
EXACT = 7  # points, up to which all orders are gone through
DRAWS = 20_000  # orders beyond that
BEGIN, END = "<!-- python -m benchmarks.probe_correlation -->", "<!-- end -->"


@dataclass(frozen=True)
class Arm:
    """Of a study: last probes by name, and difference to scratch by number of labels, means over its pre-trainings."""

    study: str
    probes: Mapping[str, float]
    gains: Mapping[int, float]


Group = tuple[np.ndarray, np.ndarray]  # probes (n,), gains (n,) of the arms of one study


# The points ----------------------------------------------------------------------------------------------------------


def gathered(data: Path) -> list[Arm]:
    """Every arm with probes in ``data``/STUDY/results.jsonl; a pre-training that arms or studies share counts once.

    Pre-trainings of one arm are alike, so they are one point: as points of their own they would be called independent.
    """
    found: list[Arm] = []
    known: set[str] = set()
    for path in sorted(data.glob("*/results.jsonl")):
        rows = lines(path, Row)
        scratch = {_case(row): row["value"] for row in rows if row["arm"] == "scratch"}
        owner: dict[str, str] = {}  # arm by pre-training
        own: dict[str, dict[Any, dict[str, Any]]] = defaultdict(dict)
        for row in rows:
            start = row["key"].partition("-")[0]
            if probes_of(row) and start not in known:
                own[owner.setdefault(start, row["arm"])][start, _case(row)] = row
        known.update(owner)
        for runs in own.values():
            gains: dict[int, list[float]] = defaultdict(list)
            for (_, case), row in runs.items():
                if case in scratch and row["value"] is not None and scratch[case] is not None:
                    gains[case[0]].append(row["value"] - scratch[case])
            each = {start: probes_of(row) for (start, _), row in runs.items()}.values()
            probes = {kind: float(np.mean([p[kind] for p in each if kind in p])) for p in each for kind in p}
            found.append(Arm(path.parent.name, probes, {n: float(np.mean(of)) for n, of in gains.items()}))
    return found


def _case(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """What a run shares with the one of scratch: labels, their subset, and the first weights of the encoder."""
    return row["n_labels"], row["seed"], row.get("pretraining", 1)


def probes_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The probes of a row's pre-training by kind, with their mean.

    Where a study segments, not those of whole scans: they ask for some label, with which its score has nothing to do.
    """
    asked = [kind for kind in KINDS if row["metric"] != "dice" or kind not in ("probe.knn", "probe.linear")]
    found = {kind: row["pretrain"][kind] for kind in asked if kind in row["pretrain"]}
    probes = [value for kind, value in found.items() if kind.startswith("probe.")]
    return found | ({MEAN: float(np.mean(probes))} if probes else {})


def at(points: Sequence[Arm], study: str, kind: str, n: int) -> Group:
    """Probes and gains with ``n`` labels of a study's arms."""
    pairs = [(p.probes[kind], p.gains[n]) for p in points if p.study == study and kind in p.probes and n in p.gains]
    probes, gains = np.array(pairs, float).reshape(-1, 2).T
    return probes, gains


def over_counts(points: Sequence[Arm], study: str, kind: str) -> Group:
    """Both less their mean in the study; gains are averaged over label counts, each less the mean at its count."""
    own = [p for p in points if p.study == study and kind in p.probes and p.gains]
    usual = {n: np.mean([p.gains[n] for p in own if n in p.gains]) for p in own for n in p.gains}
    gains = np.array([np.mean([gain - usual[n] for n, gain in p.gains.items()]) for p in own])
    probes = np.array([p.probes[kind] for p in own])
    return probes - (probes.mean() if len(own) else 0.0), gains


# Their correlation ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ within groups, over all of them, and what chance does: orders drawn anew within each group."""

    rho: float
    n: int
    p: float
    """Share of orders whose ρ is as far from zero, on either side."""
    chance: float
    """What |ρ| stays below in 95 % of them."""


def correlation(groups: Sequence[Group]) -> Correlation | None:
    """The mean ρ of groups of three or more, each weighted by its points less one; None where nothing varies.

    Under the null hypothesis a group's ρ has the variance 1 / (n − 1), so these weights are the best ones.
    """
    ranked = [(_standard(x), _standard(y)) for x, y in groups if len(x) >= FEWEST]
    ranked = [(x, y) for x, y in ranked if x.any() and y.any()]
    if not ranked:
        return None
    weights = np.array([len(x) - 1 for x, _ in ranked], float)
    weights /= weights.sum()
    rho = sum(w * (x @ y) for w, (x, y) in zip(weights, ranked, strict=True))
    rng, exact = stream(0, "orders"), len(ranked) == 1 and len(ranked[0][0]) <= EXACT
    drawn = sum(w * _shuffled(x, rng, exact) @ y for w, (x, y) in zip(weights, ranked, strict=True))
    beyond = np.count_nonzero(np.abs(drawn) >= abs(rho) - 1e-9)
    p = beyond / len(drawn) if exact else (beyond + 1) / (len(drawn) + 1)
    chance = float(np.quantile(np.abs(drawn), 1 - ALPHA, method="higher"))
    return Correlation(float(rho), sum(len(x) for x, _ in ranked), float(p), chance)


def _standard(x: np.ndarray) -> np.ndarray:
    """Ranks of mean zero and length one, so that their product is ρ; zeros where all are equal."""
    ranks = rankdata(x) - (len(x) + 1) / 2
    length = np.linalg.norm(ranks)
    return ranks / length if length > 0 else ranks


def _shuffled(x: np.ndarray, rng: np.random.Generator, exact: bool) -> np.ndarray:
    """(orders, n): all orders of ``x``, or drawn ones."""
    return np.array(list(permutations(x))) if exact else rng.permuted(np.tile(x, (DRAWS, 1)), axis=1)


# What is written -----------------------------------------------------------------------------------------------------


def table(points: Sequence[Arm]) -> str:
    """A row each study and number of labels, one over all, and what follows in words."""
    kinds = [kind for kind in KINDS if any(kind in p.probes for p in points)]
    rows = [f"| study | labels | n | {' | '.join(KINDS[kind] for kind in kinds)} |", "|---" * (3 + len(kinds)) + "|"]
    for study, n in sorted({(p.study, n) for p in points for n in p.gains}):
        cells = [correlation([at(points, study, kind, n)]) for kind in kinds]
        many = max((cell.n for cell in cells if cell), default=0)
        rows.append(f"| {study} | {n} | {many or '< 3'} | {' | '.join(map(_cell, cells))} |")
    studies = sorted({p.study for p in points})
    pooled = {kind: correlation([over_counts(points, study, kind) for study in studies]) for kind in kinds}
    many = max((found.n for found in pooled.values() if found), default=0)
    rows.append(f"| **all, within each** | all | {many} | {' | '.join(map(_cell, pooled.values()))} |")
    return "\n".join([*rows, "", *_words({kind: found for kind, found in pooled.items() if found})])


def _cell(found: Correlation | None) -> str:
    return "–" if found is None else f"{_signed(found.rho)} (p {p_value(found.p)})"


def _words(pooled: Mapping[str, Correlation]) -> Iterator[str]:
    corrected, _ = holm([found.p for found in pooled.values()])
    for (kind, found), p in zip(pooled.items(), corrected, strict=True):
        word = "cannot tell" if p >= ALPHA else "foretells it" if found.rho > 0 else "foretells the opposite"
        yield (
            f"- {KINDS[kind]}: **{word}**. ρ = {_signed(found.rho)} over {counted(found.n, 'arm')}; by chance "
            f"it stays within ±{short(f'{found.chance:.2f}')} 95 times of 100 "
            f"(p {p_value(p)}, corrected for {len(pooled)} probes)."
        )


def _signed(x: float) -> str:
    return ".00" if abs(x) < 0.005 else f"{x:+.2f}".replace("-", "−").replace("0.", ".")


def figure(points: Sequence[Arm], path: Path) -> None:
    """A panel each probe: its value less the mean of the study, against the gain less that of the study."""
    studies = sorted({p.study for p in points})
    kinds = [k for k in KINDS if k != MEAN and any(k in p.probes for p in points)]
    columns = 2
    style: Any = {"svg.hashsalt": "medssl", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(style):
        drawn = Figure(figsize=(8, 3 * math.ceil(len(kinds) / columns) + 0.5), layout="constrained")
        for i, kind in enumerate(kinds):
            axes = drawn.add_subplot(math.ceil(len(kinds) / columns), columns, i + 1)
            axes.axhline(0, color="#bbbbbb", linewidth=0.8)
            axes.axvline(0, color="#bbbbbb", linewidth=0.8)
            for j, study in enumerate(studies):
                x, y = over_counts(points, study, kind)
                name = study if i == 0 else None
                axes.plot(x, y, "os^DvPX"[j % 7], color=f"C{j % 10}", markersize=5, alpha=0.8, label=name)
            axes.set_title(f"{KINDS[kind]}{' probe' if kind.startswith('probe') else ''}", loc="left", fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_xlabel("last value, less the study's mean")
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.set_ylabel("difference to scratch,\nless the study's mean")
        drawn.legend(loc="outside lower center", ncols=4, frameon=False)
        drawn.savefig(path, metadata={"Date": None, "Creator": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe_correlation", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("docs/results/data"))
    parser.add_argument("--page", type=Path, default=Path("docs/explanation/probe.md"))
    options = parser.parse_args()
    points = gathered(options.data)
    if not points:
        raise SystemExit(f"no results.jsonl with probes in a folder of {options.data}: name the folder with --data")
    text = table(points)
    page = options.page.read_text(encoding="utf-8")
    write_text(options.page, filled(page, text))
    figure(points, options.page.with_suffix(".svg"))
    print(text)


def filled(page: str, text: str) -> str:
    """The page with ``text`` between its markers."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"the page has no markers {BEGIN} and {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", page)


if __name__ == "__main__":
    main()
