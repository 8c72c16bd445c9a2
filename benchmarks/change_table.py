"""One arm beside others that change one setting each: the table of an ablation, over one study or several."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.recorded import Asked, difference, judge, scored, short
from benchmarks.results import PAGE
from medssl.report import scores
from medssl.wording import score

RECIPES = PAGE.parents[2] / "recipes"


def changes(asked: Asked, data: Path) -> str:
    """A row an arm: what its recipe changes of ``asked.base``, and what comes of it in each study, which has one number
    of labels; the row of the base itself is beside scratch. Probes are those of the frozen encoder at the end."""
    if not asked.base:
        raise SystemExit("a marker of changes names no base: <!-- changes STUDY; base ARM -->")
    studies = asked.study.split()
    head, parts = ["arm", "setting"], []
    for study in studies:
        title, cells = _study(replace(asked, study=study), data)
        head += title
        parts.append(cells)
    recipes = [tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))["pretrain"] for name in studies]
    lines = [head, ["---"] * len(head)]
    for arm in dict.fromkeys([asked.base, *(arm for cells in parts for arm in cells)]):
        names = [f"**{arm}**, to scratch", ""] if arm == asked.base else [arm, _setting(recipes, arm, asked.base)]
        lines.append(names + [cell for cells in parts for cell in cells.get(arm, ("–",) * 3)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _study(asked: Asked, data: Path) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Titles of a study's three columns, and the cells of each arm."""
    arms = dict.fromkeys(row["arm"] for row in scored(asked, data)[0])
    pairs = tuple((arm, asked.base) for arm in arms if arm not in ("scratch", asked.base))
    rows, verdict = judge(replace(asked, pairs=pairs), data)
    (level,) = verdict["labels"]
    own = [c for c in level["comparisons"] if c["arm"] == asked.base] + level["pairs"]
    pretrained = {row["arm"]: row["pretrain"] for row in rows if row["pretrain"]}
    probes = sorted(name for name in pretrained[asked.base] if name.startswith("probe."))
    metric, names = scores.METRICS[verdict["metric"]], ", ".join(name.removeprefix("probe.") for name in probes)
    titles = [f"{asked.study}: {metric} to {asked.base}, {level['n_labels']} labels", names, "s"]
    cells = {}
    for compared in own:
        told = pretrained[compared["arm"]]
        probed = ", ".join(short(score(told[name])) for name in probes)
        cells[compared["arm"]] = (difference(compared), probed, f"{told['seconds']:.0f}")
    return titles, cells


def _setting(recipes: Sequence[Mapping[str, Any]], arm: str, base: str) -> str:
    """What [pretrain.ARM] says other than [pretrain.BASE], in every recipe that has the arm; they must agree."""
    found = set()
    for tables in recipes:
        if arm in tables:
            same, own = tables.get(base, {}), tables[arm]
            names = [name for name in {**own, **same} if name != "method" and same.get(name) != own.get(name)]
            values = [json.dumps(own[name]) if name in own else "its default" for name in names]
            found.add(", ".join(f"`{name} = {value}`" for name, value in zip(names, values, strict=True)))
    if len(found) > 1:
        raise SystemExit(f"recipes differ in what they change for {arm}: {'; '.join(sorted(found))}")
    return "".join(found)
