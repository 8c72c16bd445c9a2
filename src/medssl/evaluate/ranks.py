"""Mean ranks of arms over label counts and studies: who is ahead as a rule, whatever the task's scale."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata


@dataclass(frozen=True)
class MeanRanks:
    """``ranks``: the mean rank of each arm over ``blocks`` (label counts of studies), the best first; 1 is best.

    ``left_out``: arms that some block lacks. Label counts of one study share test patients and pre-trainings, so blocks
    are not independent, and a test that takes them for such would be too sure; none is made.
    """

    ranks: dict[str, float]
    blocks: int
    left_out: tuple[str, ...]


def mean_ranks(scores: Iterable[Mapping[str, float]]) -> MeanRanks:
    """Ranks of arms that every block has, from scores by arm; higher is better, ties share the mean of their ranks."""
    blocks = list(scores)
    named = list(dict.fromkeys(arm for block in blocks for arm in block))
    arms = [arm for arm in named if all(arm in block for block in blocks)]
    if not arms:
        return MeanRanks({}, len(blocks), tuple(named))
    ranks = np.mean([rankdata([-block[arm] for arm in arms]) for block in blocks], axis=0)
    order = sorted(zip(ranks.tolist(), arms, strict=True), key=lambda pair: pair[0])
    return MeanRanks({arm: rank for rank, arm in order}, len(blocks), tuple(a for a in named if a not in arms))


def of_verdicts(verdicts: Sequence[Mapping[str, Any]]) -> MeanRanks:
    """Mean ranks over all label counts of the studies whose verdict.json these are."""
    return mean_ranks(
        {arm: band["mean"] for arm, band in at["arms"].items()} for found in verdicts for at in found["labels"]
    )
