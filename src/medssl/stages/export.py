"""What a finished pre-training leaves: an encoder that says how it wants its images, and pictures for the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save

from medssl import files
from medssl.config import ModelConfig, to_table
from medssl.contract import Batch, Method
from medssl.data.catalog import LABEL
from medssl.data.store import Store
from medssl.engine.machine import versions
from medssl.loading import WEIGHTS
from medssl.networks.norms import evaluating
from medssl.networks.weights import export_state
from medssl.rng import Rng
from medssl.stages.monitor import Monitor
from medssl.stages.towers import write_towers

CARD = "encoder.json"


def write_encoder(
    run: Path,
    method: Method,
    store: Store,
    name: str,
    steps: int,
    transductive: bool,
    patience: Mapping[str, Any] | None = None,
) -> None:
    """encoder.safetensors and encoder.json: architecture, preprocessing contract, data hash. No ids, dates, paths.

    ``steps`` of the encoder that is written; ``patience``: how probes chose it, if they did.
    """
    files.write_bytes(run / WEIGHTS, save(export_state(method.encoder)))
    card: dict[str, Any] = {
        "format": files.FORMAT,
        "encoder": {key: value for key, value in to_table(method.config).items() if key in _common()},
        "preprocessing": store.plan.contract(),
        "data_hash": store.hash,
        "method": name,
        "steps": steps,
        "transductive": transductive,
        "medssl": versions()["medssl"],
    }
    if patience:
        card["patience"] = dict(patience)
    own = {key: value for key, value in to_table(method.config).items() if key not in _common()}
    card["method_config"] = own
    if hasattr(method, "kinds"):  # of towers; not every method that compares modalities has one for each
        card["towers"] = write_towers(run, method)
    files.write_json(run / CARD, card)


def write_samples(run: Path, method: Method, batch: Batch, seed: int) -> None:
    """samples.npz: what the method made of a few training images; nothing where it has nothing to show."""
    show: Any = getattr(method, "rebuild_samples", None)
    if show is None:
        return
    with evaluating(method):
        arrays = show(method.views(batch, Rng(seed, 0)))
    small: dict[str, Any] = {name: _small(value) for name, value in arrays.items()}
    with files.atomic(run / "samples.npz") as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **small)


def write_embedding(run: Path, monitor: Monitor, features: np.ndarray) -> None:
    """embedding.npz: features (n, d), the probed label and the split of each watched scan; no ids."""
    frame = monitor.store.items[monitor.rows]
    column = LABEL + monitor.label
    labels = frame[column].cast(pl.String).fill_null("").to_list() if column in frame.columns else [""] * len(frame)
    with files.atomic(run / "embedding.npz") as temporary, temporary.open("wb") as handle:
        split = np.array(frame["split"].to_list(), dtype=str)
        np.savez(handle, features=features, label=np.array(labels, dtype=str), split=split)


def _common() -> set[str]:
    return set(to_table(ModelConfig()))


def _small(value: Any) -> np.ndarray:
    array = value.detach().float().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return array.astype(np.float16) if array.dtype == np.float32 else array
