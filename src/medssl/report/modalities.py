"""What a report shows of several modalities: retrieval, their joint space, zero-shot classes; a task without some."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from medssl.report import figures, formats
from medssl.report.blocks import Block, Figure, Note, Section, Table
from medssl.wording import signed, span

LINES = 300  # between pairs, at most
UNSEEN = "Scans of test patients, each asked for its partner in another modality. Chance is that of a random order."
SEEN = "The test patients' images were part of the training (transductive): these numbers say nothing of new patients."


def sections(run: Path) -> list[Section]:
    """Retrieval and the joint space; zero-shot classes where they were asked for."""
    found = formats.table(run / "retrieval.json", formats.Retrieval)
    zeroshot = formats.table(run / "zeroshot.json", formats.ZeroShot)
    missing = "Not measured yet: `medssl evaluate retrieval RUN --data DATA`."
    made = [
        Section("Retrieval", _retrieval(found) if found else [], UNSEEN if found else "", missing),
        Section("Joint space", _space(run, found) if found else [], "", missing),
    ]
    return [*made, Section("Zero-shot classes", _zeroshot(zeroshot))] if zeroshot else made


def fewer(found: Mapping[str, Any], metric: str, written: Callable[[str], str]) -> Section:
    """A fine-tuned network with fewer modalities than it knows, or with another; ``written``: names of metrics."""
    names, every = found["names"], found["all"]
    listed = ", ".join(names)
    cases = [(listed, every), *((f"{name} alone", case) for name, case in found.get("alone", {}).items())]
    if len(names) > 2:  # of two, one left out is the other alone
        cases += [(f"without {name}", case) for name, case in found["left_out"].items()]
    cases += [(f"{listed} → {name}", case) for name, case in found.get("tested_on", {}).items()]
    rows = [
        (name, case["n"], case["patients"], _three(case["value"]), span(case["interval"]), *_lost(case))
        for name, case in cases
    ]
    columns = ("Shown", "Items", "Patients", metric, "95 % interval", "Difference", "95 % interval")
    if found["same"]:
        caption = f"All on the same {every['n']} test items of {every['patients']} patients, which have each modality."
    else:
        wanted = ", ".join([*names, *found.get("tested_on", {})])
        caption = f"No test item has all of {wanted}: lines are of different items, and are not compared."
    blocks: list[Block] = [Note(caption), Table(columns, rows)]
    keys = [k for k in every["metrics"] if "." not in k and k != "hd95_undefined" and written(k) != metric]
    if keys:
        others = [(name, *(_three(case["metrics"].get(k)) for k in keys)) for name, case in cases]
        blocks.append(Table(("Shown", *map(written, keys)), others, "Other metrics"))
    intro = "Means and intervals over test patients, of this one network; other seeds would add to their width."
    if "tested_on" in found:
        intro += f" After the arrow: another modality, shown to the network that has learnt from {listed}."
    return Section("Modalities", blocks, intro)


def _lost(case: Mapping[str, Any]) -> tuple[str, str]:
    if case.get("difference") is None:
        return "", ""
    return signed(case["difference"]), span(case["difference_interval"], signed)


def _three(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _retrieval(found: Mapping[str, Any]) -> list[Block]:
    rows = []
    for one in found["directions"]:
        name = f"{one['query']} → {one['gallery']}"
        if not one["queries"]:
            rows.append((name, "no pair", *[""] * 5))
            continue
        recalls = [_recall(one[key]) for key in ("r@1", "r@5", "r@10")]
        rank = one["median_rank"]
        rows.append((name, one["queries"], one["patients"], *recalls, f"{rank['value']:.1f} ({rank['chance']:.1f})"))
    columns = ("Query → gallery", "Queries", "Patients", "R@1 (chance)", "R@5 (chance)", "R@10 (chance)", "Median rank")
    caption = "Means over patients with 95 % intervals over patients; other studies of a patient are left out."
    return [*_warned(found), Table(columns, rows, caption=caption)]


def _space(run: Path, found: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    arrays = formats.arrays(run / "joint.npz")
    if len(arrays.get("z", ())) > 2:
        points, kinds = _plane(arrays["z"]), [str(kind) for kind in arrays["modality"]]
        svg = figures.scatter(points, kinds, "PCA of the joint space", _links(arrays["subject"], kinds))
        blocks.append(Figure(svg, "A line joins what shows one subject: the shorter, the better aligned.", wide=True))
    rows = [
        (" and ".join(p["modalities"]), p["pairs"], *(_number(p.get(k)) for k in ("pair_cosine", "alignment", "gap")))
        for p in found["joint"]["pairs"]
    ]
    columns = ("Modalities", "True pairs", "Mean cosine", "Alignment (0 best)", "Gap of centroids")
    blocks.append(Table(columns, rows))
    each = found["joint"]["modalities"].items()
    spread = [(name, one["samples"], _number(one["uniformity"])) for name, one in each]
    blocks.append(Table(("Modality", "Samples", "Uniformity (lower is better spread)"), spread))
    told, chance = found["joint"]["separability"], found["joint"]["separability_chance"]
    if told is not None:
        text = f"A linear classifier tells the modalities of unseen patients apart with balanced accuracy {told:.2f}"
        blocks.append(Note(f"{text} (chance {chance:.2f}): 1 means that each modality keeps to a place of its own."))
    return blocks


def _zeroshot(found: Mapping[str, Any]) -> list[Block]:
    rows = []
    for name, score in found["modalities"].items():
        auc, accuracy = score["auc"], score["balanced_accuracy"]
        value = "undefined" if auc["value"] is None else f"{auc['value']:.3f}{_ends(auc['interval'], '.2f')}"
        right = f"{accuracy['value']:.3f} ({accuracy['chance']:.2f})"
        rows.append((name, score["scans"], score["patients"], value, right))
    columns = ("Modality", "Scans", "Patients", "AUC (chance 0.5)", "Balanced accuracy (chance)")
    classes = ", ".join(found["prompts"])
    caption = f"{found['target']}: {classes}, each named by its texts; no label was learnt from."
    return [*_warned(found), Table(columns, rows, caption=caption)]


def _warned(found: Mapping[str, Any]) -> list[Block]:
    return [Note(SEEN, "warning")] if found["transductive"] else []


def _plane(z: np.ndarray) -> np.ndarray:
    """(n, 2): the two directions of largest variance."""
    centred = np.nan_to_num(z.astype(np.float64)) - np.nan_to_num(z).mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2].sum(axis=1, keepdims=True) + 1e-12)  # the same picture on every machine
    points = centred @ axes.T
    return points if points.shape[1] == 2 else np.pad(points, ((0, 0), (0, 1)))


def _links(subject: np.ndarray, kinds: Sequence[str]) -> list[tuple[int, int]]:
    found = []
    for who in np.unique(subject):
        mine = np.flatnonzero(subject == who).tolist()
        found += [(i, j) for i, j in combinations(mine, 2) if kinds[i] != kinds[j]]
    return found[:LINES]


def _recall(score: Mapping[str, Any]) -> str:
    return f"{score['value']:.2f}{_ends(score['interval'], '.2f')} ({score['chance']:.2f})"


def _ends(interval: Sequence[float | None], form: str) -> str:
    low, high = interval
    return "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
