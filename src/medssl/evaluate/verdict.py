"""Does pre-training help? One sentence with its interval for every arm and number of labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medssl.errors import UserError
from medssl.evaluate.interval import Estimate, estimate, resample, score_all, scorer
from medssl.rng import stream

BASELINE = "scratch"
METRIC_NAMES = {"auc": "AUC", "dice": "Dice"}
# A study whose interval just reaches its goal half of the time reaches it in 4 of 5 times with this much less width.
_POWER = 1.96 / (1.96 + 0.84)


@dataclass(frozen=True)
class ScoredRun:
    """One fine-tuned run of a study: its arm, number of labels, seed, and the predictions on the test patients.

    These are a table, or the file with it.
    """

    arm: str
    n_labels: int
    seed: int
    predictions: Path | pl.DataFrame = field(compare=False)


def verdict(
    runs: Sequence[ScoredRun], *, task: str, margin: float = 0.01, seed: int = 0, transductive: bool = False
) -> dict[str, Any]:
    """What a study says, as verdict.json keeps it.

    Every arm is compared to the arm ``scratch`` at equal label counts: same subsets, same test patients. Intervals
    are 95 % each (see `interval`); with several of them some exclude zero by chance, so each comparison also tells
    whether it holds for all at once (Bonferroni), and ``note`` says how many there are.
    """
    if not runs:
        raise UserError("no finished runs to compare", fix="see the messages of the runs that failed")
    metric = "auc" if task == "classify" else "dice"
    tables = {run: _predictions(run.predictions) for run in runs}
    patients = _same_patients(tables)
    arms = list(dict.fromkeys(run.arm for run in runs))
    counts = sorted({run.n_labels for run in runs})
    others = [arm for arm in arms if arm != BASELINE]
    many = max(1, sum(any((r.arm, r.n_labels) == (a, n) for r in runs) for a in others for n in counts))
    levels, weights = [], None
    for n, group in groupby(sorted(runs, key=lambda run: run.n_labels), key=lambda run: run.n_labels):
        scored = {(run.arm, run.seed): scorer(tables[run], metric, patients) for run in group}
        needed = next(iter(scored.values())).needed
        if weights is None:
            weights = resample(needed, stream(seed, "bootstrap", "patients"))
        full, again = score_all(list(scored.values()), weights)
        columns = {key: (full[i], again[:, i]) for i, key in enumerate(scored)}
        levels.append(_at_count(n, arms, columns, needed, metric, margin, many, seed))
    return {
        "task": task,
        "metric": metric,
        "margin": margin,
        "test_patients": len(patients),
        "transductive": transductive,
        "labels": levels,
        "reach": _labels_to_reach(levels, others),
        "sentence": _overall(levels, others, metric),
        "note": " ".join(filter(None, (_note(levels, many), _unlearnt(levels, metric)))),
    }


def _at_count(
    n: int,
    arms: list[str],
    columns: dict[tuple[str, int], tuple[float, np.ndarray]],
    needed: np.ndarray,
    metric: str,
    margin: float,
    many: int,
    seed: int,
) -> dict[str, Any]:
    """All that is said at one label count."""
    seeds = {arm: sorted(s for a, s in columns if a == arm) for arm in arms}
    scores = {arm: [columns[arm, s][0] for s in seeds[arm]] for arm in arms if seeds[arm]}
    bands, comparisons = {}, []
    for arm in scores:
        full, again = (np.stack([columns[arm, s][i] for s in seeds[arm]], axis=-1) for i in (0, 1))
        alone = estimate(full, again, needed, stream(seed, "bootstrap", arm, n))
        bands[arm] = {"mean": alone.mean, "interval": list(_within(alone.interval(), 0.0, 1.0))}
        paired = [s for s in seeds[arm] if (BASELINE, s) in columns]
        if arm == BASELINE or not paired:
            continue
        full, again = (
            np.stack([columns[arm, s][i] - columns[BASELINE, s][i] for s in paired], axis=-1) for i in (0, 1)
        )
        difference = estimate(full, again, needed, stream(seed, "bootstrap", arm, BASELINE, n))
        comparisons.append(_compare(arm, n, difference, metric, margin, many))
    return {"n_labels": n, "scores": scores, "arms": bands, "comparisons": comparisons}


def _compare(arm: str, n: int, difference: Estimate, metric: str, margin: float, many: int) -> dict[str, Any]:
    interval = _within(difference.interval(), -1.0, 1.0)
    word = judge(interval, margin, difference.seeds)
    wide = difference.interval(1 - 0.05 / many)
    advice = what_it_takes(difference, margin) if word == "cannot tell" else ""
    numbers = f"{METRIC_NAMES[metric]} {_signed(difference.mean)} (95 % interval {_range(interval)}; "
    numbers += f"{_count(difference.seeds, 'seed')}, {_count(difference.patients, 'test patient')})"
    start = f"With {_count(n, 'labelled patient')}, "
    sentence = {
        "helped": f"{start}{arm} helped: {numbers}.",
        "harmed": f"{start}{arm} harmed: {numbers}.",
        "did not help": f"{start}{arm} did not help: {numbers}, within ±{_plain(margin)}.",
        "cannot tell": f"{start}one cannot tell whether {arm} helps: {numbers}. {advice}",
    }[word]
    return {
        "arm": arm,
        "against": BASELINE,
        "difference": difference.mean,
        "interval": list(interval),
        "verdict": word,
        "sentence": sentence,
        "seeds": difference.seeds,
        "holds_for_all": word in ("helped", "harmed") and judge(wide, 0.0, difference.seeds) == word,
        "variance": {
            "seed": difference.spread.seed,
            "patient": difference.spread.patient,
            "rest": difference.spread.rest,
        },
    }


def _within(interval: tuple[float, float], least: float, most: float) -> tuple[float, float]:
    """Student's t knows no bounds, but scores lie in [0, 1]; what is unknown stays infinite."""
    low, high = interval
    return (max(low, least), min(high, most)) if math.isfinite(high - low) else interval


def judge(interval: tuple[float, float], margin: float, seeds: int = 2) -> str:
    """The word for an interval of the difference. One seed cannot tell: it does not know how much seeds differ."""
    low, high = interval
    if seeds < 2:
        return "cannot tell"
    if low > 0:
        return "helped"
    if high < 0:
        return "harmed"
    return "did not help" if -margin <= low and high <= margin else "cannot tell"


def what_it_takes(difference: Estimate, margin: float) -> str:
    """A sentence: how many seeds or test patients would tell in 4 of 5 studies, if the effect is as it looks."""
    if difference.seeds < 2:
        return "One seed shows nothing of how much seeds differ: take at least 3."
    if not len(difference.draws) or difference.patients < 2:
        return "The test split has too few patients, or too few of one class: index more of them."
    effect = abs(difference.mean)
    # Either the effect is there and zero must be excluded, or it is not and the interval must fit the margin.
    goal = max(effect, margin - effect) * _POWER
    now, patients, spread = difference.seeds, difference.patients, difference.spread
    seeds_needed = _smallest(lambda f: spread.half_width(f * now, patients) <= goal, 200 / now)
    patients_needed = _smallest(lambda f: spread.half_width(now, f * patients) <= goal, 1000)
    both = _smallest(lambda f: spread.half_width(f * now, f * patients) <= goal, 1000)
    ways = []
    if seeds_needed:
        ways.append(_count(math.ceil(seeds_needed * now), "seed"))
    if patients_needed:
        ways.append(f"{_count(_rounded(patients_needed * patients), 'test patient')}")
    if not ways and both:
        ways = [f"{math.ceil(both * now)} seeds with {_rounded(both * patients)} test patients"]
    if not ways:
        return "No number of seeds and patients within reach would tell an effect this small."
    return f"About {' or '.join(ways)} (now {now} and {patients}) would probably tell."


def _smallest(enough: Any, most: float) -> float | None:
    """The smallest factor above 1 that is enough, in steps of 5 %."""
    factor = 1.05
    while factor <= max(most, 1.05):
        if enough(factor):
            return factor
        factor *= 1.05
    return None


def _predictions(source: Path | pl.DataFrame) -> pl.DataFrame:
    try:
        table = source if isinstance(source, pl.DataFrame) else pl.read_parquet(source)
        return table.cast({"item": pl.String, "patient": pl.String}).with_row_index().sort("item")
    except (OSError, pl.exceptions.PolarsError):
        what, fix = "predictions are missing or unreadable", "delete the run's folder, run again"
        raise UserError(what, None if isinstance(source, pl.DataFrame) else source, fix) from None


def _same_patients(tables: dict[ScoredRun, pl.DataFrame]) -> list[str]:
    first = next(iter(tables.values()))
    for run, table in tables.items():
        if not table["item"].equals(first["item"]):
            fix = "the data changed between runs: make the study anew in another --out"
            which = f"{run.arm}, {run.n_labels} labels, seed {run.seed}"
            raise UserError("runs were tested on different scans", which, fix)
    # In the order of the files, not of ids: those are salted, and the bootstrap would differ by who indexed the scans.
    return first.sort("index")["patient"].unique(maintain_order=True).to_list()


def _labels_to_reach(levels: list[dict[str, Any]], arms: list[str]) -> list[dict[str, Any]]:
    """For each arm: with how many labels it scores what scratch scores with the most, between counts that were run."""
    curve = {arm: [(at["n_labels"], at["arms"][arm]["mean"]) for at in levels if arm in at["arms"]] for arm in arms}
    goals = [(at["n_labels"], at["arms"][BASELINE]["mean"]) for at in levels if BASELINE in at["arms"]]
    if len(goals) < 2:
        return []
    n_goal, goal = goals[-1]
    found = []
    for arm, points in curve.items():
        for (n0, y0), (n1, y1) in pairwise(points):
            if y0 < goal <= y1:  # straight between counts on a logarithmic axis, as the curve is drawn
                share = (goal - y0) / (y1 - y0)
                found.append({"arm": arm, "score": goal, "of": n_goal, "labels": n0 * (n1 / n0) ** share})
                break
    return found


def _overall(levels: list[dict[str, Any]], arms: list[str], metric: str) -> str:
    """The verdict in one sentence an arm, label counts of one word together; a single comparison speaks for itself."""
    found = [(at["n_labels"], c) for at in levels for c in at["comparisons"]]
    if len(found) == 1:
        return found[0][1]["sentence"]
    sentences = []
    for arm in arms:
        parts = []
        for word in ("helped", "harmed", "did not help", "cannot tell"):
            said = [(str(n), _signed(c["difference"])) for n, c in found if (c["arm"], c["verdict"]) == (arm, word)]
            if said:
                counts, changes = (_listed(words) for words in zip(*said, strict=True))
                where = f"with {counts} labelled patients ({METRIC_NAMES[metric]} {changes})"
                parts.append(
                    f"whether it helps {where} cannot be told" if word == "cannot tell" else f"it {word} {where}"
                )
        if parts:
            sentences.append(f"Pre-training by {arm}: {'; '.join(parts)}.")
    return " ".join(sentences) or "No arm was compared to scratch."


def _note(levels: list[dict[str, Any]], many: int) -> str:
    clear = [c for at in levels for c in at["comparisons"] if c["verdict"] in ("helped", "harmed")]
    if many == 1:
        return "One comparison, so its 95 % interval needs no correction."
    firm = sum(c["holds_for_all"] for c in clear)
    text = f"{many} comparisons were made; each interval is 95 % on its own."
    if clear:
        text += f" Corrected for their number (Bonferroni), {firm} of {len(clear)} clear verdicts stay clear."
    return text


def _unlearnt(levels: list[dict[str, Any]], metric: str) -> str:
    """Arms that all failed do not differ either; that must not pass for a finding."""
    floor = {"dice": 0.1, "auc": 0.55}[metric]
    lost = [at["n_labels"] for at in levels if all(band["mean"] < floor for band in at["arms"].values())]
    if not lost:
        return ""
    counts = _listed([str(n) for n in lost])
    return f"With {counts} labelled patients no arm learnt the task: train for more steps before comparing."


def _signed(x: float) -> str:
    return f"{x:+.3f}".replace("-", "−")


def _range(interval: Sequence[float]) -> str:
    return " to ".join(_signed(x) if math.isfinite(x) else "unknown" for x in interval)


def _plain(x: float) -> str:
    return f"{x:.3f}".rstrip("0").rstrip(".")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _rounded(x: float) -> int:
    """Two digits: an estimate of a sample size deserves no more."""
    digits = max(0, len(str(int(x))) - 2)
    return int(math.ceil(x / 10**digits) * 10**digits)
