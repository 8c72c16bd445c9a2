"""What is no fine-tuned network, and what one cannot take, is told in one sentence."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

import medssl
from medssl import files
from medssl.config import replace, to_table
from medssl.data.plan import OTHER, Intensity, Plan
from medssl.fine_tuned import CARD, WEIGHTS
from medssl.networks.weights import export_state
from medssl.tasks.classify import Classify, ClassifyConfig

CONFIG = ClassifyConfig(width=4, patch=(32, 32), classes=("a", "b"))
PLAN = Plan(
    dims=2, channels=1, spacing_mm=None, size=32, crop=False, value_range=(0.0, 1.0), dtype="int16",
    modality={OTHER: Intensity()}, fingerprint={},
)  # fmt: skip


def written(run: Path, config: ClassifyConfig = CONFIG, **card: object) -> Path:
    run.mkdir()
    save_file(export_state(Classify(config)), run / WEIGHTS)
    told = {"format": files.FORMAT, "task": "classify", "network": to_table(config), "preprocessing": PLAN.contract()}
    files.write_json(run / CARD, told | card)
    return run


def wrong(run: Path) -> str:
    with pytest.raises(medssl.UserError) as told:
        medssl.load_finetuned(run)
    return str(told.value)


def test_an_array_is_enough(tmp_path: Path) -> None:
    classifier = medssl.load_finetuned(written(tmp_path / "run") / WEIGHTS)
    image = np.arange(40 * 50).reshape(40, 50) % 97
    said = classifier(image)
    assert set(said) == {"a", "b"} and sum(said.values()) == pytest.approx(1)
    assert said == classifier(image[None]) != classifier(image.T)


def test_what_is_no_network_is_told(tmp_path: Path) -> None:
    run = written(tmp_path / "run")
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "encoder.safetensors").touch()
    assert "no such network" in wrong(tmp_path / "nothing")
    assert "no model.safetensors" in wrong(tmp_path)
    assert "a run of pre-training has no task yet" in wrong(tmp_path / "pretrained")
    assert "no task 'rank'" in wrong(written(tmp_path / "task", task="rank"))
    assert "no network in it" in wrong(written(tmp_path / "lacking", network=None))
    assert "unknown key 'depth'" in wrong(written(tmp_path / "odd", network=to_table(CONFIG) | {"depth": 3}))
    files.write_json(run / CARD, files.read_json(run / CARD) | {"network": to_table(replace(CONFIG, width=8))})
    assert "weights have another shape" in wrong(run)
    (run / CARD).unlink()
    assert "model.json is missing" in wrong(run)


def test_a_network_of_several_modalities_wants_all_of_a_patient(tmp_path: Path) -> None:
    config = replace(CONFIG, modalities=("CT", "MR"))
    classifier = medssl.load_finetuned(written(tmp_path / "run", config))
    with pytest.raises(medssl.UserError, match=r"takes CT and MR of a patient together.*medssl predict"):
        classifier(np.zeros((40, 40)))


def test_a_network_of_one_chosen_modality_takes_a_scan_of_it(tmp_path: Path) -> None:
    classifier = medssl.load_finetuned(written(tmp_path / "run", replace(CONFIG, modalities=("CT",))))
    assert sum(classifier(np.arange(1600).reshape(40, 40)).values()) == pytest.approx(1)  # type: ignore[union-attr]
