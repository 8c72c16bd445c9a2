"""A method's own optimiser, below what a person chose; runs and studies record what was used."""

from dataclasses import replace
from pathlib import Path

import pytest

from medssl import files
from medssl.cli import main
from medssl.config import OptimOptions
from medssl.files import write_toml
from medssl.stages.configure import optim_of
from medssl.stages.options.study import Study
from medssl.stages.options.train import MethodOptim, Pretrain
from medssl.stages.recipe import read_recipe
from scans import prepared_pictures

TINY = "--steps 2 --batch 4 --patch 32 32 --width 4 --workers 0 --precision 32 --device cpu"


def options(method: str, **chosen: object) -> Pretrain:
    return Pretrain(method=method, data=Path("d"), out=Path("o"), optim=MethodOptim(**chosen))


def test_a_method_is_trained_as_its_paper_says_unless_a_person_says_otherwise() -> None:
    house = OptimOptions()
    for method in ("pcrl", "moco", "simclr", "genesis"):
        assert optim_of(options(method)) == house == OptimOptions(lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.999))
    assert optim_of(options("mae")) == OptimOptions(weight_decay=0.05, betas=(0.9, 0.95))
    assert optim_of(options("dae")) == OptimOptions(lr=4e-4, weight_decay=1e-5, warmup=0.025)
    chosen = {"optimizer": "sgd", "lr": 0.1, "weight_decay": 1e-4, "betas": (0.9, 0.999), "warmup": 0.0, "clip": 2.0}
    assert optim_of(options("mae", **chosen)) == OptimOptions(**chosen)  # zero and the house's values are values too
    once = replace(options("mae"), optim=MethodOptim(**vars(optim_of(options("mae", lr=0.2)))))
    assert optim_of(once) == OptimOptions(lr=0.2, weight_decay=0.05, betas=(0.9, 0.95))


def test_a_run_records_it_and_goes_on_with_it_alone(tmp_path, capsys) -> None:
    data, run = prepared_pictures(tmp_path, count=12), tmp_path / "run"
    command = f"pretrain mae --data {data} --out {run} {TINY}"
    assert main(command.split()) == 0
    found = files.read_toml(run / "run.toml")["optim"]
    assert (found["lr"], found["weight_decay"], found["betas"]) == (1e-3, 0.05, [0.9, 0.95])
    state = files.read_rows(run / "metrics.jsonl")
    assert len(state) > 0
    assert main(f"{command} --weight-decay 0.0001".split()) == 2
    assert "--weight-decay: 0.05 → 0.0001" in capsys.readouterr().err
    assert main(f"{command} --betas 0.9 0.95".split()) == 0  # the same, said aloud


def test_the_optimiser_gets_it(tmp_path, monkeypatch) -> None:
    from medssl.stages import pretrain

    seen, real = {}, pretrain.make_optimizer
    monkeypatch.setattr(pretrain, "make_optimizer", lambda m, **given: (seen.update(given), real(m, **given))[1])
    data = prepared_pictures(tmp_path, count=12)
    assert main(f"pretrain mae --data {data} --out {tmp_path / 'run'} {TINY} --lr 0.002".split()) == 0
    assert seen == {"name": "adamw", "lr": 0.002, "weight_decay": 0.05, "betas": (0.9, 0.95)}


def test_arms_of_a_study_carry_it(tmp_path) -> None:
    arms = ("scratch", "pcrl", "mae", "dae")
    write_toml(tmp_path / "r.toml", {"data": "d", "pretrain": {"clip": 1.0, "dae": {"lr": 0.01}}})
    _, pcrl, mae, dae = read_recipe(Study(out=tmp_path, config=tmp_path / "r.toml", arms=arms)).arms
    assert [arm.options.optim.lr for arm in (pcrl, mae, dae)] == [1e-3, 1e-3, 0.01]
    assert [arm.options.optim.weight_decay for arm in (pcrl, mae, dae)] == [1e-4, 0.05, 1e-5]
    assert mae.options.optim.betas == (0.9, 0.95) and {a.options.optim.clip for a in (pcrl, mae, dae)} == {1.0}
    write_toml(tmp_path / "r.toml", {"data": "d", "pretrain": {"weight_decay": 0.0, "betas": [0.8, 0.9]}})
    _, _, mae, _ = read_recipe(Study(out=tmp_path, config=tmp_path / "r.toml", arms=arms)).arms
    assert (mae.options.optim.weight_decay, mae.options.optim.betas) == (0.0, (0.8, 0.9))


@pytest.mark.parametrize(
    ("betas", "said"), [("0.9 1.0", "--betas is (0.9, 1.0): give 0"), ("nan 0.9", "--betas is (nan")]
)
def test_means_that_never_forget_are_refused(betas, said, tmp_path, capsys) -> None:
    assert main(f"pretrain mae --data {tmp_path} --out {tmp_path / 'run'} --betas {betas}".split()) == 2
    assert said in capsys.readouterr().err
