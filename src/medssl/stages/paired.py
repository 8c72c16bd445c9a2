"""What a method that compares modalities takes from the data: modalities, who belongs to whom, reports as tokens."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medssl.contract import Batch, Method
from medssl.data.pairing import about_pairs, subjects
from medssl.data.pairs import paired_batches
from medssl.data.positives import about_structures, class_labels
from medssl.data.sample import batches
from medssl.data.store import Store
from medssl.data.text import HuggingFaceTokenizer, Tokenizer
from medssl.distributed import world_size
from medssl.errors import UserError

TOKENIZER = "tokenizer.json"
Reader = Tokenizer | HuggingFaceTokenizer


@dataclass(frozen=True)
class Paired:
    """``subjects`` (len(store),) int64; ``text`` (len(rows), L) and ``labels`` (len(rows), k) of the training rows, or
    None; ``masks``: the method reads them."""

    subjects: np.ndarray
    text: np.ndarray | None
    labels: np.ndarray | None = None
    masks: bool = False


def from_data(
    kind: Any, settings: Mapping[str, Any] | None, store: Store, rows: Sequence[int]
) -> tuple[dict[str, Any], Reader | None]:
    """``settings`` with the options of ``kind`` that the data give, and the tokenizer of the training reports."""
    given = dict(settings or {})
    if not any(f.metadata.get("from") == "data" for f in fields(kind)):
        return given, None
    chosen = {f.name: given.get(f.name, f.default) for f in fields(kind)}
    given["modalities"] = store.modality_names
    if chosen["text"] == "vector":
        raise UserError("ready-made numbers are for a loop of your own", "--text", "choose tokens or none")
    reader: Reader | None = None
    if chosen["text"] == "tokens" and chosen["text_model"]:
        reader = HuggingFaceTokenizer(chosen["text_model"], chosen["text_length"])
    elif chosen["text"] == "tokens":
        texts = [store.items["text"][row] for row in rows]
        if not any(texts):
            raise UserError(
                "no training scan has a report", store.data, "index again with reports, or leave out --text"
            )
        reader = Tokenizer.train(texts, chosen["text_vocab"], chosen["text_length"])
    if reader is not None:
        given["text_size"] = reader.vocab
    return given, reader


def paired_data(
    method: Method, store: Store, rows: Sequence[int], by: str | None, reader: Reader | None = None, tell: bool = True
) -> Paired | None:
    """The pairs and reports of the training ``rows``; None for methods that look at each scan by itself."""
    if not method.paired:
        if by is not None:
            raise UserError("--pair-by is for methods that compare scans of a subject", fix="leave it out")
        return None
    subject = subjects(store, by)
    positives = getattr(method.config, "positives", "subject")
    compares = getattr(method.config, "objective", "align") == "align"
    told = about_pairs(store, rows, subject) if compares and positives == "subject" else []
    labels, tokens = None, None
    if positives == "label":
        labels, sentence = class_labels(store, rows, method.config.label, alone=reader is None)
        told.append(sentence)
    elif positives == "structure":
        told.append(about_structures(store, rows))
    if reader is not None:
        tokens, cut = reader.encode([store.items["text"][row] for row in rows])
        told += _about_reports(tokens.numpy(), cut, store.patients[np.asarray(rows)])
    for sentence in told if tell else []:
        print(sentence, file=sys.stderr)
    return Paired(subject, None if tokens is None else tokens.numpy(), labels, positives == "structure")


def _about_reports(tokens: np.ndarray, cut: int, patient: np.ndarray) -> list[str]:
    said = tokens.any(1)
    told = [f"reports: {said.sum()} of {len(tokens)} scans have one"]
    if cut:
        told[0] += f"; {cut} were cut to {tokens.shape[1]} tokens (--text-length)"
    kinds, content = np.unique(tokens[said], axis=0, return_inverse=True)
    patients = np.zeros(len(kinds), np.int64)
    np.add.at(patients, np.unique(np.stack([content.ravel(), patient[said]]), axis=1)[0], 1)
    if shared := int((patients[content.ravel()] > 1).sum()):
        told.append(f"reports: {shared} read as another patient's does; equal ones are not each other's negatives")
    return told


def check_batch(method: Method, store: Store, rows: Sequence[int], batch: int, in_step: bool = False) -> int:
    """Refuse batches that are too small to learn from; returns the smallest that is not. ``batch`` counts all ranks.

    Some never hold two samples of one modality, so that no sample has another subject to differ from; in some batch
    norm has nothing to average over: one sample whose coarsest map is one position. ``in_step``: its statistics are
    those of all ranks.
    """
    kinds = len(np.unique(store.modalities[np.asarray(rows)]))
    if method.paired and batch <= kinds:
        fix = f"give {kinds + 1} or more; {2 * kinds} hold two whole subjects"
        raise UserError(f"a batch of {batch} holds no two samples of one modality ({kinds} in all)", "--batch", fix)
    config, least = method.config, method.least * world_size()
    if batch < least:
        raise UserError(f"a batch of {batch}", "--batch", f"give {least} or more: fewer cannot be compared")
    strides: Any = method.encoder.strides
    if tuple(config.size) == tuple(strides[-1]) and config.norm == "batch":
        sets = 1 if in_step else getattr(config, "batch_groups", 1) * world_size()
        pairs = 2 * sets  # two samples for every set of statistics
        if batch < pairs:
            fix = f"give {pairs} or more, or --norm instance, or a larger --patch"
            raise UserError("one sample of the smallest patch", "--batch", fix)
        least = max(least, pairs)
    return max(least, kinds + 1 if method.paired else 1)


def sampler(pairs: Paired | None, foreground: float) -> Callable[..., Iterator[Batch]]:
    """What draws the batches: by subject where there are pairs; scan by scan, a share about foreground, elsewhere."""
    if pairs is None:
        return partial(batches, foreground=foreground)
    return partial(
        paired_batches, subjects=pairs.subjects, text=pairs.text, labels=pairs.labels, masks=pairs.masks
    )  # fmt: skip


def watched(method: Method, store: Store, rows: list[int]) -> list[int]:
    """Rows that ``method.encoder`` is made for: where each modality has an encoder of its own, the first one's."""
    if not method.paired or getattr(method.config, "share", "all") == "all":
        return rows
    return [row for row in rows if store.modalities[row] == 0] or rows


def save_reader(run: Path, reader: Reader | None) -> None:
    """Keep the tokenizer that was trained here with the run; a model of others has its own."""
    if isinstance(reader, Tokenizer):
        reader.save(run / TOKENIZER)
