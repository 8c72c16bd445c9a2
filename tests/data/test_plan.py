"""plan.toml reads back as written, an edited one is checked, and a contract gives the same numbers as the store."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medssl.data.plan import COMMENTS, Intensity, Plan
from medssl.errors import UserError
from medssl.rng import stream
from medssl.volume import Volume


def test_a_plan_reads_back_as_written(tmp_path: Path, ct_plan: Plan, picture_plan: Plan) -> None:
    odd = replace(
        ct_plan, modality=ct_plan.modality | {"T1 w": Intensity(low=2)}, fingerprint={"a": {"T1 w": [1, 2.5]}}
    )
    for plan in (ct_plan, picture_plan, odd):
        plan.write(tmp_path / "plan.toml")
        read = Plan.read(tmp_path / "plan.toml")
        assert read == plan
        assert read.fingerprint == plan.fingerprint
        assert read.hash == plan.hash


def test_every_key_is_explained(tmp_path: Path, ct_plan: Plan) -> None:
    ct_plan.write(tmp_path / "plan.toml")
    text = (tmp_path / "plan.toml").read_text()
    assert all(f"# {line}" in text for comment in COMMENTS.values() for line in comment.splitlines())


def test_whole_numbers_and_fractions_are_one_plan(tmp_path: Path, ct_plan: Plan) -> None:
    ct_plan.write(tmp_path / "plan.toml")
    text = (tmp_path / "plan.toml").read_text().replace("-1000.0", "-1000").replace("[1.0, 1.0, 1.0]", "[1, 1, 1]")
    (tmp_path / "plan.toml").write_text(text)
    assert Plan.read(tmp_path / "plan.toml").hash == ct_plan.hash


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("dims = 3", "dims = 4", "dims is 4"),
        ("dims = 3", "dims =", "not valid TOML"),
        ("channels = 1", "chanels = 1", "unknown key 'chanels'"),
        ("[1.0, 1.0, 1.0]", "[1.0, 1.0]", "spacing_mm has 2 numbers"),
        ("[1.0, 1.0, 1.0]", "[1.0, 1.0, 0.0]", "spacing_mm is"),
        ("[1.0, 1.0, 1.0]", "1.0", "give a list of numbers"),
        ("[0.0, 1.0]", "[1.0, 0.0]", "value_range"),
        ('"window"', '"windw"', "normalise is 'windw'"),
        ("low = -1000.0", "low = 2000", "not below high"),
        ("low = -1000.0", 'low = "air"', "give a number"),
        ("[modality.other]", "[modality.MR]", "[modality.other] is missing"),
        ('dtype = "int16"', 'dtype = "float32"', "dtype is 'float32'"),
        ('"RAS"', '"LPS"', "RAS only"),
        ("format = 1", "format = 99", "format 99"),
    ],
)
def test_a_slip_of_the_pen_is_told_in_a_sentence(
    tmp_path: Path, ct_plan: Plan, old: str, new: str, sentence: str
) -> None:
    path = tmp_path / "plan.toml"
    ct_plan.write(path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError) as error:
        Plan.read(path)
    assert sentence in str(error.value)


def test_the_contract_survives_json_and_gives_the_same_numbers(ct_plan: Plan) -> None:
    plan = replace(ct_plan, crop=True)
    image = stream(0, "ct").integers(-1000, 1500, (1, 30, 25, 12)).astype(np.int16)
    scan = Volume(image, np.diag([-1.0, -1.5, 2.5, 1.0]), "CT")
    prepared = plan.prepare(scan)
    values, affine = Plan.from_contract(json.loads(json.dumps(plan.contract()))).adapt(scan)
    np.testing.assert_array_equal(values, prepared.normalised(plan.value_range))
    np.testing.assert_array_equal(affine.ravel(), prepared.grid.affine)
    assert values.dtype == np.float32
    assert 0 <= values.min() < values.max() <= 1


def test_differences_are_told_in_words(ct_plan: Plan) -> None:
    other = replace(ct_plan, spacing_mm=(2, 2, 2), modality={"CT": Intensity(), "other": Intensity()})
    assert ct_plan.differences(ct_plan.contract()) == []
    found = "; ".join(ct_plan.differences(json.loads(json.dumps(other.contract()))))
    assert "spacing_mm is [1.0, 1.0, 1.0] here, [2.0, 2.0, 2.0] there" in found
    assert "[modality.CT]" in found
    only_mr = replace(ct_plan, modality={"MR": Intensity(low=3), "other": Intensity()})
    assert ct_plan.differences(only_mr.contract()) == []
