"""How a fine-tuned network does on patients it has not learnt from: validation while training, the test once.

samples.npz holds a few test items for the report, item i under ``image.i`` (H, W) in [0, 1]; of a classifier also
``truth.i`` and ``prob.i`` (k,), of a segmenter ``truth.i`` and ``prediction.i`` (H, W) mask values. No ids.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.fabric import Fabric

from medssl import files
from medssl.data.several import present_of
from medssl.evaluate.metrics import classification, mean_over_items, segmentation
from medssl.evaluate.scorers import PatientMean
from medssl.stages.answers import mask_values, probabilities
from medssl.stages.finetune_compare import by_modality
from medssl.stages.finetune_setup import Setup
from medssl.stages.finetune_write import write_prediction
from medssl.stages.options.train import Finetune
from medssl.tasks.classify import Classify, many_of, one_of
from medssl.tasks.segment import Segment
from medssl.tasks.task import Task

SAMPLES = 6
Columns = dict[str, np.ndarray]  # of predictions.parquet, a value an item


@dataclass(frozen=True)
class Score:
    """A validation: all metrics, and the one that decides; between equals the lower loss does."""

    metrics: dict[str, float]
    value: float
    loss: float

    def better_than(self, other: "Score") -> bool:
        """Later steps must be truly better; a metric that cannot be told counts as the worst."""
        mine, theirs = (-math.inf if math.isnan(s.value) else s.value for s in (self, other))
        return (mine, -self.loss) > (theirs, -other.loss)


def validate(setup: Setup, task: Task, fabric: Fabric) -> Score:
    """The score on the validation patients."""
    rows = setup.subset.val
    if isinstance(task, Segment):
        value = _mean_dice(setup, task, fabric, rows)
        return Score({"dice": value}, value, 0.0)
    assert isinstance(task, Classify)
    prob, truth = probabilities(task, fabric, setup.items_of(rows)), setup.truth.matrix[rows]
    metrics = classification(prob, truth, setup.truth.kind)
    loss = _loss(task, prob, truth)
    return Score(metrics | {"loss": loss}, metrics["auc"], loss)


def _mean_dice(setup: Setup, task: Segment, fabric: Fabric, rows: list[int]) -> float:
    """Over the structures of each item, then over items."""
    scores = [s for _, s, *_ in _segmented(setup, task, fabric, rows, surfaces=False)]
    return mean_over_items(np.array([s["dice"] for s in scores]))


def test(options: Finetune, setup: Setup, task: Task, fabric: Fabric) -> dict[str, Any]:
    """Predict every test item, write predictions.parquet and samples.npz; returns result.json."""
    if isinstance(task, Segment):
        columns, metric = _test_segment(options, setup, task, fabric), "dice"
    else:
        assert isinstance(task, Classify)
        columns, metric = _test_classify(options, setup, task, fabric), "auc"
    frame = _frame(setup, setup.subset.test, columns)
    with files.atomic(options.out / "predictions.parquet") as path:
        frame.write_parquet(path)
    metrics = _metrics(setup, frame)
    names = {"structures" if isinstance(task, Segment) else "classes": list(setup.truth.classes)}
    patients = setup.store.items["patient"].to_numpy()
    counts = {f"n_{part}": len(set(patients[getattr(setup.subset, part)])) for part in ("train", "val", "test")}
    hashes = "".join(sorted(setup.store.items["hash"][setup.subset.test]))
    predict = partial(_predicted, task, fabric)
    return {
        "task": options.task,
        "target": setup.truth.name,
        "metric": metric,
        "value": metrics[metric],
        "metrics": metrics,
        "n_labels": setup.subset.patients,
        **counts,
        "subset_seed": options.subset_seed,
        "init": setup.initial,
        **names,
        "test_hash": hashlib.blake2b(hashes.encode(), digest_size=16).hexdigest(),
        **by_modality(setup, options.test_modalities, metric, frame, predict, _metrics),
    }


def _predicted(task: Task, fabric: Fabric, setup: Setup, rows: list[int], keep: list[int]) -> pl.DataFrame:
    """What predictions.parquet holds, of ``rows``, from the modalities ``keep`` only."""
    if isinstance(task, Segment):
        scores = [s for _, s, *_ in _segmented(setup, task, fabric, rows, surfaces=True, keep=keep)]
        return _frame(setup, rows, _structures(setup, scores))
    assert isinstance(task, Classify)
    return _frame(setup, rows, _classes(setup, rows, probabilities(task, fabric, setup.items_of(rows), keep)))


def _frame(setup: Setup, rows: list[int], columns: Columns) -> pl.DataFrame:
    series = [pl.Series(name, values, dtype=pl.Float64).fill_nan(None) for name, values in columns.items()]
    return setup.store.items[rows].select("item", "patient").with_columns(series)


def _metrics(setup: Setup, frame: pl.DataFrame) -> dict[str, float]:
    """All metrics of a table of predictions."""
    table = {name: frame[name].to_numpy() for name in frame.columns if "." in name}
    of = {part: np.stack([v for k, v in table.items() if k.startswith(f"{part}.")], axis=1) for part in _parts(table)}
    if "prob" in of:
        return classification(of["prob"], of["truth"], setup.truth.kind)
    codes = np.unique(frame["patient"].to_numpy(), return_inverse=True)[1].tolist()
    metrics = {name: _over_patients(values, codes) for name, values in of.items()}
    for column, values in table.items():
        metrics[column] = _over_patients(values[:, None], codes)
    # A structure that is missed or invented has no surface distance: so many were left out of the mean.
    both_or_one = ~np.isnan(of["dice"])
    metrics["hd95_undefined"] = float((both_or_one & np.isnan(of["hd95"])).sum())
    return metrics


def _over_patients(values: np.ndarray, codes: list[int]) -> float:
    """Mean of what is known of each patient's items, then over patients, as in a verdict; NaN where nothing is."""
    patients = max(codes) + 1
    with np.errstate(invalid="ignore"):
        return float(PatientMean(values, codes, patients)(np.ones((1, patients)))[0])


def _parts(table: Columns) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in table))


# Classification ------------------------------------------------------------------------------------------------------


def _loss(task: Classify, prob: np.ndarray, truth: np.ndarray) -> float:
    p = torch.from_numpy(prob).clamp(1e-7, 1 - 1e-7)
    label = torch.from_numpy(truth).double()
    true, false = (w.cpu().double() for w in (task.weight_true, task.weight_false))
    if task.config.kind == "one":
        return float(one_of(p.log(), label, true))
    return float(many_of(p.logit(), label, true, false))


def _test_classify(options: Finetune, setup: Setup, task: Classify, fabric: Fabric) -> Columns:
    """The columns of all test items; samples.npz is written."""
    rows = setup.subset.test
    prob, truth = probabilities(task, fabric, setup.items_of(rows)), setup.truth.matrix[rows]
    samples: dict[str, np.ndarray] = {}
    for i, place in enumerate(_spread(len(rows))):
        image = setup.items_of(rows).batch([place]).normalised()[0].numpy()
        samples |= {
            f"image.{i}": _shown(image, setup, rows[place], None),
            f"truth.{i}": truth[place],
            f"prob.{i}": prob[place],
        }
    _write_samples(options, samples)
    return _classes(setup, rows, prob)


def _classes(setup: Setup, rows: list[int], prob: np.ndarray) -> Columns:
    truth = setup.truth.matrix[rows]
    columns = {f"prob.{c}": prob[:, k] for k, c in enumerate(setup.truth.classes)}
    return columns | {f"truth.{c}": truth[:, k] for k, c in enumerate(setup.truth.classes)}


# Segmentation --------------------------------------------------------------------------------------------------------


def _segmented(
    setup: Setup, task: Segment, fabric: Fabric, rows: list[int], surfaces: bool, keep: list[int] | None = None
) -> Iterator[tuple[int, dict[str, list[float]], np.ndarray, np.ndarray]]:
    """Row, scores, predicted and true mask values (*spatial) of each item, on the stored grid; ``keep`` as above."""
    store = setup.store
    spacings = store.items["spacing_mm"]
    for row in rows:
        truth = store.read_mask(row)
        pred = mask_values(task, fabric, store, row, keep).astype(truth.dtype)
        spacing_mm = spacings[row] if spacings[row] is not None else (1.0,) * truth.ndim
        yield row, segmentation(pred, truth, task.config.labels, spacing_mm, surfaces), pred, truth


def _test_segment(options: Finetune, setup: Setup, task: Segment, fabric: Fabric) -> Columns:
    """The columns of all test items; samples.npz is written, and the masks where they are asked for."""
    rows = setup.subset.test
    shown = set(_spread(len(rows)))
    found: list[dict[str, list[float]]] = []
    samples: dict[str, np.ndarray] = {}
    for place, (row, scores, pred, truth) in enumerate(_segmented(setup, task, fabric, rows, surfaces=True)):
        found.append(scores)
        if options.predictions:
            write_prediction(options.out / "predictions", setup.store, row, pred)
        if place in shown:
            i = len(samples) // 3
            cut = _best_slice(truth if truth.any() else pred)
            image = _shown(setup.store.normalised(row), setup, row, cut)
            samples |= {f"image.{i}": image, f"truth.{i}": _cut(truth, cut), f"prediction.{i}": _cut(pred, cut)}
    _write_samples(options, samples)
    return _structures(setup, found)


def _structures(setup: Setup, scores: list[dict[str, list[float]]]) -> Columns:
    table = {name: np.array([s[name] for s in scores]) for name in ("dice", "hd95")}
    return {f"{name}.{s}": values[:, k] for name, values in table.items() for k, s in enumerate(setup.truth.classes)}


# Samples -------------------------------------------------------------------------------------------------------------


def _spread(n: int) -> list[int]:
    """A few positions, evenly over n."""
    return sorted({int(p) for p in np.linspace(0, n - 1, min(n, SAMPLES))})


def _shown(image: np.ndarray, setup: Setup, row: int, cut: int | None) -> np.ndarray:
    """(H, W) or (H, W, 3) of [0, 1] of normalised (C, *spatial); of a volume the axial slice ``cut``, or the middle.

    Of several modalities the first that the item has.
    """
    present = present_of(setup.store, [row])
    first = 0 if present is None else int(present[0].int().argmax()) * setup.config.channels
    image = image[first : first + setup.config.channels]
    low, high = setup.config.value_range
    plane = np.stack([_cut(channel, cut) for channel in image], axis=-1)
    plane = ((plane - low) / (high - low)).clip(0, 1).astype(np.float16)
    return plane if plane.shape[-1] == 3 else plane[..., 0]


def _cut(array: np.ndarray, cut: int | None) -> np.ndarray:
    """An axial slice as radiologists look at it, from the feet: front up, the patient's right at the left. (H, W)."""
    if array.ndim == 2:
        return array
    return np.flip(array[:, :, array.shape[2] // 2 if cut is None else cut].T, axis=(0, 1))


def _best_slice(mask: np.ndarray) -> int | None:
    """The axial slice that shows most of the structures, each counted by its share of its own largest cut."""
    if mask.ndim < 3:
        return None
    areas = [(mask == label).sum(axis=(0, 1)) for label in np.unique(mask[mask > 0])]
    return int(sum(area / area.max() for area in areas).argmax()) if areas else mask.shape[2] // 2


def _write_samples(options: Finetune, samples: dict[str, np.ndarray]) -> None:
    with files.atomic(options.out / "samples.npz") as path, path.open("wb") as handle:
        arrays: dict[str, Any] = {name: np.ascontiguousarray(value) for name, value in samples.items()}
        np.savez_compressed(handle, **arrays)
