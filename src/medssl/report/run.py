"""The report of one run: a pre-training, or a fine-tuning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medssl.files import read_rows
from medssl.report import figures, formats, images, modalities, parts
from medssl.report.blocks import Block, Facts, Grid, Page, Section, Table
from medssl.report.formats import table

SHOWN = 6  # test items


def page(run: Path) -> Page:
    """What the files of a run tell."""
    record, result = table(run / "run.toml", formats.RunRecord), table(run / "result.json", formats.Result)
    return _tested(run, record, result) if result else _pretrained(run, record)


def _pretrained(run: Path, record: Mapping[str, Any]) -> Page:
    card, rows = table(run / "encoder.json", formats.EncoderCard), read_rows(run / "metrics.jsonl")
    method = card.get("method") or record.get("method") or "pre-training"
    colour = {method: figures.SERIES[1]}
    steps = card.get("steps") or (rows[-1]["step"] if rows else 0)
    data = record.get("data", {})
    sections = [
        parts.rebuilt(run),
        *parts.course({method: run}, colour),
        parts.embedding(run),
        *(modalities.sections(run) if "towers" in card else ()),
        _encoder(card, data),
        Section(
            "Configuration", [parts.configuration({k: v for k, v in record.items() if k != "versions"}, "All options")]
        ),
        parts.software(record),
    ]
    keys = [(str(steps), "steps")]
    keys += [(str(data[name]), f"training {name}") for name in ("patients", "images") if name in data]
    rate = next((row["samples_per_s"] for row in reversed(rows) if parts.is_number(row.get("samples_per_s"))), None)
    if rate:
        keys.append((f"{rate:.1f}", "samples a second") if rate >= 1 else (f"{1 / rate:.1f}", "seconds a sample"))
    course = _course_in_words([row for row in rows if row["step"] <= steps])
    headline = f"{method} pre-trained an encoder for {steps} steps{_chosen(card.get('patience'))}. {course}"
    version = record.get("versions", {}).get("medssl", "")
    return Page("medssl run", f"pre-training by {method}", headline.strip(), sections, figures=keys, version=version)


_COURSE = {
    "probe.linear": "A linear probe of its frozen features went from {:.2f} to {:.2f} balanced accuracy.",
    "effective_rank": "The effective rank of its features went from {:.1f} to {:.1f}.",
}


def _chosen(patience: formats.Course | None) -> str:
    """How probes chose the step whose encoder was kept, where they did."""
    if not patience:
        return ""
    ended, steps = patience["ended"], patience["of"]
    after = f"training ended at step {ended} of {steps}" if ended < steps else f"training went on to step {steps}"
    return f", kept because its probe was the best ({after})"


def _course_in_words(rows: list[dict[str, Any]]) -> str:
    """What became of the probe, or else of the effective rank; only what was measured."""
    for key, words in _COURSE.items():
        values = [row[key] for row in rows if parts.is_number(row.get(key))]
        if len(values) > 1:
            return words.format(values[0], values[-1])
    return "Whether it helps, a study tells."


def _encoder(card: Mapping[str, Any], data: Mapping[str, Any]) -> Section:
    if not card:
        return Section("Encoder", [], "", "The run has not finished: no encoder was written.")
    blocks: list[Block] = [parts.configuration(card.get("encoder", {}), "")]
    shown = {"preprocessing": card.get("preprocessing", {}), "data_hash": str(card.get("data_hash", ""))[:16]}
    blocks.append(parts.configuration(shown, "Preprocessing contract and data hash"))
    trans = "Test patients' images were part of the training (transductive)." if card.get("transductive") else ""
    return Section("Encoder", blocks, trans)


def _tested(run: Path, record: Mapping[str, Any], result: Mapping[str, Any]) -> Page:
    task = {"classify": "classification", "segment": "segmentation"}.get(result["task"], result["task"])
    metric = {"auc": "AUC", "dice": "Dice"}.get(result["metric"], result["metric"])
    name = f"fine-tuning ({result['init']})"
    scores = [(_metric(k), f"{v:.3f}" if v is not None else "undefined") for k, v in result["metrics"].items()]
    sections = [
        Section("Scores on the test patients", [Table(("Metric", "Value"), scores)]),
        *([modalities.fewer(result["modalities"], metric, _metric)] if "modalities" in result else []),
        predictions({result["init"]: run}),
        parts.course({name: run}, {name: figures.SERIES[1]})[0],
        Section(
            "Configuration", [parts.configuration({k: v for k, v in record.items() if k != "versions"}, "All options")]
        ),
        Section("Split", [Facts([("Hash of the test images", str(result.get("test_hash", ""))[:16])])]),
        parts.software(record),
    ]
    value = "undefined" if result["value"] is None else f"{result['value']:.3f}"
    headline = (
        f"Test {metric} {value} after {task} was learnt from {result['n_labels']} labelled patients, "
        f"starting from {'scratch' if result['init'] == 'scratch' else 'a pre-trained encoder'}."
    )
    keys = [(str(result[f"n_{part}"]), f"{part} patients") for part in ("train", "val", "test")]
    version = record.get("versions", {}).get("medssl", "")
    return Page("medssl run", f"{task} of {result['target']}", headline, sections, figures=keys, version=version)


def predictions(runs: Mapping[str, Path], title: str = "Predictions against truth") -> Section:
    """The same test items as each of ``runs`` sees them, beside the truth."""
    found = {name: formats.arrays(run / "samples.npz") for name, run in runs.items()}
    found = {name: arrays for name, arrays in found.items() if "image.0" in arrays}
    if not found:
        return Section(title, [], "", "The runs kept no test images.")
    first = next(iter(found.values()))
    count = min(SHOWN, sum(key.startswith("image.") for key in first))
    result = table(next(iter(runs.values())) / "result.json", formats.Result)
    if "prediction.0" in first:
        return Section(title, [_overlays(found, first, count, result.get("structures", []))])
    return Section(title, [_probabilities(found, first, count, result.get("classes", []))])


def _overlays(
    found: Mapping[str, dict[str, np.ndarray]], first: dict[str, np.ndarray], count: int, structures: list[str]
) -> Grid:
    wanted, rows = [int(s) for s in structures], []
    for i in range(count):
        image = _channels(first[f"image.{i}"])
        truth = first[f"truth.{i}"]
        # The masks of the data may hold more than the task asks for.
        row = [images.picture(image, (0, 1)), images.picture(image, (0, 1), np.where(np.isin(truth, wanted), truth, 0))]
        row += [images.picture(image, (0, 1), arrays[f"prediction.{i}"]) for arrays in found.values()]
        rows.append(row)
    tints = [images.MASK_COLOURS[(s - 1) % len(images.MASK_COLOURS)] for s in wanted]
    legend = [(f"rgb({r:.0f},{g:.0f},{b:.0f})", f"structure {s}") for s, (r, g, b) in zip(wanted, tints, strict=True)]
    caption = (
        "Test patients, the slice with most of the structure. Spread evenly over the test set, not chosen by score."
    )
    return Grid(["image", "truth", *found], rows, legend=legend, caption=caption)


def _probabilities(
    found: Mapping[str, dict[str, np.ndarray]], first: dict[str, np.ndarray], count: int, classes: list[str]
) -> Table | Grid:
    pictures = [images.picture(_channels(first[f"image.{i}"]), (0, 1)) for i in range(count)]
    names = []
    for i in range(count):
        truth = [classes[k] if k < len(classes) else str(k) for k in np.flatnonzero(first[f"truth.{i}"] == 1)]
        names.append("truth: " + (", ".join(truth) or "none"))
    said = [[f"{name}: {_top(arrays[f'prob.{i}'], classes)}" for i in range(count)] for name, arrays in found.items()]
    columns = [" · ".join([names[i], *(row[i] for row in said)]) for i in range(count)]
    return Grid(
        columns, [pictures], caption="Test items, spread evenly over the test set; the most probable class of each arm."
    )


def _top(prob: np.ndarray, classes: list[str]) -> str:
    k = int(np.argmax(prob))
    return f"{classes[k] if k < len(classes) else k} {prob[k]:.2f}"


def _channels(image: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) as (C, H, W)."""
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def _metric(key: str) -> str:
    name, _, part = key.partition(".")
    known = {"auc": "AUC", "dice": "Dice", "hd95": "HD95 (mm)", "f1": "F1", "hd95_undefined": "items without an HD95"}
    text = known.get(name, name.replace("_", " "))
    return f"{text}, structure {part}" if part else text
