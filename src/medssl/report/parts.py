"""Parts that the reports of runs and studies share: what was trained, on which images, by which software."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssl.files import read_rows
from medssl.report import figures, formats, images
from medssl.report.blocks import Block, Facts, Figure, Grid, Section

# Keys of metrics.jsonl that are not terms of the objective.
_BOOKKEEPING = {"step", "lr", "samples_per_s", "data_wait", "eta_s", "elapsed_s", "seconds", "total", "best", "parts"}
_WATCHED = {
    "effective_rank": "Effective rank of features",
    "feature_std": "Spread of features",
    "probe.knn": "Nearest-neighbour probe",
    "probe.linear": "Linear probe",
}
# Options that say where something lies on this machine; a report is handed on, and they are not.
_PRIVATE = {"data", "out", "config", "init", "cluster", "arms", "folder", "run", "scans", "table"}
_SAMPLES = 4  # rows of pictures


def course(runs: Mapping[str, Path], colour: Mapping[str, str]) -> list[Section]:
    """Loss terms, then collapse metrics and probes, over the steps of each of ``runs``."""
    rows = {name: read_rows(run / "metrics.jsonl") for name, run in runs.items()}
    keys = dict.fromkeys(k for found in rows.values() for row in found for k, v in row.items() if is_number(v))
    terms = [
        k for k in keys if k not in _BOOKKEEPING | set(_WATCHED) and not k.startswith(("norm", "grad", "probe", "val"))
    ]
    norms = [k for k in keys if k.startswith(("norm", "grad"))]
    empty = "No steps were logged."
    losses: list[Block] = [Figure(figures.curves(_said(k), _lines(rows, k), colour)) for k in terms]
    if norms:
        for name, found in rows.items():
            lines = {_said(k.removeprefix("norm.")): _lines({name: found}, k).get(name) for k in norms}
            strength = {k: line for k, line in lines.items() if line}
            palette = dict(zip(strength, figures.SERIES[1:], strict=False))
            title = "Gradient norms" if len(rows) == 1 else f"Gradient norms, {name}"
            losses.append(Figure(figures.curves(title, strength, palette)))
    watched = [Figure(figures.curves(_WATCHED[k], _lines(rows, k), colour)) for k in _WATCHED if k in keys]
    return [
        Section("Loss terms", losses, "Each weighted term of the objective, as the encoder learned.", empty),
        Section(
            "Collapse and probes",
            watched,
            "Does the encoder still tell images apart? A collapsing one loses effective rank. "
            "Probes (balanced accuracy) see training patients only; step 0 is the untrained encoder.",
            "Too few scans to measure it, or no probe was run.",
        ),
    ]


def _lines(rows: Mapping[str, Sequence[dict[str, Any]]], key: str) -> dict[str, tuple[list[float], list[float]]]:
    lines = {}
    for name, found in rows.items():
        points = [(row["step"], row[key]) for row in found if is_number(row.get(key))]
        if points:
            lines[name] = ([p[0] for p in points], [p[1] for p in points])
    return lines


_SHOWN = {"view": "view", "other": "other view", "target": "target", "rebuilt": "rebuilt"}


def rebuilt(run: Path, title: str = "Views and their reconstructions") -> Section:
    """Views beside their other view, or beside what the decoder rebuilt of them; one image under several gates."""
    found, card = formats.arrays(run / "samples.npz"), formats.table(run / "encoder.json", formats.EncoderCard)
    span = tuple(card.get("preprocessing", {}).get("value_range", ())) or None
    blocks: list[Block] = []
    columns = [name for name in _SHOWN if name in found]
    if columns:
        rows = [[_cell(found[k][i], span) for k in columns] for i in range(min(_SAMPLES, len(found[columns[0]])))]
        said = "the corrupted view, what was asked for, what came back" if "rebuilt" in found else "its views"
        blocks.append(Grid([_SHOWN[k] for k in columns], rows, caption=f"A row is a training image: {said}."))
    title = title if "rebuilt" in found or not columns else "Views"
    gates = {"asked for": "gate_target", "rebuilt": "gate_rebuilt"}
    stacks = {name: found[key] for name, key in gates.items() if key in found}
    if stacks and "gate_names" in found:
        caption = "One image, encoded once: the gate alone tells the decoder which pose to rebuild."
        rows = [[_cell(image, span) for image in stack] for stack in stacks.values()]
        blocks.append(Grid([str(name) for name in found["gate_names"]], rows, list(stacks), caption=caption))
    return Section(title, blocks, "", "The run kept no samples.")


def embedding(run: Path, title: str = "Map of the embedding") -> Section:
    """Scans as the pre-trained encoder sees them: neighbours have similar features."""
    found = formats.arrays(run / "embedding.npz")
    features = found.get("features", np.empty((0, 0)))
    if len(features) < 5:
        return Section(title, [], "", "Too few scans for a map.")
    points, how = _flatten(features.astype(np.float32))
    labels = [str(label) for label in found.get("label", np.full(len(features), ""))]
    svg = figures.scatter(points, labels, f"{how} of the features")
    intro = "Training scans as the encoder sees them, without having seen a label: near ones have similar features."
    return Section(title, [Figure(svg, wide=True)], intro)


def _flatten(features: np.ndarray) -> tuple[np.ndarray, str]:
    """Two dimensions: PCA, and t-SNE after it where there are enough scans for one."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n = len(features)
    features = np.nan_to_num(features)
    reduced = PCA(min(50, n, features.shape[1]), random_state=0).fit_transform(features)
    if n < 30:
        return reduced[:, :2] if reduced.shape[1] > 1 else np.pad(reduced, ((0, 0), (0, 1))), "PCA"
    perplexity = min(30.0, (n - 1) / 4)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced), "t-SNE"


def configuration(record: Mapping[str, Any], fold: str) -> Facts:
    """Options of a run or study, without anything that names a place on this machine."""
    items = []
    for key, value in record.items():
        if isinstance(value, Mapping):
            inner = configuration(value, "").items
            items += [(f"{key}.{name}", text) for name, text in inner]
        elif key not in _PRIVATE and key != "format":
            items.append((key, _written(value)))
    return Facts(items, fold)


def software(record: Mapping[str, Any]) -> Section:
    """Versions of what a result depends on."""
    versions = record.get("versions", {})
    return Section("Versions", [Facts(list(versions.items()))] if versions else [], "", "The run recorded none.")


def _cell(image: np.ndarray, span: tuple[float, float] | None) -> str:
    flat, _ = images.slice_of(np.asarray(image, np.float32))
    return images.picture(flat, span)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _said(key: str) -> str:
    """A key of a file as words."""
    text = key.replace("_", " ").replace(".", ": ").replace("/", ": ")
    return text[0].upper() + text[1:]


def is_number(value: Any) -> bool:
    """Whether a value of metrics.jsonl can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
