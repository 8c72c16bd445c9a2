"""What verdict.json holds."""

from typing import Literal, NotRequired, TypedDict

from medssl.report.formats import Interval, Number


class Band(TypedDict):
    """An arm at one label count."""

    mean: float
    interval: Interval
    seeds: int
    pretrainings: int


class Corrected(TypedDict):
    """A comparison's p value, level and interval, corrected for the number of comparisons."""

    p: float
    level: float
    interval: Interval


class Comparison(TypedDict):
    """An arm against scratch, or against another (the last words), at one label count."""

    arm: str
    against: str
    difference: float
    interval: Interval
    compared: int
    corrected: Corrected
    verdict: Literal["helped", "harmed", "did not help", "cannot tell", "better", "worse", "no different"]
    sentence: str
    seeds: int
    pretrainings: int


class Saved(TypedDict):
    """The label-saving factor of an arm at one label count."""

    arm: str
    n_labels: int
    factor: Number
    text: str
    why: str


class Ranks(TypedDict):
    """Mean ranks over label counts."""

    ranks: dict[str, float]
    blocks: int
    left_out: list[str]


class Level(TypedDict):
    """One label count."""

    n_labels: int
    arms: dict[str, Band]
    scores: dict[str, list[float]]
    comparisons: list[Comparison]
    pairs: list[Comparison]


class Verdict(TypedDict):
    """verdict.json."""

    task: Literal["classify", "segment"]
    metric: Literal["auc", "dice"]
    margin: float
    test_patients: int
    labels: list[Level]
    sentence: str
    labels_saved: list[Saved]
    ranks: Ranks
    notes: list[str]
    seed: int
    transductive: bool
    warnings: NotRequired[list[str]]
    failed: NotRequired[list[str]]
