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
from medssl.stages.finetune_modalities import with_fewer
from medssl.stages.finetune_setup import Setup
from medssl.stages.options.train import Finetune
from medssl.tasks.classify import Classify, many_of, one_of
from medssl.tasks.segment import Segment
from medssl.tasks.task import Task

SAMPLES = 6
BATCH = 32


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
    prob, truth = _classified(setup, task, fabric, rows), setup.truth.matrix[rows]
    metrics = classification(prob, truth, setup.truth.kind)
    loss = _loss(task, prob, truth)
    return Score(metrics | {"loss": loss}, metrics["auc"], loss)


def _mean_dice(setup: Setup, task: Segment, fabric: Fabric, rows: list[int], keep: list[int] | None = None) -> float:
    """Over the structures of each item, then over items; of several modalities from those in ``keep`` only."""
    scores = [s for _, s, *_ in _segmented(setup, task, fabric, rows, surfaces=False, keep=keep)]
    return mean_over_items(np.array([s["dice"] for s in scores]))


def _with(setup: Setup, task: Task, fabric: Fabric, rows: list[int], keep: list[int]) -> float:
    """The metric on ``rows`` from the modalities ``keep`` only."""
    if isinstance(task, Segment):
        return _mean_dice(setup, task, fabric, rows, keep)
    assert isinstance(task, Classify)
    prob = _classified(setup, task, fabric, rows, keep)
    return classification(prob, setup.truth.matrix[rows], setup.truth.kind)["auc"]


def _there(setup: Setup, rows: list[int], keep: list[int] | None, fabric: Fabric) -> torch.Tensor | None:
    present = present_of(setup.store, rows, keep)
    return None if present is None else present.to(fabric.device)


def test(options: Finetune, setup: Setup, task: Task, fabric: Fabric) -> dict[str, Any]:
    """Predict every test item, write predictions.parquet and samples.npz; returns result.json."""
    rows = setup.subset.test
    if isinstance(task, Segment):
        metrics, columns = _test_segment(options, setup, task, fabric)
    else:
        assert isinstance(task, Classify)
        metrics, columns = _test_classify(options, setup, task, fabric)
    items = setup.store.items[rows].select("item", "patient", "hash")
    frame = items.drop("hash").with_columns(
        [pl.Series(name, values, dtype=pl.Float64).fill_nan(None) for name, values in columns.items()]
    )
    with files.atomic(options.out / "predictions.parquet") as path:
        frame.write_parquet(path)
    metric = "dice" if isinstance(task, Segment) else "auc"
    names = {"structures" if isinstance(task, Segment) else "classes": list(setup.truth.classes)}
    patients = setup.store.items["patient"].to_numpy()
    counts = {f"n_{part}": len(set(patients[getattr(setup.subset, part)])) for part in ("train", "val", "test")}
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
        "test_hash": hashlib.blake2b("".join(sorted(items["hash"])).encode(), digest_size=16).hexdigest(),
        **with_fewer(setup.store, rows, partial(_with, setup, task, fabric)),
    }


# Classification ------------------------------------------------------------------------------------------------------


def _classified(
    setup: Setup, task: Classify, fabric: Fabric, rows: list[int], keep: list[int] | None = None
) -> np.ndarray:
    """Probabilities (n, k) of whole items; of several modalities from those in ``keep`` only."""
    task.eval()
    found = []
    for batch in setup.items_of(rows).once(BATCH):
        present = _there(setup, batch.item.tolist(), keep, fabric)
        with fabric.autocast():
            found.append(task.predict(fabric.to_device(batch).normalised(), present).cpu())
    return torch.cat(found).double().numpy()


def _loss(task: Classify, prob: np.ndarray, truth: np.ndarray) -> float:
    p = torch.from_numpy(prob).clamp(1e-7, 1 - 1e-7)
    label = torch.from_numpy(truth).double()
    true, false = (w.cpu().double() for w in (task.weight_true, task.weight_false))
    if task.config.kind == "one":
        return float(one_of(p.log(), label, true))
    return float(many_of(p.logit(), label, true, false))


def _test_classify(
    options: Finetune, setup: Setup, task: Classify, fabric: Fabric
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    rows = setup.subset.test
    prob, truth = _classified(setup, task, fabric, rows), setup.truth.matrix[rows]
    columns = {f"prob.{c}": prob[:, k] for k, c in enumerate(setup.truth.classes)}
    columns |= {f"truth.{c}": truth[:, k] for k, c in enumerate(setup.truth.classes)}
    samples: dict[str, np.ndarray] = {}
    for i, place in enumerate(_spread(len(rows))):
        image = setup.items_of(rows).batch([place]).normalised()[0].numpy()
        samples |= {
            f"image.{i}": _shown(image, setup, rows[place], None),
            f"truth.{i}": truth[place],
            f"prob.{i}": prob[place],
        }
    _write_samples(options, samples)
    return classification(prob, truth, setup.truth.kind), columns


# Segmentation --------------------------------------------------------------------------------------------------------


def _segmented(
    setup: Setup, task: Segment, fabric: Fabric, rows: list[int], surfaces: bool, keep: list[int] | None = None
) -> Iterator[tuple[int, dict[str, list[float]], np.ndarray, np.ndarray]]:
    """Row, scores, predicted and true mask values (*spatial) of each item, on the stored grid; ``keep`` as above."""
    store = setup.store
    spacings = store.items["spacing_mm"]
    task.eval()
    for row in rows:
        image = torch.from_numpy(store.normalised(row)).to(fabric.device)
        fill = float(np.clip(store.fill[row] * store.gain[row] + store.bias[row], *setup.config.value_range))
        present = _there(setup, [row], keep, fabric)
        with fabric.autocast():
            found = task.predict(image, fill, None if present is None else present[0]).cpu().numpy()
        truth = store.read_mask(row)
        pred = found.astype(truth.dtype)
        spacing_mm = spacings[row] if spacings[row] is not None else (1.0,) * truth.ndim
        yield row, segmentation(pred, truth, task.config.labels, spacing_mm, surfaces), pred, truth


def _test_segment(
    options: Finetune, setup: Setup, task: Segment, fabric: Fabric
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    from medssl.stages.finetune_write import write_prediction

    rows = setup.subset.test
    shown = set(_spread(len(rows)))
    dice, hd95 = [], []
    samples: dict[str, np.ndarray] = {}
    for place, (row, scores, pred, truth) in enumerate(_segmented(setup, task, fabric, rows, surfaces=True)):
        dice.append(scores["dice"])
        hd95.append(scores["hd95"])
        if options.predictions:
            write_prediction(options.out / "predictions", setup.store, row, pred)
        if place in shown:
            i = len(samples) // 3
            cut = _best_slice(truth if truth.any() else pred)
            image = _shown(setup.store.normalised(row), setup, row, cut)
            samples |= {f"image.{i}": image, f"truth.{i}": _cut(truth, cut), f"prediction.{i}": _cut(pred, cut)}
    _write_samples(options, samples)
    table = {"dice": np.array(dice), "hd95": np.array(hd95)}
    columns = {f"{name}.{s}": values[:, k] for name, values in table.items() for k, s in enumerate(setup.truth.classes)}
    metrics = {name: mean_over_items(values) for name, values in table.items()}
    for column, values in columns.items():
        metrics[column] = mean_over_items(values[:, None])
    # A structure that is missed or invented has no surface distance: so many were left out of the mean.
    both_or_one = ~np.isnan(table["dice"])
    metrics["hd95_undefined"] = float((both_or_one & np.isnan(table["hd95"])).sum())
    return metrics, columns


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
