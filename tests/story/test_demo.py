"""The demo, short: the whole way in one command, and again at no cost."""

import time

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
    began = time.process_time()
    assert main(["demo", "--short", "--out", str(out)]) == 0
    assert time.process_time() - began < 10, "a second call only looks"
    assert (out / "study/results.jsonl").read_text() == done
