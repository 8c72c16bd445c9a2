"""The tables and plots of the results' pages, from the rows and predictions that docs/results/data holds.

    python -m benchmarks.result_tables [PAGE.md ...]

A page says where and of what, and keeps what is written there:

    <!-- results cxr; arms scratch pcrl; labels 10 30; pairs pcrl:moco -->
    <!-- end -->

    <!-- ranks cxr covid_ct; arms scratch pcrl moco; labels 10 30 -->
    <!-- end -->

    <!-- changes ablations_cxr ablations_lungs; base pcrl -->
    <!-- end -->

The first word is a folder of data/ beside the page; arms and labels are those it holds unless they are named. Every
figure is of the verdict that `medssl study` gives on these runs today. Plots go to plots/, in a report's colours.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.change_table import changes
from benchmarks.recorded import Asked, difference, judge, p_value, plain_difference, scored, short
from benchmarks.results import PAGE
from medssl.evaluate.ranks import mean_ranks
from medssl.files import write_text
from medssl.report import figures, scores
from medssl.wording import counted, score, signed

FOLDER = PAGE.parent
MARK = re.compile(r"(<!-- (?P<kind>results|ranks|changes) (?P<asked>[^>]*?) -->).*?(<!-- end -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.result_tables", description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, help="all of docs/results unless some are named")
    for path in parser.parse_args(arguments).pages or sorted(FOLDER.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = filled(before, path.stem, path.parent)
        if after != before:
            write_text(path, after)
            print(path)


def filled(text: str, page: str, folder: Path) -> str:
    """A page in ``folder`` with what its markers ask for, of data/ there; its plots are written to plots/ there."""
    count = 0

    def made(mark: re.Match[str]) -> str:
        nonlocal count
        asked = Asked.of(mark["asked"])
        if mark["kind"] == "ranks":
            return f"{mark[1]}\n\n{ranks(asked, folder / 'data')}\n\n{mark[4]}"
        if mark["kind"] == "changes":
            return f"{mark[1]}\n\n{changes(asked, folder / 'data')}\n\n{mark[4]}"
        count += 1
        rows, verdict = judge(asked, folder / "data")
        plots = _plots(verdict, folder / "plots", f"{page}-{count}")
        return f"{mark[1]}\n\n{table(rows, verdict)}\n\n{words(rows, verdict)}\n\n{plots}\n\n{mark[4]}"

    return MARK.sub(made, text)


def ranks(asked: Asked, data: Path) -> str:
    """Mean ranks of the arms over the numbers of labels, in each of several studies and over all; 1 is the best."""
    studies = asked.study.split()
    found = [_means(scored(replace(asked, study=study), data)[0]) for study in studies]
    each, over = [mean_ranks(blocks).ranks for blocks in found], mean_ranks(chain(*found)).ranks
    lines = [["arm", *studies, "all"], ["---"] * (len(studies) + 2)]
    lines += [[arm, *(f"{own[arm]:.1f}" for own in each), f"{rank:.2f}"] for arm, rank in over.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The mean of each arm, a table a number of labels."""
    table = pl.DataFrame({name: [row[name] for row in rows] for name in ("n_labels", "arm", "value")})
    of = table.group_by("n_labels", "arm", maintain_order=True).agg(pl.col("value").mean())
    return [dict(part.select("arm", "value").rows()) for part in of.partition_by("n_labels", maintain_order=True)]


# The text ------------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Mapping[str, Any]], verdict: Mapping[str, Any]) -> str:
    """A row an arm: its mean, and its difference to scratch; a table for each two numbers of labels."""
    levels = verdict["labels"]
    arms = list(dict.fromkeys(arm for level in levels for arm in level["arms"]))
    pairs = (levels[at : at + 2] for at in range(0, len(levels), 2))
    return "\n\n".join(_table(rows, pair, arms, scores.METRICS[verdict["metric"]]) for pair in pairs)


def _table(rows: Sequence[Mapping[str, Any]], levels: Sequence[Any], arms: Sequence[str], metric: str) -> str:
    several = any(row.get("pretraining", 1) > 1 for row in rows)
    columns = ["to scratch, 95 % interval", *(["by pre-training"] if several else []), "p"]
    head = ["arm"]
    for level in levels:
        head += [f"{metric}, {level['n_labels']} labels", *columns]
    lines = [head, ["---"] * len(head)]
    for arm in arms:
        if any(arm in level["arms"] for level in levels):
            lines.append([arm, *chain.from_iterable(_cells(arm, level, rows, several) for level in levels)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(arm: str, level: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], several: bool) -> list[str]:
    empty = [""] * (3 if several else 2)
    mine = level["arms"].get(arm)
    if mine is None:
        return ["", *empty]
    best = max(other["mean"] for other in level["arms"].values())
    mean = short(score(mine["mean"]))
    mean = f"**{mean}**" if mine["mean"] == best else mean
    compared = next((c for c in level["comparisons"] if c["arm"] == arm), None)
    if compared is None:
        return [mean, *empty]
    each = [short(", ".join(map(signed, by_pretraining(rows, arm, level["n_labels"]))))] if several else []
    return [mean, difference(compared), *each, p_value(compared["corrected"]["p"])]


def by_pretraining(rows: Sequence[Mapping[str, Any]], arm: str, n: int) -> list[float]:
    """Mean difference to scratch over the subsets, of each pre-training."""
    of = {(row["arm"], row.get("pretraining", 1), row["seed"]): row["value"] for row in rows if row["n_labels"] == n}
    draws = sorted({draw for name, draw, _ in of if name == arm})
    return [
        float(np.mean([v - of["scratch", d, s] for (name, d, s), v in of.items() if (name, d) == (arm, draw)]))
        for draw in draws
    ]


def words(rows: Sequence[Mapping[str, Any]], verdict: Mapping[str, Any]) -> str:
    """Pairs, ranks, labels that were saved, what could have been seen, and what it cost."""
    lines = []
    for level in verdict["labels"]:
        told = [
            f"{c['arm']} to {c['against']} {plain_difference(c)}, p {p_value(c['corrected']['p'])}"
            for c in level["pairs"]
        ]
        if told:
            lines.append(f"Beside each other, {level['n_labels']} labels: {'; '.join(told)}.")
    order = verdict["ranks"]["ranks"]
    if len(order) > 2:
        lines.append(f"Mean ranks: {', '.join(f'{arm} {rank:.1f}' for arm, rank in order.items())}.")
    first = verdict["labels"][0]["n_labels"]
    saved = [one for one in verdict["labels_saved"] if one["n_labels"] == first]
    if all(one["factor"] is None for one in saved):
        lines += [f"Label-saving factor unknown: {one['why']}." for one in saved[:1]]
    else:
        each = ", ".join(f"{one['arm']} {one['text']}" for one in saved)
        lines.append(f"Label-saving factor at {first} labels: {each}.")
    lines.append(
        "p is corrected for the arms, or the pairs, at a number of labels (Holm); an interval is its own comparison's."
    )
    lines.append(_cost(rows))
    quoted = [
        f"> {short(verdict['sentence'])}",
        *(f"> {short(n)}" for n in verdict["notes"] if " would be seen " in n),
    ]
    return "\n".join(f"- {line}" for line in lines) + "\n\n" + "\n>\n".join(quoted)


def _cost(rows: Sequence[Mapping[str, Any]]) -> str:
    """Time by the clock, of the runs that recorded theirs."""
    begun = {row["key"].partition("-")[0]: row["pretrain"] for row in rows if row["pretrain"]}
    parts = [counted(len({row["seed"] for row in rows}), "label subset")]
    for told, noun in ((list(begun.values()), "pre-training"), (list(rows), "fine-tuning")):
        known = [one["seconds"] for one in told if "seconds" in one]
        took = f"{sum(known) / 3600:.1f} hours" if sum(known) > 5400 else f"{sum(known) / 60:.0f} minutes"
        of = "" if len(known) == len(told) else f" of {len(known)} of them"
        parts.append(f"{counted(len(told), noun)} ({took}{of})" if known else counted(len(told), noun))
    return ", ".join(part for part in parts if not part.startswith("0 ")) + ", by the clock."


# The plots -----------------------------------------------------------------------------------------------------------


def _plots(verdict: Mapping[str, Any], folder: Path, name: str) -> str:
    """The two plots of a study's report as files, in its light colours on white."""
    arms = list(dict.fromkeys(arm for level in verdict["labels"] for arm in level["arms"]))
    colour, metric = figures.colours(arms), scores.METRICS[verdict["metric"]]
    folder.mkdir(exist_ok=True)
    told = []
    for kind, drawn in (("scores", figures.efficiency), ("differences", figures.differences)):
        svg = str(drawn(verdict, metric, colour))
        for variable, value in _light().items():
            svg = svg.replace(f"var({variable})", value)
        svg = svg.replace("<svg ", '<svg style="background:#ffffff" ', 1)
        write_text(folder / f"{name}-{kind}.svg", svg)
        what = {"scores": f"Test {metric} by number of labels", "differences": "Differences to scratch"}[kind]
        told.append(f"![{what}](plots/{name}-{kind}.svg)")
    return "\n".join(told)


def _light() -> dict[str, str]:
    """The variables of a report's page by day."""
    css = (resources.files("medssl.report") / "templates/page.css").read_text(encoding="utf-8")
    return dict(re.findall(r"(--[\w-]+): (#\w+)", css[: css.index("@media")]))


if __name__ == "__main__":
    main()
