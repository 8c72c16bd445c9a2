"""A state on disk: bit-equal when it comes back, whole or absent, never one that holds NaN."""

import errno
from unittest.mock import Mock

import pytest
import torch
from tiny import tiny_batches
from torch import nn

from medssl.engine import checkpoint
from medssl.engine.fit import NonFinite, fit
from medssl.engine.optim import make_optimizer
from medssl.errors import UserError


def flat(progress: float) -> float:
    return 1e-2 * (1 - progress)


def rest(method, optimizer, fabric, start, steps):
    batches = tiny_batches(start)
    return [s.floats() for s in fit(method, batches, optimizer, fabric, steps=steps, start=start, lr=flat)]


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_resumed_run_gives_the_same_bits(tiny, fabric, tmp_path, kind):
    method = tiny()
    optimizer = make_optimizer(method, name=kind)
    terms = []
    for step in fit(method, tiny_batches(), optimizer, fabric, steps=12, lr=flat):
        terms.append(step.floats())
        if step.step == 5:
            checkpoint.save(tmp_path, method, optimizer, fabric, 5, {"note": [1, "two"]})

    again = tiny()
    with torch.no_grad():
        again.decoder.bias.add_(1)
    optimizer = make_optimizer(again, name=kind)
    found = checkpoint.load(tmp_path, again, optimizer, fabric)
    assert (found.step, found.extra) == (5, {"note": [1, "two"]})
    assert rest(again, optimizer, fabric, 5, 12) == terms[5:]
    assert all(torch.equal(value, method.state_dict()[name]) for name, value in again.state_dict().items())


def test_without_a_checkpoint_a_run_begins_at_zero(tiny, fabric, tmp_path):
    method = tiny()
    assert checkpoint.load(tmp_path, method, make_optimizer(method), fabric).step == 0


def test_the_file_is_safe_to_load(tiny, fabric, tmp_path):
    method = tiny()
    checkpoint.save(tmp_path, method, make_optimizer(method), fabric, 1)
    state = torch.load(tmp_path / checkpoint.NAME, weights_only=True)
    assert state["step"] == 1


@pytest.mark.parametrize("where", ["decoder.weight", "average"])
def test_a_state_with_nan_does_not_replace_a_good_one(tiny, fabric, tmp_path, where):
    method = tiny()
    optimizer = make_optimizer(method)
    checkpoint.save(tmp_path, method, optimizer, fabric, 1)
    method.state_dict()[where].fill_(torch.nan)
    with pytest.raises(NonFinite, match=rf"'{where}'.*step 2"):
        checkpoint.save(tmp_path, method, optimizer, fabric, 2)
    assert checkpoint.load(tmp_path, tiny(), make_optimizer(tiny()), fabric).step == 1


def test_a_checkpoint_of_another_architecture_is_refused(tiny, fabric, tmp_path):
    method = tiny()
    checkpoint.save(tmp_path, method, make_optimizer(method), fabric, 1)
    other = tiny()
    other.decoder = nn.ConvTranspose2d(8, 2, 4, 4)
    with pytest.raises(UserError, match=r"another architecture: .*decoder"):
        checkpoint.load(tmp_path, other, make_optimizer(other), fabric)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_file_is_named(tiny, fabric, tmp_path, content):
    method = tiny()
    checkpoint.save(tmp_path, method, make_optimizer(method), fabric, 1)
    path = tmp_path / checkpoint.NAME
    path.write_bytes(path.read_bytes()[:1000] if content is None else content)
    with pytest.raises(UserError, match=r"cannot be read.*state\.pt.*delete it"):
        checkpoint.load(tmp_path, method, make_optimizer(method), fabric)


def test_want_of_memory_is_not_told_as_damage(tiny, fabric, tmp_path, monkeypatch):
    """Whoever is told so deletes a good checkpoint."""
    method = tiny()
    checkpoint.save(tmp_path, method, make_optimizer(method), fabric, 1)
    monkeypatch.setattr(torch, "load", Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        checkpoint.load(tmp_path, method, make_optimizer(method), fabric)


def test_a_folder_that_cannot_be_written_to_is_not_told_as_a_full_disk(tiny, fabric, tmp_path, monkeypatch):
    method = tiny()
    refused = OSError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(type(tmp_path), "touch", Mock(side_effect=refused))
    with pytest.raises(OSError) as caught:
        checkpoint.save(tmp_path, method, make_optimizer(method), fabric, 1)
    assert caught.value.errno == errno.EACCES


def test_a_full_disk_leaves_the_old_state_and_nothing_half_written(tiny, fabric, tmp_path, monkeypatch):
    method = tiny()
    optimizer = make_optimizer(method)
    checkpoint.save(tmp_path, method, optimizer, fabric, 1)

    def full(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file data/0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError) as caught:
        checkpoint.save(tmp_path, method, optimizer, fabric, 2)
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in (tmp_path / "checkpoint").iterdir()] == ["state.pt"]
    assert checkpoint.load(tmp_path, method, optimizer, fabric).step == 1


def test_saving_is_due_by_steps_or_by_minutes(monkeypatch):
    by_steps = checkpoint.Timer(steps=3, minutes=0.0)
    assert [step for step in range(1, 8) if by_steps.due(step)] == [3, 6]
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    by_minutes = checkpoint.Timer(steps=0, minutes=1.0)
    due = []
    for step in range(1, 8):
        now[0] += 25
        due += [step] if by_minutes.due(step) else []
    assert due == [3, 6]
