"""The verdict finds what was put into a study, and says what it rests on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medssl.errors import UserError
from medssl.evaluate.sentences import headline
from medssl.evaluate.verdict import ScoredRun, verdict


def write_study(
    folder: Path, effect: dict[tuple[str, int], float], seeds=5, patients=24, noise=0.02, seed=7
) -> list[ScoredRun]:
    """Runs of a segmentation whose Dice differs from scratch by what `effect` says of (arm, labels)."""
    rng = np.random.default_rng(seed)
    names = [f"p{i:02d}" for i in range(patients)]
    ease = np.random.default_rng(7).normal(0.6, 0.1, patients)  # hard patients are hard for every arm
    runs = []
    for (arm, n), gain in effect.items():
        for s in range(seeds):
            dice = ease + gain + rng.normal(0, noise) / 4 + rng.normal(0, noise, patients)
            path = folder / f"{arm}-n{n}-s{s}" / "predictions.parquet"
            path.parent.mkdir(parents=True)
            pl.DataFrame({"item": names, "patient": names, "dice.liver": dice}).write_parquet(path)
            runs.append(ScoredRun(arm, n, s, path))
    return runs


def test_the_verdict_finds_what_was_put_in(tmp_path):
    effect = {("scratch", 4): 0.0, ("pcrl", 4): 0.08, ("mine", 4): -0.08, ("scratch", 16): 0.0, ("pcrl", 16): 0.0}
    runs = write_study(tmp_path, effect)
    found = verdict(runs, task="segment", margin=0.05)
    words = {(c["arm"], at["n_labels"]): c["verdict"] for at in found["labels"] for c in at["comparisons"]}
    assert words == {("pcrl", 4): "helped", ("mine", 4): "harmed", ("pcrl", 16): "did not help"}
    helped = found["labels"][0]["comparisons"][0]
    low, high = helped["interval"]
    assert low < 0.08 < high and helped["corrected"]["p"] < 0.05 and "pcrl helped: Dice +0.0" in helped["sentence"]
    assert found["test_patients"] == 24 and found["notes"][0].startswith("At each label count 2 arms are compared")
    assert "helped with 4" in found["sentence"] and "did not help with 16" in found["sentence"]
    assert verdict(runs, task="segment", margin=0.05) == found  # no chance of its own


def test_pairs_are_seeds_that_both_arms_finished(tmp_path):
    runs = write_study(tmp_path, {("scratch", 4): 0.0, ("pcrl", 4): 0.08})
    left = [r for r in runs if (r.arm, r.seed) not in {("scratch", 1), ("pcrl", 3)}]
    comparison = verdict(left, task="segment")["labels"][0]["comparisons"][0]
    assert comparison["seeds"] == 3
    one = [r for r in runs if r.seed == 0]
    lonely = verdict(one, task="segment")["labels"][0]["comparisons"][0]
    assert lonely["verdict"] == "cannot tell" and "at least 3" in lonely["sentence"]


def test_one_seed_speaks_for_test_patients_only(tmp_path):
    one = write_study(tmp_path, {("scratch", 4): 0.0, ("pcrl", 4): 0.08}, seeds=1)
    assert "one seed shows nothing of how much seeds differ" in verdict(one, task="segment")["notes"][1]


def test_a_run_that_invents_a_structure_leaves_the_verdict_whole(tmp_path):
    """Its Dice is 0 on patients whom the others leave out: a resample must not lack those that the others score."""
    effect = {("scratch", 4): 0.0, ("pcrl", 4): 0.16, ("scratch", 16): 0.1, ("pcrl", 16): 0.2}
    runs = write_study(tmp_path, effect, patients=16)
    for run in runs:
        invented = 8 if run == runs[0] else 6
        dice = pl.Series(range(16)).cast(pl.Float64)
        table = pl.read_parquet(run.predictions)
        kept = pl.when(dice < 6).then(pl.col("dice.liver")).when(dice < invented).then(0.0).otherwise(None)
        table.with_columns(kept.alias("dice.liver")).write_parquet(run.predictions)
    few, _ = verdict(runs, task="segment")["labels"]
    (found,) = few["comparisons"]
    assert 0 <= found["p"] <= 1 and np.isfinite(found["interval"]).all() and found["interval"][0] > 0


def test_runs_tested_with_other_labels_are_not_compared(tmp_path):
    runs = write_study(tmp_path, {("scratch", 4): 0.0, ("pcrl", 4): 0.08}, seeds=2)
    for run in runs:
        truth = [float(i % 2) for i in range(24)]
        truth[0] += run == runs[-1]
        table = pl.read_parquet(run.predictions)
        table.with_columns(pl.Series("truth.yes", truth)).write_parquet(run.predictions)
    with pytest.raises(UserError, match="tested with different labels"):
        verdict(runs, task="segment")


def test_labels_saved_lie_between_counts(tmp_path):
    effect = {("scratch", 4): 0.0, ("pcrl", 4): 0.05, ("scratch", 16): 0.1, ("pcrl", 16): 0.15}
    few, most = verdict(write_study(tmp_path, effect, noise=0.001), task="segment")["labels_saved"]
    assert (few["arm"], few["n_labels"], most["n_labels"]) == ("pcrl", 4, 16)
    assert few["factor"] == pytest.approx(2, rel=0.1)  # halfway on a logarithmic axis
    assert most["text"] == "≥ 1.0" and most["range"] == [0.25, 1.0]


def test_whether_scratch_tells_labels_apart_is_answered_alike_for_all_arms(tmp_path):
    """Studies whose curve lies about the edge of its noise, each with three arms at two counts."""
    answers = []
    for seed in range(12):
        gains = {"scratch": 0.0, "a": -0.02, "b": 0.03, "c": 0.0}
        effect = {(arm, n): gain + 0.012 * (n == 16) for arm, gain in gains.items() for n in (4, 16)}
        runs = write_study(tmp_path / str(seed), effect, seeds=3, seed=seed)
        told = {one["factor"] is None for one in verdict(runs, task="segment")["labels_saved"]}
        assert len(told) == 1
        answers += told
    assert 0 < sum(answers) < len(answers)


def test_notes_say_what_the_intervals_hold_and_what_could_not_be_seen(tmp_path):
    runs = write_study(tmp_path, {("scratch", 4): 0.0, ("pcrl", 4): 0.08, ("mine", 4): 0.0})
    found = verdict(runs, task="segment")
    _, held, power = found["notes"]
    assert "not that of pre-training and of the first weights it began with" in held
    least = np.median([c["detectable"] for c in found["labels"][0]["comparisons"]])
    assert power.startswith(f"With 24 test patients and 5 seeds, a gain in Dice of {least:.3f} with 4 labelled")


def test_pre_trainings_widen_the_interval_and_are_named(tmp_path):
    rng = np.random.default_rng(0)
    once = write_study(tmp_path, {("scratch", 4): 0.0, ("pcrl", 4): 0.08, ("mine", 4): 0.0})
    more = []
    for q, gain in ((2, 0.05), (3, 0.11)):
        again = write_study(tmp_path / str(q), {("scratch", 4): 0.0, ("pcrl", 4): gain}, seed=int(rng.integers(99)))
        more += [replace(run, pretraining=q) for run in again]
    alone = verdict(once, task="segment")["labels"][0]
    found = verdict([*once, *more], task="segment")
    level = found["labels"][0]
    of = {c["arm"]: c for c in level["comparisons"]}
    assert of["pcrl"]["pretrainings"] == 3 and of["pcrl"]["seeds"] == 5 and of["mine"]["pretrainings"] == 1
    assert np.ptp(of["pcrl"]["interval"]) > 2 * np.ptp(alone["comparisons"][0]["interval"])
    assert len(level["scores"]["pcrl"]) == 15 and level["arms"]["pcrl"]["pretrainings"] == 3
    assert np.sqrt(of["pcrl"]["variance"]["pretraining"]) == pytest.approx(0.03, rel=0.5)
    assert "3 pre-trainings × 5 seeds" in of["pcrl"]["sentence"]
    assert "pcrl (3 pre-trainings) also that of pre-training. Other arms" in found["notes"][1]


def test_any_two_arms_can_be_compared(tmp_path):
    effect = {("scratch", 4): 0.0, ("pcrl", 4): 0.08, ("mine", 4): -0.08, ("scratch", 16): 0.0, ("pcrl", 16): 0.0}
    runs = write_study(tmp_path, effect)
    few, most = verdict(runs, task="segment", beside=[("pcrl", "mine")])["labels"]
    (pair,) = few["pairs"]
    assert (pair["arm"], pair["against"], pair["verdict"], pair["compared"]) == ("pcrl", "mine", "better", 1)
    assert pair["difference"] == pytest.approx(sum(few["scores"]["pcrl"]) / 5 - sum(few["scores"]["mine"]) / 5)
    assert most["pairs"] == []  # the arm mine was not run with so many


def test_many_arms_are_told_by_label_count(tmp_path):
    effect = {(f"arm{i}", n): 0.03 * i for i in range(1, 6) for n in (4, 16)}
    found = verdict(write_study(tmp_path, effect | {("scratch", 4): 0, ("scratch", 16): 0}), task="segment")
    told = found["sentence"]
    assert told.startswith("With 4 labelled patients (Dice): arm5 (+0.1") and told.count("With ") == 2
    assert told.index("arm5") < told.index("arm4") < told.index("arm3")


def said_of(*words, arms="abcdefg", metric="auc"):
    """The headline of a study whose arms got these words: a string a label count, a letter an arm."""
    full = {"+": "helped", "-": "harmed", "0": "did not help", "?": "cannot tell"}
    levels = [
        {"n_labels": n, "comparisons": [
            {"arm": arm, "verdict": full[w], "difference": 0.01 * (i + 1), "sentence": "alone"}
            for i, (arm, w) in enumerate(zip(arms, each, strict=False))
        ]}
        for n, each in zip((10, 30, 100), words, strict=False)
    ]  # fmt: skip
    return headline(levels, list(arms), metric)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["?"], "alone"),
        ([""], "No arm was compared to scratch."),
        (["+", "+"], "Pre-training by a helped with 10 and 30 labelled patients (AUC +0.010 and +0.010)."),
        (
            ["+", "-", "?"],
            "Pre-training by a helped with 10 labelled patients (AUC +0.010) and harmed with 30 (AUC +0.010); "
            "with 100 one cannot tell (AUC +0.010).",
        ),
        (["?", "?"], "With 10 and 30 labelled patients, one cannot tell whether a helps (AUC +0.010 and +0.010)."),
        (
            ["0?"],
            "Pre-training by a did not help with 10 labelled patients (AUC +0.010). With 10 labelled patients, one "
            "cannot tell whether b helps (AUC +0.020).",
        ),
        (["????"], "With 10 labelled patients: none of 4 arms is clearly better or worse than scratch."),
        (
            ["????", "????", "++??"],
            "With 10 and 30 labelled patients: none of 4 arms is clearly better or worse than scratch. With 100 "
            "labelled patients (AUC): b (+0.020) and a (+0.010) helped; the other 2 are not clearly better or worse "
            "than scratch.",
        ),
        (
            ["-0+?"],
            "With 10 labelled patients (AUC): c (+0.030) helped; a (+0.010) harmed; b (+0.020) did not help; d is not "
            "clearly better or worse than scratch.",
        ),
        (["----"], "With 10 labelled patients (AUC): d (+0.040), c (+0.030), b (+0.020) and a (+0.010) harmed."),
    ],
)
def test_the_headline_reads_well(words, sentence):
    assert said_of(*words) == sentence


def test_a_single_test_patient_cannot_tell(tmp_path):
    found = verdict(write_study(tmp_path, {("scratch", 4): 0.0, ("pcrl", 4): 0.5}, patients=1), task="segment")
    comparison = found["labels"][0]["comparisons"][0]
    assert comparison["verdict"] == "cannot tell" and "too few patients" in comparison["sentence"]


def test_runs_on_other_scans_are_refused(tmp_path):
    runs = write_study(tmp_path / "a", {("scratch", 4): 0.0}) + write_study(
        tmp_path / "b", {("pcrl", 4): 0.0}, patients=23
    )
    with pytest.raises(UserError, match="different scans"):
        verdict(runs, task="segment")
    with pytest.raises(UserError, match="no finished runs"):
        verdict([], task="segment")
