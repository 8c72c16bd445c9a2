"""metrics.jsonl, the clock and the progress line."""

import json
import sys

import pytest
import torch

from medssl.engine import log
from medssl.engine.fit import Step
from medssl.errors import UserError


def step(number: int, **more) -> Step:
    terms = {"a": torch.tensor(1.5), "b": torch.tensor(0.25)}
    return Step(step=number, terms=terms, lr=0.1, data_wait_s=0.0, samples=4, logged=True, **more)


def test_rows_are_flat_and_named(tmp_path):
    with log.Log(tmp_path, "pcrl", 0, 10) as diary:
        diary.count(step(1))
        diary.count(step(2))
        diary.write(step(2, norms={"a": 2.0}), {"effective_rank": 3.0})
    (row,) = log.read(tmp_path)
    assert {k: row[k] for k in ("step", "a", "b", "lr", "norm.a", "effective_rank")} == {
        "step": 2, "a": 1.5, "b": 0.25, "lr": 0.1, "norm.a": 2.0, "effective_rank": 3.0
    }  # fmt: skip
    assert set(row) - {"step", "a", "b", "lr", "norm.a", "effective_rank"} == {
        "samples_per_s",
        "data_wait",
        "elapsed_s",
    }


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path):
    metrics = log.Metrics(tmp_path, 0)
    for number in (5, 10, 15):
        metrics.write({"step": number, "loss": number / 10})
    log.Metrics(tmp_path, 10).write({"step": 15, "loss": 9.0})
    assert log.read(tmp_path) == [{"step": 5, "loss": 0.5}, {"step": 10, "loss": 1.0}, {"step": 15, "loss": 9.0}]


def test_the_time_of_a_run_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(log.time, "perf_counter", lambda: now[0])
    for start, waited in ((0, 1000.0), (2, 0.0)):
        with log.Log(tmp_path, "pcrl", start, 10) as diary:
            now[0] += 7.0
            diary.write(step(start + 2))
        now[0] += waited
    assert [row["elapsed_s"] for row in log.read(tmp_path)] == [7.0, 14.0]


def test_a_run_that_starts_anew_forgets_all(tmp_path):
    log.Metrics(tmp_path, 0).write({"step": 0, "rank": 1.0})
    log.Metrics(tmp_path, 0)
    assert log.read(tmp_path) == []


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path):
    (tmp_path / log.NAME).write_text('{"step": 5, "loss": 1.0}\n{"step": 10, "lo')
    log.Metrics(tmp_path, 20).write({"step": 25})
    lines = (tmp_path / log.NAME).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 25]


def test_a_rank_above_zero_neither_writes_nor_speaks(tmp_path, capsys):
    with log.Log(tmp_path, "pcrl", 0, 1, silent=True) as diary:
        diary.count(step(1))
        diary.write(step(1))
        diary.say("hello")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_the_clock_counts_neither_the_first_step_nor_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(log.time, "perf_counter", lambda: now[0])
    clock = log.Clock(steps=11)
    now[0] += 100  # loader processes start
    clock.add(4, 99.0)
    for _ in range(5):
        now[0] += 2
        clock.add(4, 0.5)
    with clock.paused():
        now[0] += 50
    assert clock.lap(6) == {"samples_per_s": 2.0, "data_wait": 0.25, "eta_s": 10.0}


def test_without_a_terminal_lines_come_now_and_then_and_at_the_end(tmp_path, capsys):
    with log.Log(tmp_path, "pcrl", 0, 40) as diary:
        for number in (10, 20, 30, 40):
            diary.count(step(number))
            diary.write(step(number))
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in said] == ["10/40", "40/40"]
    assert all(word in said[1] for word in ("a 1.5", "b 0.25", "samples/s", "ETA", "data wait"))


def test_slow_training_is_told_in_seconds_a_sample(tmp_path, capsys):
    line = log.Line("pcrl", 0, 2)
    line.show(1, {}, {"eta_s": 90.0, "samples_per_s": 0.04, "data_wait": 0.5})
    assert "1/2  ETA 1:30  25 s a sample  data wait 50%" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "told"), [(0.4, "0:00"), (125, "2:05"), (3725, "1:02:05")])
def test_times_are_told_as_clocks_tell_them(seconds, told):
    assert log.clock(seconds) == told


def test_tensorboard_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"medssl\[tensorboard\]"):
        log.Metrics(tmp_path, 0, tensorboard=True)


@pytest.mark.parametrize("broken", [b'{"step": 2', b"\xff\xfe", b"[]", b'{"a": 1}'])
def test_rows_end_where_the_file_is_broken(tmp_path, broken):
    (tmp_path / log.NAME).write_bytes(b'{"step": 1}\n' + broken + b"\n")
    assert log.read(tmp_path) == [{"step": 1}]
