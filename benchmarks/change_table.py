"""One arm beside others that change one setting each: the table of an ablation, over one study or several."""

import json
import tomllib
from collections.abc import Mapping
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
    studies = asked.study.split()
    head, parts = ["arm", "setting"], []
    for study in studies:
        title, cells = _study(replace(asked, study=study), data)
        head += title
        parts.append(cells)
    tables = tomllib.loads((RECIPES / f"{studies[0]}.toml").read_text(encoding="utf-8"))["pretrain"]
    lines = [head, ["---"] * len(head)]
    for arm in dict.fromkeys([asked.base, *(arm for cells in parts for arm in cells)]):
        names = [f"**{arm}**, to scratch", ""] if arm == asked.base else [arm, _setting(tables, arm, asked.base)]
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


def _setting(tables: Mapping[str, Any], arm: str, base: str) -> str:
    """What [pretrain.ARM] of a recipe says that [pretrain.BASE] does not."""
    same = tables.get(base, {})
    told = {k: v for k, v in tables.get(arm, {}).items() if k != "method" and same.get(k) != v}
    return ", ".join(f"`{name} = {json.dumps(value)}`" for name, value in told.items())
