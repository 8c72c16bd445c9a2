"""Files are whole or absent; folders have one writer."""

import json
import multiprocessing
import tomllib

import pytest

from medssl.errors import UserError
from medssl.files import FORMAT, KINDS, atomic, check_format, locked, read_json, read_toml, write_json, write_toml


def test_an_error_while_writing_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"x": float("nan"), "y": [float("inf"), 1.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": [None, 1.5]}


def test_toml_goes_round_and_leaves_none_out(tmp_path):
    write_toml(tmp_path / "a.toml", {"a": 1, "b": None, "c": {"d": (1, 2)}, "p": tmp_path})
    assert tomllib.loads((tmp_path / "a.toml").read_text()) == {
        "a": 1,
        "c": {"d": [1, 2]},
        "p": str(tmp_path),
    }


@pytest.mark.parametrize("read", [read_json, read_toml])
@pytest.mark.parametrize("content", ["{]", "\x00\xff", None])
def test_a_broken_file_is_named(tmp_path, read, content):
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=str(path)):
        read(path)


def test_another_format_is_refused(tmp_path):
    check_format({"format": FORMAT}, tmp_path)
    with pytest.raises(UserError, match="format 999"):
        check_format({"format": 999}, tmp_path)


def _try_lock(folder, answer):
    try:
        with locked(folder, "RUN"):
            answer.put("got it")
    except UserError as error:
        answer.put(str(error))


def test_a_second_process_is_told_who_holds_the_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    with locked(tmp_path, "RUN"):
        other = context.Process(target=_try_lock, args=(tmp_path, answer))
        other.start()
        said = answer.get(timeout=60)
        other.join()
    assert "in use by process" in said
    with locked(tmp_path, "RUN"):
        assert (tmp_path / ".lock").read_text().startswith("process")


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("I/O error: full (os error 28)")])
def test_a_full_disk_names_the_file_whoever_finds_it(tmp_path, error):
    with pytest.raises(OSError, match="No space left") as told, atomic(tmp_path / "a.bin"):
        raise error
    assert (told.value.errno, told.value.filename) == (28, str(tmp_path / "a.bin"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    for kind, (mark, _) in KINDS.items():
        with pytest.raises(UserError, match=rf"holds 'thesis\.tex' but no {mark}"), locked(tmp_path, kind):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("wanted", KINDS)
def test_a_folder_of_one_kind_becomes_no_other(tmp_path, there, wanted):
    (tmp_path / KINDS[there][0]).write_text("")
    if there == wanted:
        with locked(tmp_path, wanted):
            return
    with pytest.raises(UserError, match=f"the folder is a {there}, not a {wanted}"), locked(tmp_path, wanted):
        pass
    assert [p.name for p in tmp_path.iterdir()] == [KINDS[there][0]]


def test_a_folder_whose_first_files_are_there_may_be_finished(tmp_path):
    for kind, (_, early) in KINDS.items():
        (tmp_path / kind).mkdir()
        for name in early:
            (tmp_path / kind / name).write_text("")
        with locked(tmp_path / kind, kind):
            pass


def test_a_place_where_no_folder_can_be_made_is_told(tmp_path, monkeypatch):
    def refuse(self, *given, **named):
        raise FileNotFoundError(2, "No such file or directory", str(self))  # what /proc says

    monkeypatch.setattr(type(tmp_path), "mkdir", refuse)
    with pytest.raises(UserError, match="no folder can be made here"), atomic(tmp_path / "x" / "y.png"):
        raise AssertionError("nothing is written")
