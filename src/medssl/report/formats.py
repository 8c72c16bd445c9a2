"""What reports read, and what must be in it: a damaged file is told by name, with what is wrong and its remedy."""

import json
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import polars as pl

from medssl.errors import UserError
from medssl.files import read_json, read_toml
from medssl.value_types import misfit

Number = float | None  # null where a score is undefined
Interval = tuple[Number, Number]
AGAIN = "give the same `medssl study` command again: it is written anew"
RUN_AGAIN = "delete the folder of this run and give the same command again"
REMEDIES = {
    "verdict.json": AGAIN,
    "data.json": AGAIN,
    "results.jsonl": AGAIN,
    "result.json": RUN_AGAIN,
    "predictions.parquet": RUN_AGAIN,
    "retrieval.json": "run `medssl evaluate retrieval` again",
    "zeroshot.json": "run `medssl evaluate zeroshot` again",
    "encoder.json": "copy it again from the run that wrote the weights",
    "run.toml": "correct it, or choose another --out and train anew",
    "study.toml": "correct it, or delete it and give the same `medssl study` command again: finished runs are kept",
}


class RunRecord(TypedDict, total=False):
    """run.toml."""

    method: str
    options: dict[str, Any]
    data: dict[str, Any]
    versions: dict[str, str]


class StudyRecord(TypedDict):
    """study.toml."""

    options: "StudyOptions"
    pretrain: dict[str, dict[str, Any]]
    finetune: dict[str, Any]
    pretrainings: NotRequired[dict[str, int]]
    data: NotRequired[dict[str, Any]]
    versions: NotRequired[dict[str, str]]


class StudyOptions(TypedDict):
    """What may grow when a study is extended."""

    seeds: int
    n_labels: list[int | Literal["all"]]
    arms: list[str]


class Course(TypedDict):
    """How probes chose the encoder of a pre-training that ended at a step, of so many."""

    probes: int
    ended: int
    of: int


class EncoderCard(TypedDict, total=False):
    """encoder.json."""

    method: str
    steps: int
    encoder: dict[str, Any]
    preprocessing: dict[str, Any]
    patience: Course


class Score(TypedDict):
    """What a study takes from result.json."""

    metric: str
    value: Number
    metrics: dict[str, Number]
    test_hash: str


class Case(TypedDict):
    """A network shown some of the modalities that it knows, or another one."""

    n: int
    patients: int
    value: Number
    interval: Interval
    metrics: dict[str, Number]
    difference: NotRequired[Number]
    difference_interval: NotRequired[Interval]


class Modalities(TypedDict):
    """What result.json says of them."""

    names: list[str]
    same: bool
    all: Case
    alone: NotRequired[dict[str, Case]]
    left_out: NotRequired[dict[str, Case]]
    tested_on: NotRequired[dict[str, Case]]


class Result(Score):
    """result.json."""

    task: str
    target: str
    init: str
    n_labels: int
    n_train: int
    n_val: int
    n_test: int
    classes: NotRequired[list[str]]
    structures: NotRequired[list[str]]
    modalities: NotRequired[Modalities]


class Row(TypedDict):
    """A line of results.jsonl."""

    arm: str
    n_labels: int
    seed: int
    pretraining: NotRequired[int]  # 1 where an arm has but one
    metrics: dict[str, Number]
    key: NotRequired[str]
    run: NotRequired[str]  # none where it is known from an earlier study
    test_hash: NotRequired[str]


class Check(TypedDict):
    """A leak check."""

    check: str
    ok: bool | None
    detail: str


class Split(TypedDict):
    """One side of the split."""

    patients: int
    scans: int
    hash: str


class Data(TypedDict):
    """data.json."""

    data_hash: str
    scans: int
    patients: int
    modalities: dict[str, int]
    shape: list[float]
    spacing_mm: list[float]
    masks: int
    labels: dict[str, dict[str, int]]
    splits: dict[str, Split]
    checks: list[Check]
    preprocessing: dict[str, Any]


class Retrieval(TypedDict):
    """retrieval.json."""

    transductive: bool
    directions: list[dict[str, Any]]
    joint: dict[str, Any]


class ZeroShot(TypedDict):
    """zeroshot.json."""

    transductive: bool
    target: str
    prompts: dict[str, Any]
    modalities: dict[str, dict[str, Any]]


def table(path: Path, kind: Any) -> dict[str, Any]:
    """A TOML or JSON file of that kind; empty where there is none."""
    if not path.exists():
        return {}
    try:
        found = read_toml(path) if path.suffix == ".toml" else read_json(path)
    except UserError as error:
        raise damaged(path, error.what) from None
    checked(found, kind, path)
    return found


def checked(value: Any, kind: Any, path: Path) -> None:
    """Refuse a value that is not of its kind, by the name of what is wrong in it."""
    place = misfit(value, kind)
    if place is not None:
        raise damaged(path, f"'{place}' is missing or of another type" if place else "not a table of keys and values")


def lines(path: Path, kind: Any) -> list[dict[str, Any]]:
    """Rows of a .jsonl file, every one of that kind; none where there is no file."""
    found = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise damaged(path, f"line {number} is not valid JSON: {error}") from None
        place = misfit(row, kind)
        if place is not None:
            raise damaged(path, f"'{place or 'all'}' in line {number} is missing or of another type")
        found.append(row)
    return found


def frame(path: Path, fix: str | None = None) -> pl.DataFrame:
    """A parquet file; empty where there is none. ``fix`` is what helps where it is damaged, if not the usual."""
    try:
        return pl.read_parquet(path) if path.exists() else pl.DataFrame()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise damaged(path, str(error).splitlines()[0], fix) from None


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz file; empty where there is none. Pictures only: a damaged one is told of and left out."""
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error):
        told = f"warning: {path} is damaged and left out of the report: copy it again, or delete it"
        print(told, file=sys.stderr)
        return {}


def damaged(path: Path, what: str, fix: str | None = None) -> UserError:
    """The error of a file that is not what medssl wrote."""
    fix = fix or REMEDIES.get(path.name, "copy it again, or delete it")
    return UserError(f"{path.name} is damaged: {what}", path, fix)
