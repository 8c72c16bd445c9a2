"""A study asks every arm the same questions, loses no finished work, and tells what it could not do."""

import json
import shutil
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import polars as pl
import pytest
from safetensors.torch import save_file

from medssl.config import ModelConfig
from medssl.data.store import Store
from medssl.engine import checkpoint
from medssl.engine.record import settle
from medssl.errors import UserError
from medssl.files import read_json, read_toml, write_json, write_text, write_toml
from medssl.networks.pyramid import build_encoder
from medssl.networks.weights import export_state
from medssl.stages import index, phantom, prepare, study
from medssl.stages.options.data import Index, Phantom, Prepare
from medssl.stages.options.study import Study
from medssl.stages.options.train import Finetune
from medssl.stages.recipe import read_recipe
from medssl.stages.study_defaults import answered


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Prepared radiographs of 16 generated patients."""
    folder = tmp_path_factory.mktemp("data")
    phantom.run(Phantom(out=folder / "scans", patients=16, dims=2, size=32))
    index.run(Index(scans=folder / "scans", out=folder / "data", workers=1, fractions=(0.6, 0.1, 0.3)))
    prepare.run(Prepare(data=folder / "data", workers=1))
    return folder / "data"


class Stand:
    """Stands in for the training stages: writes what they would, in no time, and remembers what it was asked."""

    def __init__(self, gains: dict[str, float], fails: tuple[str, ...] = ()) -> None:
        self.gains, self.fails, self.tuned, self.pretrained = gains, fails, [], []

    def pretrain(self, options, settings):
        self.pretrained.append((options, settings))
        self._fail(options.out)
        options.out.mkdir(parents=True)
        write_json(options.out / "done.json", {})

    def finetune(self, options):
        self.tuned.append(options)
        self._fail(options.out)
        options.out.mkdir(parents=True)
        items = Store(options.data).items.filter(pl.col("split") == "test")
        rng = np.random.default_rng(options.subset_seed)
        truth = (items["label.lesion"] == "yes").to_numpy().astype(float)
        gain = self.gains[options.out.name.partition("-")[0]]
        score = rng.normal(size=len(truth)) + gain * truth
        table = {"prob.no": -score, "prob.yes": score, "truth.no": 1 - truth, "truth.yes": truth}
        items.select("item", "patient").with_columns(**{k: pl.Series(v) for k, v in table.items()}).write_parquet(
            options.out / "predictions.parquet"
        )
        result = {"metric": "auc", "value": 0.5, "metrics": {"auc": 0.5, "f1": 0.4}, "test_hash": "ab"}
        write_json(options.out / "result.json", result)
        write_json(options.out / "done.json", {})

    def _fail(self, out):
        if out.name in self.fails:
            raise RuntimeError("the disk caught fire")


@pytest.fixture
def stand(monkeypatch):
    """Install a `Stand`."""

    def install(gains=None, fails=()):
        made = Stand(gains or {"scratch": 0.0, "pcrl": 4.0, "mine": 0.0}, fails)
        monkeypatch.setattr(study, "pretrain", SimpleNamespace(run=made.pretrain))
        monkeypatch.setattr(study, "finetune", SimpleNamespace(run=made.finetune))
        return made

    return install


@pytest.fixture
def pageless(monkeypatch):
    """Studies without their report, which takes longer than all else here."""
    monkeypatch.setattr(study, "write_study_report", lambda out: None)


def options(data: Path, out: Path, **changes) -> Study:
    base = Study(data=data, out=out, task="classify", target="lesion", n_labels=(4, 8), seeds=3, width=8)
    return replace(base, **changes)


def test_data_may_lie_on_a_server(data, tmp_path, stand, pageless, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = stand()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(data))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = Path(f"http://127.0.0.1:{server.server_port}")
        study.run(options(address, tmp_path / "study", n_labels=(4,), seeds=1))
        server.shutdown()
    assert {job.data for job in made.tuned} == {address}


def test_all_arms_get_the_same_subsets_and_seeds(data, tmp_path, stand):
    made = stand()
    study.run(options(data, tmp_path / "s"))
    asked = {(o.init == "scratch", o.n_labels, o.subset_seed, o.model.seed) for o in made.tuned}
    assert asked == {(scratch, n, s, s) for scratch in (True, False) for n in (4, 8) for s in range(3)}
    assert len(made.pretrained) == 1 and not made.pretrained[0][0].transductive
    (pretraining, _), tuned = made.pretrained[0], made.tuned[0]
    assert (pretraining.model.width, tuned.model.width) == (8, 8)
    assert all(o.init in ("scratch", str(tmp_path / "s/pretrain/pcrl")) for o in made.tuned)


def test_the_verdict_and_the_report_agree_and_name_nobody(data, tmp_path, stand, capsys):
    stand()
    out = study.run(options(data, tmp_path / "s"))
    verdict, page = read_json(out / "verdict.json"), (out / "report.html").read_text()
    assert verdict["sentence"] in page
    assert capsys.readouterr().out.strip().splitlines()[-2:] == [verdict["sentence"], f"report: {out / 'report.html'}"]
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert (
        len(rows) == 12
        and rows[0] | {"arm": "scratch", "n_labels": 4, "seed": 0, "run": "runs/scratch-n4-s0"} == rows[0]
    )
    items = Store(data).items
    private = {*items["patient"], *items["item"], *items["path"], str(data), str(tmp_path)}
    assert not [word for word in private if word in page]


def test_the_same_command_again_does_nothing_and_a_larger_one_the_rest(data, tmp_path, stand):
    stand()
    study.run(options(data, tmp_path / "s"))
    again = stand()
    study.run(options(data, tmp_path / "s", margin=0.05))
    assert not again.tuned and not again.pretrained
    larger = stand()
    study.run(options(data, tmp_path / "s", seeds=4, n_labels=(4, 6, 8)))
    assert len(larger.tuned) == 2 * (3 * 4 - 2 * 3) and not larger.pretrained
    assert read_toml(tmp_path / "s/study.toml")["options"]["seeds"] == 4


def test_runs_that_an_earlier_study_recorded_are_not_run_again(data, tmp_path, stand, capsys):
    stand()
    first = study.run(options(data, tmp_path / "s"))
    verdict = read_json(first / "verdict.json")
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    for name in ("results.jsonl", "predictions.parquet"):
        (first / name).rename(recorded / name)
    shutil.rmtree(first)
    capsys.readouterr()
    again = stand()
    second = study.run(options(data, tmp_path / "again", known=(recorded,)))
    assert not again.tuned and not again.pretrained and not (second / "runs").exists()
    assert f"12 of 12 runs are known from {recorded}" in capsys.readouterr().err
    assert read_json(second / "verdict.json") == verdict and verdict["sentence"] in (second / "report.html").read_text()
    rows = (second / "results.jsonl").read_text()
    assert "runs/" not in rows and rows.count("\n") == 12
    # What a study took over it records itself, so that its folder can be published in turn.
    third = study.run(options(data, tmp_path / "third", known=(second,)))
    assert (third / "results.jsonl").read_text() == rows and not again.tuned


def test_only_what_is_not_recorded_runs(data, tmp_path, stand, capsys, pageless):
    stand()
    first = study.run(options(data, tmp_path / "s", seeds=2))
    more = stand()
    out = study.run(options(data, tmp_path / "more", known=(first,)))
    assert sorted(o.out.name for o in more.tuned) == [f"{a}-n{n}-s2" for a in ("pcrl", "scratch") for n in (4, 8)]
    assert len(more.pretrained) == 1 and "8 of 12 runs are known" in capsys.readouterr().err
    whole = stand()
    alone = study.run(options(data, tmp_path / "alone"))
    assert len(whole.tuned) == 12 and read_json(alone / "verdict.json") == read_json(out / "verdict.json")
    scratch = stand()
    study.run(options(data, tmp_path / "steps", pretrain_steps=7, known=(alone,)))
    assert len(scratch.tuned) == 6 and all(o.init != "scratch" for o in scratch.tuned)
    steps = stand()
    capsys.readouterr()
    study.run(options(data, tmp_path / "fine", finetune_steps=7, known=(alone,)))
    assert len(steps.tuned) == 12
    assert f"0 of 12 runs are known from {alone}: it has other fine-tuning" in capsys.readouterr().err


def test_what_others_recorded_holds_for_the_same_scans_only(data, tmp_path, stand, pageless):
    stand()
    first = study.run(options(data, tmp_path / "s"))
    phantom.run(Phantom(out=tmp_path / "scans", patients=16, dims=2, size=32))
    for name, fractions in (("salted", (0.6, 0.1, 0.3)), ("split", (0.5, 0.1, 0.4))):
        index.run(Index(scans=tmp_path / "scans", out=tmp_path / name, workers=1, fractions=fractions))
        prepare.run(Prepare(data=tmp_path / name, workers=1))
        assert {*Store(tmp_path / name).items["item"]}.isdisjoint(Store(data).items["item"])
    same, other = stand(), stand()
    mine = study.run(options(tmp_path / "salted", tmp_path / "a", known=(first,)))
    assert not same.tuned and read_json(mine / "verdict.json") == read_json(first / "verdict.json")
    study.run(options(tmp_path / "split", tmp_path / "b", known=(first,)))
    assert len(other.tuned) == 12 and len(other.pretrained) == 1


def test_finished_runs_are_not_recorded_under_the_labels_of_today(data, tmp_path, stand, pageless):
    stand()
    mine = shutil.copytree(data, tmp_path / "data")
    out = study.run(options(mine, tmp_path / "s"))
    frame = pl.read_parquet(mine / "index.parquet")
    row = frame["split"].to_list().index("test")
    other = {"yes": "no", "no": "yes"}
    cells = [other[cell] if i == row else cell for i, cell in enumerate(frame["label.lesion"])]
    frame.with_columns(pl.Series("label.lesion", cells)).write_parquet(mine / "index.parquet")
    made = stand()
    with pytest.raises(UserError, match="changed since 12 runs began: other scans, labels or seeds"):
        study.run(options(mine, tmp_path / "s"))
    shutil.rmtree(out / "runs")
    study.run(options(mine, tmp_path / "s"))
    assert len(made.tuned) == 12 and not made.pretrained


def test_a_study_that_was_killed_does_not_mix_two_truths(data, tmp_path, stand, pageless, monkeypatch):
    stand()
    mine = shutil.copytree(data, tmp_path / "data")
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(study, "collect", Mock(side_effect=[None, KeyboardInterrupt]))
        study.run(options(mine, tmp_path / "s"))
    assert not (tmp_path / "s" / "results.jsonl").exists() and read_json(tmp_path / "s" / "begun.json")
    frame = pl.read_parquet(mine / "index.parquet")
    frame.with_columns(pl.col("label.lesion").reverse()).write_parquet(mine / "index.parquet")
    with pytest.raises(UserError, match=r"changed since .* runs began: other scans, labels or seeds"):
        study.run(options(mine, tmp_path / "s"))


def test_a_run_goes_on_with_its_threads_whatever_jobs_run_beside_it(tmp_path):
    """Otherwise the same study with other --jobs, after Ctrl-C, is refused for every run that was under way."""
    job = Finetune(task="classify", data=tmp_path, out=tmp_path / "run")
    settle(job.out, {"loop": {"threads": 3}}, ("loop",))
    assert study._threaded(job, 1).loop.threads == 0  # it had learnt nothing
    write_text(job.out / checkpoint.NAME, "weights")
    assert [study._threaded(job, jobs).loop.threads for jobs in (1, 2)] == [3, 3]
    given = replace(job, loop=replace(job.loop, threads=1))
    assert study._threaded(given, 2) == given


def test_a_given_encoder_is_compared_with_scratch_of_its_own_network(data, tmp_path):
    def card(name, **encoder):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "encoder.json", {"format": 1, "encoder": encoder, "preprocessing": {}})
        (tmp_path / name / "encoder.safetensors").touch()
        return f"{name}={tmp_path / name}"

    mine = card("mine", encoder="unet", width=16, norm="instance")
    asked = Study(data=data, out=tmp_path / "s", task="classify", target="lesion", arms=("scratch", mine))
    model = answered(read_recipe(asked), Store(data)).finetune.model
    assert (model.encoder, model.width, model.norm) == ("unet", 16, "instance")
    other = card("other", encoder="unet", width=32, norm="instance")
    with pytest.raises(UserError, match=r"arm 'other' is unet of width 32 with instance norm, scratch .* of width 16"):
        answered(read_recipe(replace(asked, arms=("scratch", mine, other))), Store(data))
    own = card("own", encoder="resnet18", norm="batch")  # its width is the architecture's
    answered(read_recipe(replace(asked, arms=("scratch", own), width=64)), Store(data))


def test_an_arm_is_pre_trained_from_several_seeds_and_each_meets_all_subsets(data, tmp_path, stand, pageless):
    stand()
    study.run(options(data, tmp_path / "s"))
    made = stand()
    out = study.run(options(data, tmp_path / "s", pretrain_seeds=2))
    assert [(o.out.name, o.model.seed) for o, _ in made.pretrained] == [("pcrl-p2", 1)]
    starts = {"pcrl-p2": (str(out / "pretrain/pcrl-p2"), None), "scratch-p2": ("scratch", 1)}
    wanted = {(f"{name}-n{n}-s{s}", *starts[name], s) for name in starts for n in (4, 8) for s in range(3)}
    assert {(o.out.name, o.init, o.encoder_seed, o.subset_seed) for o in made.tuned} == wanted
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    for arm in ("scratch", "pcrl"):
        assert [row["pretraining"] for row in rows if row["arm"] == arm] == [1, 2] * 6
    assert len({row["key"] for row in rows}) == len(rows) == 24
    with pytest.raises(UserError, match="arm pcrl pretrain_seeds: 2 → 1"):
        study.run(options(data, tmp_path / "s"))
    # The second pre-training of one study is the first of another that begins one seed later.
    later = stand()
    study.run(options(data, tmp_path / "later", seed=1, known=(out,)))
    assert not later.pretrained and not later.tuned


def test_a_pre_training_is_left_out_only_if_all_its_runs_are_known(data, tmp_path, stand, pageless):
    stand()
    first = study.run(options(data, tmp_path / "s"))
    made = stand()
    study.run(options(data, tmp_path / "t", pretrain_seeds=2, known=(first,)))
    assert [o.out.name for o, _ in made.pretrained] == ["pcrl-p2"] and len(made.tuned) == 12


def test_all_labels_are_as_many_as_there_are(data, tmp_path, stand, capsys, pageless):
    made = stand()
    out = study.run(options(data, tmp_path / "s", n_labels=(4, "all")))
    items = Store(data).items.filter(pl.col("split") != "test")
    count = items["patient"].n_unique()
    assert {(o.out.name, o.n_labels) for o in made.tuned if o.subset_seed == 0 and o.init == "scratch"} == {
        ("scratch-n4-s0", 4), ("scratch-nall-s0", None)
    }  # fmt: skip
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {row["n_labels"] for row in rows} == {4, count}
    assert [level["n_labels"] for level in read_json(out / "verdict.json")["labels"]] == [4, count]
    again = stand()
    study.run(options(data, tmp_path / "s", n_labels=(4, "all")))
    assert not again.tuned
    with pytest.raises(UserError, match=f"n_labels names {count} and all"):
        study.run(options(data, tmp_path / "t", n_labels=(count, "all")))


def test_an_arm_by_its_weights_is_known_by_them(data, tmp_path, stand, pageless):
    stand()
    for name in ("run", "moved"):
        encoder_card(data, tmp_path / name)
    shutil.copy(tmp_path / "run/encoder.safetensors", tmp_path / "moved")
    arms = ("scratch", f"mine={tmp_path / 'run'}")
    first = study.run(options(data, tmp_path / "s", arms=arms))
    again = stand()
    study.run(options(data, tmp_path / "t", arms=("scratch", f"mine={tmp_path / 'moved'}"), known=(first,)))
    assert not again.tuned
    shutil.rmtree(tmp_path / "moved")
    encoder_card(data, tmp_path / "moved")  # other weights
    study.run(options(data, tmp_path / "u", arms=("scratch", f"mine={tmp_path / 'moved'}"), known=(first,)))
    assert len(again.tuned) == 6


@pytest.mark.parametrize("damage", ["no key", "no predictions", "not json", "not parquet", "missing"])
def test_a_record_that_cannot_be_used_is_told_before_anything_runs(data, tmp_path, stand, damage):
    made = stand()
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    row = {"arm": "a", "n_labels": 4, "seed": 0, "metrics": {}, "metric": "auc", "value": 0.5, "test_hash": "ab"}
    (recorded / "results.jsonl").write_text(json.dumps(row if damage == "no key" else row | {"key": "k"}))
    pl.DataFrame({"key": ["other"], "item": ["i"], "patient": ["p"]}).write_parquet(recorded / "predictions.parquet")
    if damage == "not json":
        (recorded / "results.jsonl").write_text("{")
    if damage == "not parquet":
        (recorded / "predictions.parquet").write_bytes(b"PAR1")
    if damage == "missing":
        (recorded / "predictions.parquet").unlink()
    with pytest.raises(UserError) as error:
        study.run(options(data, tmp_path / "s", known=(recorded,)))
    assert str(recorded) in str(error.value) and "predictions.parquet" in str(error.value)
    assert not made.tuned and not made.pretrained and not (tmp_path / "s/study.toml").exists()


def test_other_options_in_the_same_folder_are_refused_and_listed(data, tmp_path, stand):
    stand()
    study.run(options(data, tmp_path / "s"))
    before = (tmp_path / "s/study.toml").read_text()
    changed = options(data, tmp_path / "s", seeds=2, finetune_steps=7, target="effusion", pretrain_steps=5, width=16)
    with pytest.raises(UserError) as error:
        study.run(changed)
    for part in ("seeds: 3 → 2", "target: lesion → effusion", "fine-tuning steps: 400 → 7", "arm pcrl steps: 1000 → 5"):
        assert part in str(error.value)
    assert (tmp_path / "s/study.toml").read_text() == before


def test_a_study_from_before_an_option_existed_goes_on(data, tmp_path, stand):
    stand()
    study.run(options(data, tmp_path / "s"))
    path = tmp_path / "s/study.toml"
    path.write_text(path.read_text().replace("head_first = 0.0\n", ""))
    assert "head_first" not in path.read_text()
    study.run(options(data, tmp_path / "s"))


def test_one_failing_run_does_not_lose_the_others(data, tmp_path, stand):
    stand(fails=("pcrl-n4-s1",))
    with pytest.raises(UserError) as error:
        study.run(options(data, tmp_path / "s"))
    assert "runs/pcrl-n4-s1: RuntimeError: the disk caught fire" in str(error.value)
    assert "disk caught fire" in (tmp_path / "s/logs/pcrl-n4-s1.txt").read_text()
    verdict = read_json(tmp_path / "s/verdict.json")
    assert verdict["failed"] == ["runs/pcrl-n4-s1"] and verdict["labels"][0]["comparisons"][0]["seeds"] == 2
    assert "runs/pcrl-n4-s1" in (tmp_path / "s/report.html").read_text()
    mended = stand()
    study.run(options(data, tmp_path / "s"))
    assert [o.out.name for o in mended.tuned] == ["pcrl-n4-s1"] and not read_json(tmp_path / "s/verdict.json")["failed"]


def test_a_failing_pre_training_leaves_the_other_arms(data, tmp_path, stand):
    made = stand(fails=("pcrl",))
    with pytest.raises(UserError, match="pretrain/pcrl"):
        study.run(options(data, tmp_path / "s"))
    assert {o.init for o in made.tuned} == {"scratch"}


def test_what_would_stop_the_first_fine_tuning_is_found_before_pre_training(data, tmp_path, stand):
    made = stand()
    with pytest.raises(UserError, match="labelled patients outside the test split, 500 asked for"):
        study.run(options(data, tmp_path / "s", n_labels=(4, 500)))
    with pytest.raises(UserError, match="no label column 'lesions'"):
        study.run(options(data, tmp_path / "s", target="lesions"))
    assert not made.pretrained and not made.tuned


def test_what_would_stop_any_arm_is_found_before_anything_runs_and_all_at_once(data, tmp_path, stand):
    made = stand()
    write_toml(tmp_path / "r.toml", {"pretrain": {"patch": [33, 33], "temperature": -1.0}, "finetune": {"patch": [32]}})
    with pytest.raises(UserError) as error:
        study.run(options(data, tmp_path / "s", config=tmp_path / "r.toml", device="foo"))
    told = str(error.value).splitlines()
    assert [line.split(" (")[0] for line in told] == [
        "patch",
        "no device 'foo'",
        "arm pcrl: temperature is -1.0: see its help",
    ]
    write_toml(tmp_path / "r.toml", {"pretrain": {"patch": [33, 33]}})
    with pytest.raises(UserError, match=r"arm pcrl: patch \(33, 33\) is no multiple of 32×32"):
        study.run(options(data, tmp_path / "s", config=tmp_path / "r.toml"))
    assert not made.pretrained and not made.tuned and not (tmp_path / "s/study.toml").exists()


def test_weights_that_cannot_be_read_are_found_before_anything_runs(data, tmp_path, stand):
    made = stand()
    encoder_card(data, tmp_path / "run")
    (tmp_path / "run/encoder.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="weights cannot be read"):
        study.run(options(data, tmp_path / "s", arms=("scratch", "pcrl", f"mine={tmp_path / 'run'}")))
    assert not made.pretrained and not made.tuned


def encoder_card(data: Path, folder: Path, **changes) -> None:
    store = Store(data)
    network = {"encoder": "resnet18", "width": 8, "norm": "batch", "patch": [], "dims": 2, "channels": 1}
    card = {"format": 1, "encoder": network, "preprocessing": store.plan.contract(), "data_hash": store.hash}
    folder.mkdir()
    write_json(folder / "encoder.json", card | {"transductive": False} | changes)
    network = build_encoder(ModelConfig(width=8))
    save_file(export_state(network), folder / "encoder.safetensors")


def test_an_arm_that_has_seen_test_images_is_flagged(data, tmp_path, stand):
    stand()
    encoder_card(data, tmp_path / "run")
    test = Store(data).items.filter(pl.col("split") == "test")["hash"].to_list()
    (tmp_path / "run/seen.txt").write_text("\n".join([*test[:2], "0" * 32, ""]))
    out = study.run(options(data, tmp_path / "s", arms=("scratch", f"mine={tmp_path / 'run'}")))
    check = read_json(out / "data.json")["checks"][-1]
    assert (check["ok"], check["detail"]) == (False, "2 test images") and "mine" in check["check"]
    assert "2 test images" in (out / "report.html").read_text()


@pytest.mark.parametrize("name", ["run", "run/encoder.safetensors"])
@pytest.mark.parametrize(("seed", "told"), [(0, False), (3, True), (None, False)])
def test_an_arm_of_other_first_weights_than_scratch_is_told(data, tmp_path, stand, seed, told, name):
    stand()
    encoder_card(data, tmp_path / "run")
    if seed is not None:
        write_toml(tmp_path / "run/run.toml", {"format": 1, "model": {"seed": seed}})
    out = study.run(options(data, tmp_path / "s", arms=("scratch", f"mine={tmp_path / name}")))
    warnings = read_json(out / "verdict.json")["warnings"]
    assert any("mine was pre-trained from the first weights of seed 3" in text for text in warnings) is told
    assert ("the luck of both" in (out / "report.html").read_text()) is told


@pytest.mark.parametrize("text", ["", "0" * 32, "0" * 32 + "\nabc\n", "secret-patient\n", "\xff\n"])
def test_a_damaged_record_of_what_was_seen_calls_no_arm_clean(data, tmp_path, stand, text):
    stand()
    encoder_card(data, tmp_path / "run")
    (tmp_path / "run/seen.txt").write_text(text, encoding="latin-1")
    out = study.run(options(data, tmp_path / "s", arms=("scratch", f"mine={tmp_path / 'run'}")))
    assert read_json(out / "data.json")["checks"][-1]["ok"] is None


@pytest.mark.parametrize(
    ("changes", "ok", "detail"),
    [
        ({"transductive": True}, False, "--transductive"),
        ({"data_hash": "other"}, None, "not at hand"),
        ({"data_hash": "other", "transductive": True}, None, "not at hand"),
        ({}, None, "which split"),
    ],
)
def test_an_arm_whose_images_are_not_recorded_is_never_called_clean(data, tmp_path, stand, changes, ok, detail):
    stand()
    encoder_card(data, tmp_path / "run", **changes)
    out = study.run(options(data, tmp_path / "s", arms=("scratch", f"mine={tmp_path / 'run'}")))
    check = read_json(out / "data.json")["checks"][-1]
    assert check["ok"] is ok and detail in check["detail"]


def test_transductive_is_flagged_everywhere(data, tmp_path, stand):
    made = stand()
    out = study.run(options(data, tmp_path / "s", transductive=True))
    assert made.pretrained[0][0].transductive and read_json(out / "verdict.json")["transductive"]
    assert "Transductive" in (out / "report.html").read_text()
    assert read_json(out / "data.json")["checks"][-1]["ok"] is False
