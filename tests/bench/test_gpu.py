"""`python -m benchmarks.gpu` on a processor: it comes to its end, keeps what it found, outlives a part that fails."""

import json

import pytest
import torch
from benchmarks import agreement, augment, gpu, results
from benchmarks.held import Moved
from benchmarks.measure import Metric
from benchmarks.served import served

QUICK = ["--device", "cpu", "--quick", "--out"]


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """What all parts found."""
    out = tmp_path_factory.mktemp("gpu")
    assert gpu.main([*QUICK, str(out), "--commit", "abc1234"]) == 0
    page = (out / "performance.md").read_text()
    assert all(f"### {row}. {results.TITLES[row]}" in page for row in gpu.PARTS)
    (kept,) = out.glob("*.json")
    return [json.loads(line) for line in kept.read_text().splitlines()]


def test_every_part_comes_to_its_end(lines):
    assert {line["row"] for line in lines} == set(gpu.PARTS)
    assert all(line["value"] is not None for line in lines)
    assert {line["commit"] for line in lines} == {"abc1234"}


def test_a_processor_computes_what_it_should(lines):
    exact = [line for line in lines if line["row"] == 9 and "bf16" not in line["name"]]
    assert len(exact) == 6 and all(line["met"] for line in exact), exact


def test_a_part_that_fails_says_why_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def metrics(pairs, quick, device):
        yield Metric(row=9, name="one", value=1.0)
        raise MemoryError("no room | at all\nmore")

    monkeypatch.setattr(agreement, "metrics", metrics)
    monkeypatch.setattr(gpu, "PARTS", {9: "agreement"})
    assert gpu.main([*QUICK, str(tmp_path)]) == 1
    assert "MemoryError: no room / at all" in capsys.readouterr().out
    assert "| one | 1 |" in (tmp_path / "performance.md").read_text()


def test_nothing_is_begun_when_the_time_is_over(tmp_path, capsys):
    assert gpu.main([*QUICK, str(tmp_path), "--minutes", "0"]) == 0
    assert capsys.readouterr().out.count("the time was over") == len(gpu.PARTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence_and_exit_2(capsys):
    assert gpu.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_results_of_a_gpu_are_kept_under_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU 80GB")
    pages = []
    for device in ("cpu", "cuda"):
        results.keep(1, [Metric(row=1, name=device, value=1.0)], device=device, folder=tmp_path)
        results.write_page(tmp_path, tmp_path / "page.md")
        pages.append((tmp_path / "page.md").read_text())
    assert len(list(tmp_path.glob("some-gpu-80gb-*.json"))) == 1 and len(list(tmp_path.glob("*.json"))) == 2
    assert ["No GPU has been at hand" in page for page in pages] == [True, False]
    assert "## Some GPU 80GB" in pages[1]


def test_processes_make_the_views_that_this_one_makes():
    here, there = (next(served(augment.Made((2, 2, 4, (32, 32)), views=True), workers)) for workers in (0, 1))
    assert all(there[name].equal(x) for name, x in here.images.items())
    assert augment.Made((2, 2, 4, (32, 32)), views=False)[0].image.dtype == torch.int16


def test_an_error_in_a_gradient_is_seen():
    """The comparison can fail: a loss that is a thousandth too large."""
    steps = agreement.reference(agreement.TINY[2], 1)
    steps[0].terms[0] *= 1.001
    steps[0].gradients = [1.001 * g for g in steps[0].gradients]
    found = agreement.errors(steps, agreement.TINY[2], "cpu", "float32")
    assert found["terms"] == pytest.approx(1e-3, rel=0.02) and found["gradients"] > 5e-4


def test_bytes_moved_are_those_read_and_written():
    x = torch.ones(1000)
    with Moved() as moved:
        y = (x.view(10, 100) + 1).t()  # one operation: 4000 bytes in, 4000 out
        y.add_(1)  # read, and written in place
    assert moved.bytes == 4 * 4000
