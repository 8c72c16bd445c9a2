"""One arm against another at one label count: the runs that pair, the interval, the word, and what it would take."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medssl.evaluate.holm import holm
from medssl.evaluate.interval import POWER_80, Estimate
from medssl.wording import counted, listed, probability, rounded_up, signed, span

BASELINE = "scratch"
METRIC_NAMES = {"auc": "AUC", "dice": "Dice"}
# Against scratch the question is whether pre-training helps; against another arm, which of two is better.
WORDS = {"helped": "better", "harmed": "worse", "did not help": "no different", "cannot tell": "cannot tell"}

Run = tuple[str, int, int]  # arm, pre-training, seed
Column = tuple[np.ndarray, np.ndarray]
"""Scores of one run: on all patients (scores,), on resampled ones (n, scores)."""


# Runs that belong together -------------------------------------------------------------------------------------------


def block(cells: Mapping[tuple[int, int], Column]) -> Column | None:
    """(pretrainings, seeds, scores) and (n, pretrainings, seeds, scores) of runs {(pre-training, seed): scores}.

    Every pre-training with every seed: of an unfinished study the largest such part. None of no runs.
    """
    seeds_of: dict[int, set[int]] = {}
    for more, seed in cells:
        seeds_of.setdefault(more, set()).add(seed)
    order = sorted(seeds_of, key=lambda more: (-len(seeds_of[more]), more))
    parts = [(order[:i], set.intersection(*(seeds_of[more] for more in order[:i]))) for i in range(1, len(order) + 1)]
    if not parts:
        return None
    chosen, seeds = max(parts, key=lambda part: (len(part[0]) * len(part[1]), len(part[0])))
    rows = [[cells[more, seed] for seed in sorted(seeds)] for more in sorted(chosen)]
    full = np.array([[full for full, _ in row] for row in rows])
    again = np.stack([np.stack([again for _, again in row], 1) for row in rows], 1)
    return full, again


def pairs(columns: Collection[Run], arm: str, against: str) -> dict[tuple[int, int], tuple[Run, Run]]:
    """Runs of two arms on the same seed, by (pre-training, seed).

    Those of one number go together, for they began with the same first weights. Where no number is common, an arm that
    was pre-trained once stands against every pre-training of the other.
    """
    mine, theirs = ({more for name, more, _ in columns if name == each} for each in (arm, against))
    alone = not mine & theirs and 1 in (len(mine), len(theirs))
    both = [(m, t) for m in mine for t in theirs if m == t or alone]
    seeds = {seed for _, _, seed in columns}
    found = {(m if len(mine) > 1 else t, s): ((arm, m, s), (against, t, s)) for m, t in both for s in seeds}
    return {key: pair for key, pair in found.items() if pair[0] in columns and pair[1] in columns}


# Words ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A difference between two arms at ``n`` labels, with its p value and level corrected for ``compared`` of them."""

    arm: str
    against: str
    difference: Estimate
    n: int
    metric: str
    margin: float
    compared: int
    p: float
    level: float

    def record(self) -> dict[str, Any]:
        """As verdict.json keeps it."""
        spread, word = self.difference.spread, self._word()
        return {
            "arm": self.arm,
            "against": self.against,
            "difference": self.difference.mean,
            "interval": list(self._interval(0.95)),
            "p": self.difference.p(),
            "compared": self.compared,
            "corrected": {"p": self.p, "level": self.level, "interval": list(self._interval(self.level))},
            "verdict": word if self.against == BASELINE else WORDS[word],
            "sentence": self._sentence(word),
            "seeds": self.difference.seeds,
            "pretrainings": self.difference.pretrainings,
            "detectable": self.difference.detectable(self.level),
            "variance": {
                "seed": spread.seed,
                "patient": spread.patient,
                "rest": spread.rest,
                "pretraining": spread.pretraining if self.difference.pretrainings > 1 else None,
            },
        }

    def _interval(self, level: float) -> tuple[float, float]:
        return within(self.difference.interval(level), -1.0, 1.0)

    def _word(self) -> str:
        return judge(self._interval(self.level), self.margin, self.difference.seeds)

    def _sentence(self, word: str) -> str:
        start, beside = f"With {counted(self.n, 'labelled patient')}, ", self.against != BASELINE
        if word == "cannot tell":
            question = f"{self.arm} is better than {self.against}" if beside else f"{self.arm} helps"
            advice = what_it_takes(self.difference, self.margin, self.level)
            return f"{start}one cannot tell whether {question}: {self._numbers()}. {advice}"
        same = word == "did not help"
        verb = f"is {WORDS[word]} {'from' if same else 'than'} {self.against}" if beside else word
        margin = f", within ±{f'{self.margin:.3f}'.rstrip('0').rstrip('.')}" if same else ""
        return f"{start}{self.arm} {verb}: {self._numbers()}{margin}."

    def _numbers(self) -> str:
        d = self.difference
        corrected = self.compared > 1 and d.seeds > 1
        parts = [
            f"95 % interval {span(self._interval(0.95), signed)}",
            *([f"{probability(self.p)} corrected for {self.compared} comparisons"] if corrected else []),
            f"{f'{d.pretrainings} pre-trainings × ' if d.pretrainings > 1 else ''}{counted(d.seeds, 'seed')}, "
            f"{counted(d.patients, 'test patient')}",
        ]
        return f"{METRIC_NAMES[self.metric]} {signed(d.mean)} ({'; '.join(parts)})"


def compare(found: Sequence[tuple[str, str, Estimate]], n: int, metric: str, margin: float) -> list[dict[str, Any]]:
    """What is said of differences (arm, against, estimate) at ``n`` labels, corrected for their number."""
    corrected = zip(*holm([difference.p() for *_, difference in found]), strict=True)
    return [
        Comparison(*each, n, metric, margin, len(found), p, level).record()
        for each, (p, level) in zip(found, corrected, strict=True)
    ]


def within(interval: tuple[float, float], least: float, most: float) -> tuple[float, float]:
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


# What it takes -------------------------------------------------------------------------------------------------------


def what_it_takes(difference: Estimate, margin: float, level: float = 0.95) -> str:
    """A sentence: how many seeds or test patients would tell in 4 of 5 studies, if the effect is as it looks."""
    if difference.seeds < 2:
        return "One seed shows nothing of how much seeds differ: take at least 3."
    if not len(difference.draws) or difference.patients < 2:
        return "The test split has too few patients, or too few of one class: index more of them."
    effect = abs(difference.mean)
    # Either the effect is there and zero must be excluded, or it is not and the interval must fit the margin.
    goal = max(effect, margin - effect)
    now, patients, more = difference.seeds, difference.patients, difference.pretrainings

    def smallest(most: float, seeds: bool = False, tested: bool = False, trained: bool = False) -> float | None:
        """The smallest factor above 1 of these numbers that is enough, in steps of 5 %."""
        factor = 1.05
        while factor <= max(most, 1.05):
            size = (factor**seeds * now, factor**tested * patients, factor**trained * more)
            if difference.spread.half_width(*size, level) + POWER_80 * difference.spread.error(*size) <= goal:
                return factor
            factor *= 1.05
        return None

    ways = []
    if found := smallest(200 / now, seeds=True):
        ways.append(counted(math.ceil(found * now), "seed"))
    if more > 1 and (found := smallest(50 / more, trained=True)):
        ways.append(counted(math.ceil(found * more), "pre-training"))
    if found := smallest(1000, tested=True):
        ways.append(counted(rounded_up(found * patients), "test patient"))
    if not ways and (found := smallest(1000, seeds=True, tested=True)):
        ways = [f"{math.ceil(found * now)} seeds with {rounded_up(found * patients)} test patients"]
    if not ways:
        return "No number of seeds and patients within reach would tell an effect this small."
    runs = [counted(more, "pre-training")] if more > 1 else []
    size_now = listed([*runs, counted(now, "seed"), counted(patients, "test patient")])
    return f"About {' or '.join(ways)} (now {size_now}) would probably tell."
