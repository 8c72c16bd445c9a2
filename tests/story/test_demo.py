"""The demo, short: the whole way in one command, and again at no cost."""

from medssl.cli import main
from medssl.files import read_json


def test_the_short_demo_ends_with_a_verdict_and_its_report(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--short", "--out", str(out)]) == 0
    verdict = read_json(out / "study/verdict.json")
    page = (out / "study/report.html").read_text()
    *_, sentence, report = capsys.readouterr().out.strip().splitlines()
    assert sentence == verdict["sentence"] and report == f"report: {out / 'study/report.html'}"
    assert verdict["sentence"] in page and "its verdict means nothing" in page and verdict["task"] == "segment"
    assert {c["against"] for at in verdict["labels"] for c in at["comparisons"]} == {"scratch"}

    done = (out / "study/results.jsonl").read_text()
    finished = {path: path.stat().st_mtime_ns for path in out.rglob("done.json")}
    assert main(["demo", "--short", "--out", str(out)]) == 0
    again = {path: path.stat().st_mtime_ns for path in out.rglob("done.json")}
    assert finished and again == finished, "a second call only looks"
    assert (out / "study/results.jsonl").read_text() == done


def test_the_short_demo_of_cmcl_tests_retrieval_too(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--method", "cmcl", "--short", "--out", str(out)]) == 0
    verdict, run = read_json(out / "study/verdict.json"), out / "study/pretrain/cmcl"
    printed = capsys.readouterr().out
    assert verdict["sentence"] in printed and "CT → MR-T1" in printed
    found = {(one["query"], one["gallery"]) for one in read_json(run / "retrieval.json")["directions"]}
    assert found == {("CT", "MR-T1"), ("MR-T1", "CT")}
    assert "PCA of the joint space" in (run / "report.html").read_text()
    assert main(["demo", "--method", "cmcl", "--dims", "2", "--out", str(out)]) == 2
    assert "cmcl compares volumes" in capsys.readouterr().err


def test_steps_below_zero_are_refused_before_anything_is_written(tmp_path, capsys):
    assert main(["demo", "--steps", "-1", "--out", str(tmp_path / "demo")]) == 2
    assert "--steps is -1" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
