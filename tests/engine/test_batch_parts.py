"""A batch in parts: equal to the whole, made by memory that runs out, refused where it would mean something else."""

import pytest
import torch
from tiny import Tiny, tiny_batches

from medssl.engine.fit import fit
from medssl.engine.machine import Machine, make_fabric
from medssl.engine.optim import make_optimizer
from medssl.engine.parts import Parts, exhausted
from medssl.errors import UserError


def train(method, fabric, parts=None, steps=4):
    return list(
        fit(
            method,
            tiny_batches(),
            make_optimizer(method, lr=1e-2),
            fabric,
            steps=steps,
            lr=lambda progress: 1e-2,
            log_every=2,
            parts=parts,
        )
    )


def hungry(method: Tiny, most: int, monkeypatch) -> list[int]:
    """An encoder for which memory ends at ``most`` samples, after it has moved statistics; returns the sizes seen."""
    real, seen = method.encoder.forward, []

    def forward(x: torch.Tensor):
        seen.append(len(x))
        maps = real(x)
        if len(x) > most:
            method.norm(maps[-1])
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return maps

    monkeypatch.setattr(method.encoder, "forward", forward)
    return seen


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_run_in_parts_is_the_run(tiny, fabric, count):
    whole, split = tiny(norm=False), tiny(norm=False)
    expected = train(whole, fabric)
    found = train(split, fabric, Parts(split, 4, count))
    for a, b in zip(expected, found, strict=True):
        assert a.floats() == pytest.approx(b.floats(), rel=1e-5)
        assert a.norms == pytest.approx(b.norms, rel=1e-4)
        assert (a.samples, a.parts, b.parts) == (b.samples, 1, count)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, split.state_dict()[name], atol=1e-6, rtol=1e-4, msg=name)


def test_memory_that_runs_out_makes_parts_once_and_says_so(tiny, fabric, monkeypatch):
    given, method, told = tiny(), tiny(), []
    expected = train(given, fabric, Parts(given, 4, 2))
    sizes = hungry(method, 2, monkeypatch)
    parts = Parts(method, 4, tell=told.append)
    found = train(method, fabric, parts)
    assert sizes == [4] + [2] * 8  # one failed attempt, then two parts a step to the end
    assert told == [
        "out of memory: the 4 samples of a step go in 2 parts of 2 from here on, their gradients added up: the same "
        "batch and the same objective; batch norm now averages over 2"
    ]
    # To the bit what --accumulate 2 gives: nothing is left of the attempt, in statistics, chance or gradients.
    assert [s.floats() for s in found] == [s.floats() for s in expected]
    assert [s.norms for s in found] == [s.norms for s in expected]
    assert all(torch.equal(v, method.state_dict()[k]) for k, v in given.state_dict().items())


def test_it_ends_where_parts_can_be_no_smaller(tiny, fabric, monkeypatch):
    for norm, sizes in ((False, [4, 2, 1]), (True, [4, 2])):  # batch norm needs two samples
        method = tiny(norm)
        seen = hungry(method, 0, monkeypatch)
        with pytest.raises(torch.OutOfMemoryError):
            train(method, fabric, Parts(method, 4))
        assert seen == sizes


def test_a_method_that_compares_the_batch_keeps_it_whole(tiny, fabric, monkeypatch):
    method = tiny(norm=False)
    method.coupled = "it compares all images"
    seen = hungry(method, 2, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        train(method, fabric, Parts(method, 4))
    assert seen == [4]
    with pytest.raises(UserError, match="--accumulate 2 would change what is learnt, since it compares all images"):
        Parts(method, 4, 2).check()


def test_a_method_with_gradient_caching_is_told_how_much_fits(tiny):
    method = tiny(norm=False)
    method.coupled, method.cached, tried = "it compares all images", True, []

    def step(rows):
        tried.append((rows, method.chunk))
        if not 0 < method.chunk <= 2:
            raise torch.OutOfMemoryError
        return "done"

    parts = Parts(method, 6)
    assert parts.run(step) == "done"
    assert tried == [([slice(0, 6)], chunk) for chunk in (0, 3, 2)] and parts.count == 4
    assert "by gradient caching" in parts.sentence()
    method.chunk = 5
    assert (Parts(method, 6).count, method.chunk, Parts(method, 6, 3).count, method.chunk) == (2, 5, 3, 2)


def test_another_error_is_passed_on(tiny, fabric, monkeypatch):
    method = tiny()
    monkeypatch.setattr(method.encoder, "forward", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(method, fabric, Parts(method, 4))


def test_more_parts_than_there_can_be_are_refused(tiny):
    with pytest.raises(UserError, match="--accumulate 5 for 4 samples: give 4 or less"):
        Parts(tiny(norm=False), 4, 5).check()
    with pytest.raises(UserError, match=r"--accumulate 3 .* batch norm averages over 2 samples or more: give 2 or"):
        Parts(tiny(), 4, 3).check()
    Parts(tiny(), 4, 2).check()
    assert Parts(tiny(), 4, 8).count == 2  # a run resumed on more ranks


def test_parts_under_bf16(tiny):
    fabric = make_fabric(Machine("cpu", "bf16", 1))
    whole, split = tiny(norm=False), tiny(norm=False)
    expected, found = train(whole, fabric), train(split, fabric, Parts(split, 4, 2))
    assert found[-1].floats() == pytest.approx(expected[-1].floats(), rel=2e-2)


@pytest.mark.parametrize(
    ("error", "yes"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_memory_counts_as_memory(error, yes):
    assert exhausted(error) is yes
