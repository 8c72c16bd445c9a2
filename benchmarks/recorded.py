"""Recorded runs of docs/results/data: those that are asked for, their verdict today, and figures as pages have them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medssl.evaluate.scorers import scorer
from medssl.report import ledger
from medssl.stages.judge import judged
from medssl.wording import signed, span

KNOWN = {"arms", "labels", "pairs", "base"}


@dataclass(frozen=True)
class Asked:
    """What a marker asks for; ``arms`` and ``labels`` empty: all."""

    study: str
    arms: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    base: str = ""

    @classmethod
    def of(cls, text: str) -> "Asked":
        study, *rest = (part.strip() for part in text.split(";"))
        rest = [words for words in rest if words]
        told = {words.split()[0]: tuple(words.split()[1:]) for words in rest}
        if unknown := set(told) - KNOWN:
            raise SystemExit(f"a marker asks for {', '.join(sorted(unknown))}: it takes {', '.join(sorted(KNOWN))}")
        labels = tuple(map(int, told.get("labels", ())))
        pairs = tuple((a, b) for a, _, b in (pair.partition(":") for pair in told.get("pairs", ())))
        return cls(study, told.get("arms", ()), labels, pairs, " ".join(told.get("base", ())))

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of results.jsonl is among them."""
        return (not self.arms or row["arm"] in self.arms) and (not self.labels or row["n_labels"] in self.labels)


def judge(asked: Asked, data: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows that are asked for, and their verdict."""
    rows, predictions = scored(asked, data)
    task = "classify" if rows[0]["metric"] == "auc" else "segment"
    return rows, judged(ledger.Ledger(rows, predictions), task=task, beside=asked.pairs)


def scored(asked: Asked, data: Path) -> tuple[list[dict[str, Any]], dict[str, pl.DataFrame]]:
    """The rows that are asked for, and predictions by key. Values are today's, rows may hold older ones."""
    found = ledger.read(data / asked.study)
    rows = [row for row in found.rows if asked.takes(row)]
    missing = set(asked.arms) - {row["arm"] for row in rows}
    if missing or not rows:
        raise SystemExit(f"{data / asked.study} has no rows of {', '.join(sorted(missing)) or 'what is asked for'}")
    patients = sorted(found.predictions[rows[0]["key"]]["patient"].unique())
    everyone = np.ones((1, len(patients)))
    values = [scorer(found.predictions[row["key"]], row["metric"], patients)(everyone)[0] for row in rows]
    return [row | {"value": float(value)} for row, value in zip(rows, values, strict=True)], found.predictions


def difference(compared: Mapping[str, Any]) -> str:
    """A difference with its interval, and the word of the verdict where there is one."""
    word = "" if compared["verdict"] == "cannot tell" else f" **{compared['verdict']}**"
    return f"{plain_difference(compared)}{word}"


def plain_difference(compared: Mapping[str, Any]) -> str:
    """A difference with its interval."""
    return f"{short(signed(compared['difference']))} ({short(span(compared['interval'], signed))})"


def short(text: str) -> str:
    """Numbers without the zero before their point."""
    return re.sub(r"(?<!\d)0\.(?=\d)", ".", text)


def p_value(p: float) -> str:
    """A p value with two or three digits."""
    return "< .001" if p < 0.001 else short(f"{p:.3f}" if p < 0.01 else f"{p:.2f}") if p < 0.995 else "1"
