"""The plan follows what most scans have, options win, and a plan that exists changes only where it is told to."""

from typing import Any

import polars as pl
import pytest

from medssl.data.planning import changed, disk_bytes, make_plan
from medssl.errors import UserError


def row(**facts: Any) -> dict[str, Any]:
    volume = {
        "dims": 3, "channels": 1, "modality": "MR", "shape": [200, 200, 100], "spacing_mm": [1.0, 1.0, 2.0],
        "orientation": "RAS", "dtype": "int16", "mask_path": None, "problems": "",
    }  # fmt: skip
    return volume | facts


def picture(**facts: Any) -> dict[str, Any]:
    image = {"dims": 2, "modality": "", "shape": [300, 200], "spacing_mm": None, "orientation": "", "dtype": "uint8"}
    return row(**(image | facts))


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema_overrides={"mask_path": pl.String, "spacing_mm": pl.List(pl.Float64)})


def test_spacing_is_the_median_along_patient_axes() -> None:
    sagittal = row(shape=[30, 256, 256], spacing_mm=[2.4, 1.0, 1.2], orientation="PSR")
    plan = make_plan(frame(row(), row(spacing_mm=[1.0, 1.1, 2.0]), sagittal))
    assert plan.spacing_mm == (1.0, 1.1, 2.0)  # the sagittal one is 1.2, 2.4, 1.0 along R, A, S


def test_thick_slices_do_not_set_the_spacing() -> None:
    thick = [row(shape=[512, 512, 20], spacing_mm=[0.5, 0.5, 6.0]) for _ in range(8)]
    fine = [row(shape=[512, 512, 60], spacing_mm=[0.5, 0.5, 2.0]) for _ in range(2)]
    assert make_plan(frame(*thick, *fine)).spacing_mm == (0.5, 0.5, 2.0)
    mild = [row(shape=[256, 256, 120], spacing_mm=[1.0, 1.0, 2.5]) for _ in range(3)]
    assert make_plan(frame(*mild)).spacing_mm == (1.0, 1.0, 2.5)


def test_images_follow_the_median_short_side_up_to_256() -> None:
    assert make_plan(frame(picture(), picture(shape=[100, 900]), picture(shape=[220, 180]))).size == 180
    large = make_plan(frame(picture(shape=[2000, 2500])))
    assert (large.size, large.spacing_mm, large.crop, large.dtype) == (256, None, False, "uint8")
    placed = make_plan(frame(picture(spacing_mm=[0.2, 0.2])))
    assert placed.spacing_mm is None
    assert make_plan(frame(picture(spacing_mm=[0.2, 0.2])), spacing_mm=(0.5,)).spacing_mm == (0.5, 0.5)


def test_every_modality_has_its_rule() -> None:
    plan = make_plan(frame(row(), row(modality="CT"), row(modality="PT"), row(modality="")), window_hu=(-150, 250))
    assert (plan.modality["CT"].normalise, plan.modality["CT"].low, plan.modality["CT"].high) == ("window", -150, 250)
    assert plan.modality["MR"].over == plan.modality["PT"].over == "foreground"
    assert plan.rule("US") is plan.modality["other"]
    zscore = make_plan(frame(row()), mr="zscore")
    assert zscore.modality["MR"].normalise == "zscore"
    assert zscore.value_range == (-5.0, 5.0)


def test_the_majority_decides_dims_and_channels() -> None:
    mixed = frame(picture(channels=3), picture(channels=3), picture(), row())
    plan = make_plan(mixed)
    assert (plan.dims, plan.channels) == (2, 3)
    assert make_plan(mixed, dims=3).dims == 3


def test_an_existing_plan_changes_only_where_told() -> None:
    scans = frame(row(), row(modality="CT"))
    plan = make_plan(scans)
    assert changed(plan, scans) == plan
    coarse = changed(plan, scans, spacing_mm=(3.0,))
    assert coarse.spacing_mm == (3.0, 3.0, 3.0)
    assert coarse.modality == plan.modality
    window = changed(plan, scans, window_hu=(0, 80))
    assert window.modality["CT"].high == 80
    assert window.modality["MR"] == plan.modality["MR"]
    grown = changed(plan, frame(row(), row(modality="PT")))
    assert grown.modality == plan.modality | {"PT": grown.modality["PT"]}


def test_disk_is_estimated_from_the_target_grid() -> None:
    fine, coarse = make_plan(frame(row())), make_plan(frame(row()), spacing_mm=(2.0, 2.0, 2.0))
    raw = 200 * 200 * 100 * 2
    assert 0.5 * raw < disk_bytes(fine, [row()]) < raw
    assert disk_bytes(coarse, [row()]) < 0.3 * disk_bytes(fine, [row()])


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        ([row()], {"dims": 2}, "lists no images"),
        ([row()], {"spacing_mm": (1.0, 1.0)}, "--spacing-mm has 2 numbers"),
        ([row()], {"spacing_mm": (1.0, 1.0, -1.0)}, "spacing_mm is"),
        ([row(modality="CT")], {"window_hu": (100.0, 0.0)}, "not below high"),
        ([picture()], {"size": -4}, "size is -4"),
        ([row()], {"size": 64}, "--size is for images"),
    ],
)
def test_options_that_cannot_be_met_are_refused(rows: list, options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_plan(frame(*rows), **options)


def test_an_empty_index_is_refused() -> None:
    with pytest.raises(UserError, match="no usable scan"):
        make_plan(frame(row()).clear())


def test_a_modality_that_says_more_follows_the_rule_of_its_family() -> None:
    scans = frame(row(modality="MR-T1"), row(modality="MR-T2"), row(modality="CT-CE"), row(modality="XA"))
    plan = make_plan(scans)
    assert {name: rule.normalise for name, rule in plan.modality.items()} == {
        "CT-CE": "window", "MR-T1": "percentile", "MR-T2": "percentile", "XA": "percentile", "other": "percentile"
    }  # fmt: skip
    assert plan.rule("MR-T1").over == "foreground" and plan.rule("MR-FLAIR") == plan.rule("other")
    again = changed(plan, scans, mr="zscore", window_hu=(-100.0, 200.0))
    assert {again.rule(name).normalise for name in ("MR-T1", "MR-T2")} == {"zscore"}
    assert (again.rule("CT-CE").low, again.rule("CT-CE").high) == (-100, 200)
    mr = make_plan(frame(row()), mr="zscore")
    assert mr.rule("MR-T1") == mr.rule("MR")  # an encoder of MR takes an MR-T1
    assert changed(mr, frame(row(), row(modality="MR-T1"))).modality["MR-T1"] == mr.rule("MR")
