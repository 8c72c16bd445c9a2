"""Evaluation tests towers on test patients alone, and its numbers are those of the vectors that it leaves."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.cli import main
from medssl.data.store import Store
from medssl.evaluate.retrieval import Samples, retrieval
from medssl.files import read_json
from medssl.stages.towers import load_towers
from paired_scans import PLAN, cohort, paired_store

TINY = "--steps 2 --batch 4 --patch 32 32 32 --width 4 --workers 0 --precision 32 --device cpu --embed-dim 8"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten studies; patients p0 to p3 are tested, two of them came twice. Every fourth scan has no report."""
    scans = cohort(10)
    split = ["test" if scan[0] in ("p0", "p1", "p2", "p3") else "train" for scan in scans]
    state = ["well" if i // 2 % 2 else "ill" for i in range(20)]
    text = [None if i % 4 == 1 else f"patient {i // 2} is {word}" for i, word in enumerate(state)]
    folder = tmp_path_factory.mktemp("evaluate") / "data"
    return paired_store(folder, scans, split=split, text=text, **{"label.state": state}).data


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    out = data.parent / "run"
    assert main(f"pretrain cmcl --data {data} --out {out} {TINY} --text tokens --text-length 8".split()) == 0
    return out


def evaluate(*words: object) -> int:
    return main(["evaluate", *map(str, words), "--device", "cpu"])


def test_retrieval_is_measured_on_the_test_patients_alone(data, run, capsys) -> None:
    assert evaluate("retrieval", run, "--data", data) == 0
    printed = capsys.readouterr().out
    table = read_json(run / "retrieval.json")
    with np.load(run / "joint.npz") as found:
        z, kind, subject = found["z"], found["modality"], found["subject"]
    assert [(kind == name).sum() for name in ("CT", "MR", "text")] == [6, 6, 6]
    assert np.linalg.norm(z, axis=1) == pytest.approx(1, abs=1e-5)
    assert table["same_data"] and not table["transductive"]
    assert {(d["query"], d["gallery"]) for d in table["directions"]} == {
        (a, b) for a in ("CT", "MR", "text") for b in ("CT", "MR", "text") if a != b
    }
    method, _, reader = load_towers(run)
    store = Store(data)
    rows = [r for r, split in enumerate(store.items["split"]) if split == "test"]
    mr = [r for r in rows if store.items["modality"][r] == "MR"]
    tokens, _ = reader.encode([store.items["text"][r] for r in rows if store.items["modality"][r] == "CT"])
    assert np.allclose(z[kind == "text"], method.encode("text", tokens), atol=1e-4)
    whole = np.zeros((1, 1, 32, 64, 32), np.float32)  # the first MR, padded to what the encoder sees of it
    image = store.normalised(mr[0])
    whole[(0, slice(None), *map(slice, image.shape[1:]))] = image
    assert z[kind == "MR"][0] @ method.encode("MR", torch.from_numpy(whole))[0].numpy() > 0.9

    patient = {int(s): store.patients[r] for s, r in zip(subject[kind == "MR"], mr, strict=True)}
    parts = {
        n: Samples(z[kind == n], s := subject[kind == n], np.array([patient[int(i)] for i in s])) for n in ("CT", "MR")
    }
    told = next(d for d in table["directions"] if (d["query"], d["gallery"]) == ("CT", "MR"))
    again = retrieval(parts["CT"], parts["MR"])
    assert (
        told["r@1"]["value"] == pytest.approx(again["r@1"]["value"])
        and told["queries"] == 6
        and told["candidates"] <= 5.5
    )
    assert "CT → MR" in printed and "modality gap" in printed
    page = (run / "report.html").read_text()
    assert "CT → MR" in page and "PCA of the joint space" in page and "Not measured yet" not in page


def test_classes_are_told_by_their_texts(data, run, tmp_path, capsys) -> None:
    prompts = tmp_path / "prompts.toml"
    prompts.write_text('well = ["the patient is well", "is well"]\nill = ["the patient is ill"]\n')
    assert evaluate("zeroshot", run, "--data", data, "--target", "state", "--prompts", prompts) == 0
    table = read_json(run / "zeroshot.json")
    assert set(table["modalities"]) == {"CT", "MR"} and list(table["prompts"]) == ["well", "ill"]
    assert all(one["scans"] == 6 and one["patients"] == 4 for one in table["modalities"].values())
    assert "CT: 6 scans of 4 patients, AUC" in capsys.readouterr().out
    assert "Zero-shot classes" in (run / "report.html").read_text()
    out = tmp_path / "out"
    assert evaluate("zeroshot", run, "--data", data, "--target", "state", "--out", out) == 0
    assert "There is well." in read_json(out / "zeroshot.json")["prompts"]["well"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["zeroshot", "--target", "stat"], "no label 'stat'"),
        (["zeroshot", "--target", "state", "--prompts", "{bad}"], "class 'ill' is no list of texts"),
        (["zeroshot", "--target", "state", "--prompts", "{others}"], "no test scan has one of the classes a, b"),
        (["retrieval", "--pair-by", "nothing"], "no column 'nothing' in the index"),
        (["retrieval", "--batch", "0"], "--batch is 0"),
    ],
)
def test_wrong_questions_are_answered_in_a_sentence(data, run, tmp_path, capsys, words, said) -> None:
    (tmp_path / "bad.toml").write_text('well = ["a"]\nill = "b"\n')
    (tmp_path / "others.toml").write_text('a = ["a"]\nb = ["b"]\n')
    given = [w.format(bad=tmp_path / "bad.toml", others=tmp_path / "others.toml") for w in words]
    assert evaluate(given[0], run, "--data", data, *given[1:]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_test_patients_that_a_run_has_learnt_from_are_told(run, tmp_path) -> None:
    """Whatever the split is today, and whether or not the data are those of the run: seen.txt knows."""
    hashes = [f"{i:032x}" for i in range(20)]
    store = paired_store(tmp_path / "data", cohort(10), split=["test"] * 8 + ["train"] * 12, hash=hashes)
    mine, out = shutil.copytree(run, tmp_path / "run"), tmp_path / "out"
    for seen, told in ((hashes[8:], False), (hashes[7:], True)):
        (mine / "seen.txt").write_text("".join(f"{name}\n" for name in seen))
        assert evaluate("retrieval", mine, "--data", store.data, "--out", out) == 0
        assert read_json(out / "retrieval.json")["transductive"] is told


def test_data_that_do_not_fit_are_refused(data, run, tmp_path, capsys, trained_run) -> None:
    scans = [scan for scan in cohort(6) if scan[2] == "CT"]
    for name, store in {
        "no scan is in the test split": paired_store(tmp_path / "a", cohort(4)),
        "one modality of the run only (CT)": paired_store(tmp_path / "b", scans, split=["test"] * len(scans)),
        "expect other preprocessing: spacing_mm": paired_store(
            tmp_path / "c", cohort(4), replace(PLAN, spacing_mm=(2.0, 2.0, 2.0))
        ),
    }.items():
        assert evaluate("retrieval", run, "--data", store.data, "--out", tmp_path / "out") == 2
        assert name in capsys.readouterr().err
    assert evaluate("retrieval", trained_run["RUN"], "--data", data) == 2
    assert "a run of pcrl has no space of several modalities" in capsys.readouterr().err
