"""The loop: what it computes, when it computes it, and what stops it."""

from typing import Any

import pytest
import torch
from tiny import Tiny, tiny_batches
from torch.utils.flop_counter import FlopCounterMode

from medssl.contract import Shared, Term, one_graph
from medssl.engine.fit import NonFinite, Step, autocast_each, fit
from medssl.engine.machine import Machine, make_fabric
from medssl.engine.optim import make_optimizer
from medssl.rng import Rng


def flat(progress: float) -> float:
    return 1e-2


def train(method: Tiny, fabric: Any, steps: int = 6, **more: Any) -> list[Step]:
    batches = tiny_batches(more.get("start", 0))
    return list(fit(method, batches, make_optimizer(method, lr=1e-2), fabric, steps=steps, lr=flat, **more))


def test_a_run_repeats_bit_by_bit(tiny, fabric):
    first, second = (train(tiny(), fabric, seed=3) for _ in range(2))
    assert [s.floats() for s in first] == [s.floats() for s in second]


def test_chance_follows_the_seed(tiny, fabric):
    first, second = (train(tiny(), fabric, seed=seed)[-1].floats() for seed in (3, 4))
    assert first != second


def test_dropout_is_a_function_of_the_step_alone(tiny, fabric):
    # Whatever else draws from torch's generator between two steps must not reach the layers.
    plain = [s.floats() for s in train(tiny(), fabric)]
    disturbed, method = [], tiny()
    for step in fit(method, tiny_batches(), make_optimizer(method, lr=1e-2), fabric, steps=6, lr=flat):
        disturbed.append(step.floats())
        torch.rand(step.step)
    assert disturbed == plain


def test_a_step_equals_the_naive_loop(tiny, fabric):
    method, naive = tiny(norm=False), tiny(norm=False)
    optimizer = make_optimizer(naive, lr=1e-2)
    batches = tiny_batches()
    for done in range(6):
        with one_graph():
            terms = [
                i.value for i in naive.losses(naive.views(next(batches), Rng(0, done)), 0.0) if isinstance(i, Term)
            ]
        optimizer.zero_grad()
        sum(terms).backward()
        optimizer.step()
        naive.after_step(0.0)
    train(method, fabric)
    for name, value in method.state_dict().items():
        torch.testing.assert_close(value, naive.state_dict()[name], msg=name)


def test_progress_runs_from_zero_to_one_and_never_reaches_either(tiny, fabric):
    method = tiny()
    train(method, fabric, steps=4)
    assert [seen["progress"] for seen in method.seen] == [0.125, 0.375, 0.625, 0.875]


def test_logged_steps_are_every_nth_and_the_last(tiny, fabric):
    steps = train(tiny(), fabric, steps=7, log_every=3)
    assert [s.step for s in steps if s.logged] == [3, 6, 7]
    assert all(set(s.norms) == ({"rebuild", "small"} if s.logged else set()) for s in steps)
    assert all(norm > 0 for s in steps for norm in s.norms.values())


def test_a_step_tells_what_the_loader_cost(tiny, fabric):
    import time

    def slow():
        for batch in tiny_batches():
            time.sleep(0.02)
            yield batch

    method = tiny()
    step = next(fit(method, slow(), make_optimizer(method), fabric, steps=1, lr=flat))
    assert step.data_wait_s >= 0.02
    assert step.samples == 4


def test_clip_bounds_the_gradient(tiny, fabric):
    method = tiny()
    for _ in fit(method, tiny_batches(), make_optimizer(method), fabric, steps=3, lr=flat, clip=1e-3):
        norm = torch.stack([p.grad.norm() for p in method.parameters()]).norm()
        assert norm == pytest.approx(1e-3, rel=1e-3)


# Autocast ------------------------------------------------------------------------------------------------------------


def test_autocast_wraps_the_losses_and_nothing_else(tiny):
    fabric = make_fabric(Machine("cpu", "bf16", 1))
    method, outside = tiny(), []
    method.after_step = lambda progress: outside.append(torch.is_autocast_enabled("cpu"))
    for _ in fit(method, tiny_batches(), make_optimizer(method), fabric, steps=2, lr=flat):
        outside.append(torch.is_autocast_enabled("cpu"))
    assert all(seen["autocast"] for seen in method.seen)
    assert not any(outside)


def test_autocast_is_left_before_each_item(tiny):
    fabric = make_fabric(Machine("cpu", "bf16", 1))
    method = tiny()
    items = method.losses(method.views(next(tiny_batches()), Rng(0, 0)), 0.0)
    kinds = []
    for item in autocast_each(items, fabric.autocast):
        assert not torch.is_autocast_enabled("cpu")
        kinds.append(type(item))
        if isinstance(item, Term):
            item.value.backward()
    assert kinds == [Term, Term, Shared]


def test_no_arithmetic_beside_the_method(tiny, fabric):
    """Counted, not timed: the loop adds no matrix product or convolution to those of the method."""
    with FlopCounterMode(display=False) as bare:
        method = tiny()
        for item in method.losses(method.views(next(tiny_batches()), Rng(0, 0)), 0.5):
            item.backward() if isinstance(item, Shared) else item.value.backward()
    with FlopCounterMode(display=False) as driven:
        train(tiny(), fabric, steps=1)
    assert driven.get_total_flops() == bare.get_total_flops() > 0


# Stops ---------------------------------------------------------------------------------------------------------------


def test_a_term_that_is_no_number_stops_the_run_before_it_reaches_the_weights(tiny, fabric):
    method = tiny()
    method.poison = 3
    steps = fit(method, tiny_batches(), make_optimizer(method), fabric, steps=9, lr=flat)
    with pytest.raises(NonFinite, match=r"term 'small' became nan at step 4.*--lr") as caught:
        for step in steps:
            last = step.step
    assert last == 3
    assert caught.value.fix
    assert all(p.isfinite().all() for p in method.parameters())


def test_on_a_gpu_terms_are_read_when_a_log_line_is_due(tiny):
    from medssl.engine.fit import _Watch

    watch = _Watch(every=3)
    watch(1, {"a": torch.tensor(1.0), "b": torch.tensor(torch.inf)})
    watch(2, {"a": torch.tensor(torch.nan), "b": torch.tensor(2.0)})
    with pytest.raises(NonFinite, match="term 'b' became inf at step 1"):
        watch(3, {"a": torch.tensor(torch.nan), "b": torch.tensor(torch.nan)})


def test_evaluation_between_steps_does_not_last(tiny, fabric):
    method = tiny()
    for _ in fit(method, tiny_batches(), make_optimizer(method), fabric, steps=3, lr=flat):
        assert method.training
        method.eval()
