"""What a study says as a whole: its headline, and what a reader must know to take it for no more than it is."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from medssl.evaluate.compare import BASELINE, METRIC_NAMES
from medssl.wording import counted, listed, signed

Level = dict[str, Any]
MANY = 3  # arms; above that a sentence an arm is too much to read


def headline(levels: Sequence[Level], arms: Sequence[str], metric: str) -> str:
    """The verdict in a sentence or a few; a single comparison speaks for itself."""
    found = [(at["n_labels"], c) for at in levels for c in at["comparisons"]]
    if not found:
        return "No arm was compared to scratch."
    if len(found) == 1:
        return found[0][1]["sentence"]
    if len({c["arm"] for _, c in found}) > MANY:
        return _by_count([at for at in levels if at["comparisons"]], metric)
    return " ".join(_of_arm(arm, found, metric) for arm in arms if any(c["arm"] == arm for _, c in found))


def _of_arm(arm: str, found: Sequence[tuple[int, dict[str, Any]]], metric: str) -> str:
    """One arm, label counts of one word together."""
    parts: list[str] = []
    for word in ("helped", "harmed", "did not help", "cannot tell"):
        said = [(n, signed(c["difference"])) for n, c in found if (c["arm"], c["verdict"]) == (arm, word)]
        if not said:
            continue
        counts, changes = (listed(words) for words in zip(*said, strict=True))
        change = f"({METRIC_NAMES[metric]} {changes})"
        if word != "cannot tell":
            parts.append(f"{word} with {counts}{'' if parts else ' labelled patients'} {change}")
        elif parts:
            return f"Pre-training by {arm} {listed(parts)}; with {counts} one cannot tell {change}."
        else:
            return f"With {counts} labelled patients, one cannot tell whether {arm} helps {change}."
    return f"Pre-training by {arm} {listed(parts)}."


def _by_count(levels: Sequence[Level], metric: str) -> str:
    """All arms, label counts of which the same is to be said together."""
    found = []
    for said, alike in groupby(levels, _of_count):
        counts = [at["n_labels"] for at in alike]
        noun = "labelled patient" if counts == [1] else "labelled patients"
        unit = f" ({METRIC_NAMES[metric]})" if "(" in said else ""
        found.append(f"With {listed(counts)} {noun}{unit}: {said}.")
    return " ".join(found)


def _of_count(at: Level) -> str:
    """Arms of one word together, the best first; those of which one cannot tell are counted."""
    parts = []
    for word in ("helped", "harmed", "did not help"):
        said = sorted((c for c in at["comparisons"] if c["verdict"] == word), key=lambda c: -c["difference"])
        if said:
            names = [f"{c['arm']} ({signed(c['difference'])})" for c in said]
            parts.append(f"{listed(names)} {word}")
    unclear = [c["arm"] for c in at["comparisons"] if c["verdict"] == "cannot tell"]
    if len(unclear) == 1:
        parts.append(f"{unclear[0]} is not clearly better or worse than scratch")
    elif unclear:
        rest = f"the other {len(unclear)} are not" if parts else f"none of {len(unclear)} arms is"
        parts.append(f"{rest} clearly better or worse than scratch")
    return "; ".join(parts)


def notes(levels: Sequence[Level], metric: str, patients: int) -> list[str]:
    """The correction, what the intervals hold, what the study could not have seen, and whether it learnt at all."""
    found = [correction(levels), held(levels), power(levels, metric, patients), unlearnt(levels, metric)]
    return [note for note in found if note]


def correction(levels: Sequence[Level]) -> str:
    """How many comparisons the words are corrected for."""
    many = [c["compared"] for at in levels for c in at["comparisons"]]
    if max(many, default=1) < 2:
        return "One arm is compared with scratch at each label count, so its 95 % interval needs no correction."
    text = f"At each label count {max(many)} arms are compared with scratch. The words rest on intervals and p values"
    return f"{text} corrected for that number (Holm); each 95 % interval is the one of its comparison alone."


def held(levels: Sequence[Level]) -> str:
    """Which chance the intervals hold, and which they do not."""
    times = {
        arm: band["pretrainings"]
        for at in levels
        for arm, band in at["arms"].items()
        if arm != BASELINE and band["seeds"] > 1
    }
    if not times:
        return "Intervals hold the chance of test patients only: one seed shows nothing of how much seeds differ."
    several = [f"{arm} ({n} pre-trainings)" for arm, n in times.items() if n > 1]
    text = "Intervals hold the chance of test patients and of fine-tuning seeds (label subset, head or decoder)"
    if not several:
        return f"{text}; not that of pre-training and of the first weights it began with: both were drawn once an arm."
    once = " Other arms were pre-trained once: their intervals do not." if len(several) < len(times) else ""
    return f"{text}, those of {listed(several)} also that of pre-training.{once}"


def power(levels: Sequence[Level], metric: str, patients: int) -> str:
    """The gain that such a study sees four times in five, in the middle of its arms."""
    parts, seeds = [], set()
    for at in levels:
        seen = [c["detectable"] for c in at["comparisons"] if np.isfinite(c["detectable"])]
        if seen:
            parts.append(f"{np.median(seen):.3f} with {at['n_labels']}")
            seeds |= {c["seeds"] for c in at["comparisons"] if np.isfinite(c["detectable"])}
    if not parts:
        return ""
    size = f"With {counted(patients, 'test patient')} and {counted(min(seeds), 'seed')}"
    text = f"{size}, a gain in {METRIC_NAMES[metric]} of {listed(parts)} labelled patients would be seen"
    return f"{text} in 4 of 5 such studies (median of the arms), a smaller one less often."


def unlearnt(levels: Sequence[Level], metric: str) -> str:
    """Arms that all failed do not differ either; that must not pass for a finding."""
    floor = {"dice": 0.1, "auc": 0.55}[metric]
    lost = [at["n_labels"] for at in levels if all(band["mean"] < floor for band in at["arms"].values())]
    if not lost:
        return ""
    return f"With {listed(lost)} labelled patients no arm learnt the task: train for more steps before comparing."
