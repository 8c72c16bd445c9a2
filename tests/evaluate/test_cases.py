"""Scores of one network under several conditions: right on their own, paired in their difference."""

import numpy as np
import polars as pl
import pytest

from medssl.evaluate.cases import compare
from medssl.evaluate.metrics import auc
from medssl.rng import stream


def dice_table(values: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {"item": range(len(values)), "patient": [f"p{i}" for i in range(len(values))], "dice.1": values}
    )


def test_a_constant_loss_is_known_exactly_however_much_patients_differ() -> None:
    ease = stream(0, "ease").uniform(0.3, 0.9, 30)
    found = compare({"all": dice_table(ease), "less": dice_table(ease - 0.1)}, "dice")
    assert found["all"]["value"] == pytest.approx(ease.mean()) and "difference" not in found["all"]
    low, high = found["less"]["interval"]
    assert found["less"]["value"] == pytest.approx(ease.mean() - 0.1)
    assert low < found["less"]["value"] < high and high - low > 0.05
    assert found["less"]["difference"] == pytest.approx(-0.1)
    assert found["less"]["difference_interval"] == pytest.approx([-0.1, -0.1])


def test_the_interval_is_that_of_students_t() -> None:
    """Of a mean over patients the textbook knows the interval: mean ± t·s/√n."""
    from scipy import stats

    values = stream(1, "values").normal(0.6, 0.1, 25)
    low, high = compare({"all": dice_table(values)}, "dice")["all"]["interval"]
    half = stats.t.ppf(0.975, 24) * values.std(ddof=1) / 5
    assert (high - low) / 2 == pytest.approx(half, rel=0.08) and (high + low) / 2 == pytest.approx(
        values.mean(), abs=0.01
    )


def test_a_patient_counts_once_however_many_studies() -> None:
    table = pl.DataFrame({"item": [0, 1, 2], "patient": ["a", "a", "b"], "dice.1": [0.0, 0.2, 0.9]})
    assert compare({"all": table}, "dice")["all"]["value"] == pytest.approx(0.5)


def test_auc_and_what_is_undefined() -> None:
    truth, prob = np.array([0, 0, 0, 1, 1, 1.0]), np.array([0.1, 0.6, 0.2, 0.5, 0.7, 0.9])
    columns = {"item": range(6), "patient": list("abcdef"), "prob.no": 1 - prob, "prob.yes": prob}
    table = pl.DataFrame(columns | {"truth.no": 1 - truth, "truth.yes": truth})
    found = compare({"all": table, "same": table}, "auc")
    assert found["all"]["value"] == pytest.approx(auc(prob, truth))
    assert found["same"]["difference"] == 0 and found["same"]["difference_interval"] == [0, 0]
    one_class = table.with_columns(pl.lit(1.0).alias("truth.yes"), pl.lit(0.0).alias("truth.no"))
    assert compare({"all": one_class}, "auc")["all"] == {"value": None, "interval": [None, None]}
    empty = dice_table(np.full(4, np.nan))
    assert compare({"all": empty}, "dice")["all"] == {"value": None, "interval": [None, None]}
    alone = dice_table(np.array([0.5]))
    assert compare({"all": alone}, "dice")["all"] == {"value": 0.5, "interval": [None, None]}
