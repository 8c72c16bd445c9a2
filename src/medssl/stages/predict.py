"""`medssl predict`: what a fine-tuned network says of scans.

PREDICTIONS/predict.json (what is asked of what), predictions.csv (last; a row a scan), and of a segmenter masks/.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from lightning.fabric import Fabric

from medssl import files
from medssl.data.content import Contents
from medssl.data.progress import progress
from medssl.data.readers import read_volume, reader_of
from medssl.data.store import Store
from medssl.data.whole import WholeItems
from medssl.engine import machine
from medssl.errors import UserError, raise_all
from medssl.fine_tuned import Classifier, Segmenter, load_finetuned, stamp
from medssl.loading import check_preprocessing
from medssl.stages.answers import BATCH, mask_values, probabilities
from medssl.stages.finetune_modalities import scan_plan, store_of
from medssl.stages.finetune_write import mask_file, write_prediction
from medssl.stages.limits import out_of_range
from medssl.stages.options.train import Predict
from medssl.volume import Volume

Columns = dict[str, list[Any]]


def run(options: Predict) -> Path:
    """Predict every scan that is asked for; returns the folder. Masks that are there already are kept."""
    raise_all(out_of_range(options))
    hardware = machine.choose(options.device, options.precision, options.threads)
    model = load_finetuned(options.run)
    store = _shown(options.data, model.task.config.modalities)
    check_preprocessing(scan_plan(store), model.card["preprocessing"], options.run, "the network expects")
    rows = [row for row, split in enumerate(store.items["split"]) if options.split in ("all", split)]
    if not rows:
        raise UserError(f"no scan is in the split {options.split}", options.data, "choose another --split")
    asked = {
        "format": files.FORMAT,
        "network": stamp(options.run),
        "scans": Contents(store).of(range(len(store)), store.items["item"].to_list()),  # and where each one lies
        "precision": hardware.precision,
        "split": options.split,
    }
    with files.locked(options.out, "PREDICTIONS"):
        _settle(options.out, asked)
        fabric = machine.make_fabric(hardware)
        machine.place(fabric, model.task, store.plan.dims)
        if isinstance(model, Classifier):
            columns = _classified(model, fabric, store, rows)
        else:
            columns = _segmented(model, fabric, store, rows, options.out)
        told = [name for name in ("item", "path", "patient", "split") if name in store.items.columns]
        frame = store.items[rows].select(told).with_columns(pl.Series(k, v) for k, v in columns.items())
        with files.atomic(options.out / "predictions.csv") as path:
            frame.write_csv(path, float_precision=6)
    print(f"{len(rows)} scans: {options.out / 'predictions.csv'}", file=sys.stderr)
    return options.out


def _shown(data: Path, modalities: tuple[str, ...]) -> Store:
    """The scans, or the patients that have scans of what the network takes together."""
    there = Store(data).modality_names if modalities else []
    if missing := [name for name in modalities if name not in there]:
        what = f"the network takes {' and '.join(modalities)}, and no scan is of '{missing[0]}'"
        raise UserError(what, data, f"there are {', '.join(name or 'scans of no modality' for name in there)}")
    return store_of(data, modalities)


def _settle(out: Path, asked: dict[str, Any]) -> None:
    """One network and one set of scans a folder: masks of two would lie side by side."""
    path = out / "predict.json"
    if path.exists():
        before = files.read_json(path)
        files.check_format(before, path)
        other = [name for name in ("network", "scans", "precision") if before.get(name) != asked[name]]
        if other:
            what = f"the folder holds predictions by other {' and '.join(other)}"
            raise UserError(what, out, "choose another --out, or delete it")
        if before != asked:  # of another split: not what is asked for until all of it is there
            (out / "predictions.csv").unlink(missing_ok=True)
    files.write_json(path, asked)


def _classified(model: Classifier, fabric: Fabric, store: Store, rows: list[int]) -> Columns:
    """Probabilities, a column a class."""
    config, found = model.task.config, []
    parts = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    with progress("predict", len(parts)) as step:
        for part in parts:
            found.append(probabilities(model.task, fabric, WholeItems(store, part, config.size)))
            step()
    return {f"prob.{name}": list(column) for name, column in zip(config.classes, np.concatenate(found).T, strict=True)}


def _segmented(model: Segmenter, fabric: Fabric, store: Store, rows: list[int], out: Path) -> Columns:
    """Masks as files; where each lies, and how large its structures are."""
    columns: Columns = {"mask": []}
    with progress("predict", len(rows)) as step:
        for row in rows:
            path = mask_file(out / "masks", store, row)
            if not path.exists():
                write_prediction(path.parent, store, row, mask_values(model.task, fabric, store, row))
            columns["mask"].append(path.relative_to(out).as_posix())
            mask = read_volume({"reader": reader_of(path.name), "files": [path.name], "member": 0}, path.parent)
            for name, size in _sizes(mask, model.task.config.labels).items():
                columns.setdefault(name, []).append(size)
            step()
    return columns


def _sizes(mask: Volume, labels: tuple[int, ...]) -> dict[str, float]:
    """Millilitres of each structure of a volume, pixels of an image's."""
    counts = {label: int((mask.array == label).sum()) for label in labels}
    if mask.dims == 2:
        return {f"pixels.{label}": count for label, count in counts.items()}
    voxel_ml = abs(np.linalg.det(mask.affine[:3, :3])) / 1000
    return {f"ml.{label}": count * voxel_ml for label, count in counts.items()}
