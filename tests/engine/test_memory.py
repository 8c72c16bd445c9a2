"""Out of memory, simulated: the advice must name values that were tried."""

import pytest
import torch

from medssl.engine.memory import advice, explain, largest_fitting


def hungry(most: int):
    tried = []

    def attempt(size: int) -> None:
        tried.append(size)
        if size > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    return attempt, tried


@pytest.mark.parametrize(("most", "fits", "sizes"), [(5, 4, [8, 4]), (8, 8, [8]), (1, 1, [8, 4, 2, 1]), (0, 0, None)])
def test_batches_are_halved_until_one_fits(most, fits, sizes):
    attempt, tried = hungry(most)
    assert largest_fitting(attempt, 16) == fits
    assert tried == (sizes or [8, 4, 2, 1])


@pytest.mark.parametrize(
    ("batch", "most", "fits", "sizes"),
    [(2, 1, 0, []), (4, 2, 2, [2]), (4, 1, 0, [2]), (12, 3, 3, [6, 3]), (5, 2, 2, [2])],
)
def test_no_batch_is_tried_that_the_method_cannot_take(batch, most, fits, sizes):
    attempt, tried = hungry(most)
    assert largest_fitting(attempt, batch, least=2) == fits and tried == sizes


def test_another_error_is_not_taken_for_memory():
    def attempt(size: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        largest_fitting(attempt, 16)


def test_the_patch_shrinks_as_much_as_the_batch_would():
    assert "--batch 4 fits; or keep the batch and take --patch 32 32 16" in str(explain(4, 16, (64, 64, 32)))
    assert "--batch 4 fits; or keep the batch and take --patch 112 112" in str(explain(4, 16, (224, 224)))
    assert "--batch 1 --patch" in str(explain(0, 16, (64, 64, 32)))


def test_the_advice_asks_for_no_batch_that_would_be_refused():
    told = str(explain(0, 2, (64, 64), least=2))
    assert told.startswith("out of memory with --batch 2 and --patch 64×64")
    assert "not even 2 fit, the fewest it can take; try --batch 2 --patch 32 32, or a smaller --width" in told
    assert "--batch 1" not in told
    assert "--batch 8 and" in (of_all := str(explain(2, 4, (64, 64), ranks=2))) and "--batch 4 fits" in of_all


def test_the_advice_comes_from_real_steps(tiny, fabric, monkeypatch):
    method = tiny()
    real, tried = method.encoder.forward, []

    def forward(x: torch.Tensor):
        tried.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(x)

    monkeypatch.setattr(method.encoder, "forward", forward)
    error = advice(method, fabric, channels=1, batch=12, patch=(16, 16))
    assert tried == [6, 3]
    assert "out of memory with --batch 12 and --patch 16×16" in str(error)
    assert "--batch 3 fits" in str(error)
    assert all(p.grad is None for p in method.parameters())
