"""Reports: whole without their parts, closed to the network, and silent about who, when and where."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medssl.files import read_json, write_json
from medssl.report.ledger import Ledger
from medssl.report.page import write_run_report, write_study_report
from medssl.report.study import confusions

VOID = {"meta", "img", "br", "path", "use"}


class Structure(HTMLParser):
    """Collects ids, links to other places, and tags that were never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.outside: list[str] = []
        self.inside: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "data", "action"):
                (self.inside if value.startswith(("#", "data:")) else self.outside).append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    return write_study_report(study).read_text()


def sections(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def test_the_study_report_holds_every_part(page):
    assert sections(page) == [
        "Label efficiency", "Scores", "Predictions against truth", "Views and their reconstructions", "Loss terms",
        "Collapse and probes", "Map of the embedding", "Data", "Leak checks", "Configuration", "Versions",
    ]  # fmt: skip
    assert 'class="missing"' not in page and page.count("<svg") >= 8 and page.count("data:image/png") > 20


def test_the_verdict_comes_first_and_says_what_verdict_json_says(page, study):
    found = read_json(study / "verdict.json")
    assert re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)[1] == found["sentence"]
    for level in found["labels"]:
        for comparison in level["comparisons"]:
            assert comparison["sentence"] in page
            assert f"{comparison['difference']:+.3f}".replace("-", "−") in page
    assert all(note in page for note in found["notes"])


def test_the_page_needs_no_network_and_runs_nothing(page):
    found = Structure(page)
    assert not found.outside and not found.open
    assert not re.search(r"<script|@import|url\((?!#)|<link|<iframe|\bon\w+=", page)
    assert len(found.ids) == len(set(found.ids)), "ids are unique, or figures would borrow each other's markers"
    assert {link[1:] for link in found.inside if link.startswith("#")} <= set(found.ids)


def test_no_ids_dates_or_paths(page, study):
    run = (
        write_run_report(study / "pretrain/pcrl").read_text() + write_run_report(study / "runs/pcrl-n4-s0").read_text()
    )
    visible = re.sub(r'data:image/png;base64,[^"]+', "", page + run)
    assert "secret-patient" not in visible and "/home/someone" not in visible and str(study) not in visible
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", visible.replace("2000/svg", ""))


def test_what_a_user_names_is_escaped(study, tmp_path):
    copied = tmp_path / "study"
    shutil.copytree(study, copied)
    data = read_json(copied / "data.json")
    data["labels"] = {"<script>alert(1)</script>": {"<b>yes</b>": 3}}
    write_json(copied / "data.json", data)
    text = write_study_report(copied).read_text()
    assert "<script>" not in text and "&lt;b&gt;yes" in text


def test_parts_without_files_say_so(study, tmp_path):
    copied = tmp_path / "study"
    copied.mkdir()
    for name in ("verdict.json", "study.toml"):
        shutil.copy(study / name, copied / name)
    text = write_study_report(copied).read_text()
    assert text.count('class="missing"') >= 2 and "No run has finished" in text and "Label efficiency" in text
    (copied / "study.toml").unlink()
    assert "The run recorded none" in write_study_report(copied).read_text()


def test_an_empty_run_folder_still_gives_a_page(tmp_path):
    text = write_run_report(tmp_path).read_text()
    for sentence in ("The run kept no samples", "Too few scans", "No steps were logged", "has not finished"):
        assert sentence in text


def test_a_broken_file_costs_its_part_only(study, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(study / "pretrain/pcrl", run)
    (run / "samples.npz").write_bytes(b"not an archive")
    text = write_run_report(run).read_text()
    assert "The run kept no samples" in text and "t-SNE" in text


def test_the_report_of_a_pre_training(study):
    text = write_run_report(study / "pretrain/pcrl").read_text()
    assert 'class="missing"' not in text and "0.52 to 0.72" in text
    assert "asked for" in text and "turn 90°" in text


def test_a_method_without_a_gate_still_shows_its_pictures(study, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(study / "pretrain/pcrl", run)
    with np.load(run / "samples.npz") as kept:
        some = {name: kept[name] for name in ("view", "target", "rebuilt")}
    np.savez(run / "samples.npz", **some)
    text = write_run_report(run).read_text()
    part = text.split("Views and their reconstructions")[-1].split("<h2")[0]
    assert part.count("data:image/png") == 3 * 4 and "asked for:" not in part and "turn 90°" not in text


def test_a_method_without_a_decoder_shows_its_views(study, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(study / "pretrain/pcrl", run)
    with np.load(run / "samples.npz") as kept:
        np.savez(run / "samples.npz", view=kept["view"], other=kept["target"])
    text = write_run_report(run).read_text()
    part = text.split("<h2")[1]
    assert ">Views<" in part and "other view" in part and part.count("data:image/png") == 2 * 4
    assert "A row is a training image: its views." in part and "rebuilt" not in part


def test_the_report_of_a_fine_tuning(study):
    text = write_run_report(study / "runs/pcrl-n4-s0").read_text()
    assert re.search(r"Test Dice 0\.\d{3} after segmentation was learnt from 4 labelled patients", text)
    assert "HD95 (mm)" in text and sections(text)[1] == "Predictions against truth"


def test_the_same_files_give_the_same_page(study, page):
    assert write_study_report(study).read_text() == page


def test_warnings_stand_above_the_verdict(study, tmp_path):
    copied = tmp_path / "study"
    shutil.copytree(study, copied)
    found = read_json(copied / "verdict.json") | {
        "transductive": True,
        "failed": ["runs/x"],
        "warnings": ["Mind <this>."],
    }
    write_json(copied / "verdict.json", found)
    text = write_study_report(copied).read_text()
    for sentence in ("Transductive:", "1 runs failed", "Mind &lt;this&gt;."):
        assert sentence in text.split("<main>")[0]


def test_unknown_intervals_are_drawn_as_unknown(study, tmp_path):
    copied = tmp_path / "study"
    shutil.copytree(study, copied)
    found = read_json(copied / "verdict.json")
    for level in found["labels"]:
        for comparison in level["comparisons"]:
            comparison["interval"] = [None, None]
        for band in level["arms"].values():
            band["interval"] = [None, None]
    write_json(copied / "verdict.json", found)
    assert "unknown to unknown" in write_study_report(copied).read_text()


def test_only_structures_of_the_task_are_drawn(study, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(study / "runs/pcrl-n4-s0", run)
    assert "structure 2" in write_run_report(run).read_text()
    write_json(run / "result.json", read_json(run / "result.json") | {"structures": ["1"]})
    assert "structure 2" not in write_run_report(run).read_text()


def test_classes_are_counted_by_what_they_are_called():
    truth, prob = np.eye(2)[[0, 0, 0, 1]], np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    columns = {f"truth.{c}": truth[:, k] for k, c in enumerate(("no", "yes"))}
    columns |= {f"prob.{c}": prob[:, k] for k, c in enumerate(("no", "yes"))}
    frame = pl.DataFrame(columns)
    rows = [{"arm": "scratch", "n_labels": n, "seed": s, "key": f"{n}{s}"} for n in (4, 8) for s in range(2)]
    (found,) = confusions(Ledger(rows, {row["key"]: frame for row in rows}), 4)
    assert found.rows == [["scratch", "no", "67%", "33%"], ["scratch", "yes", "0%", "100%"]]
    findings = frame.with_columns(pl.lit(1.0).alias("truth.no"))  # both may be true: no choice
    assert confusions(Ledger(rows, {row["key"]: findings for row in rows}), 4) == []
