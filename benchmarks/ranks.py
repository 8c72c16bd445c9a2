"""A training step on several processes of this machine, each on one core and with a batch of its own."""

import time
from typing import NamedTuple

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from benchmarks.case import Case
from medssl import distributed
from medssl.engine.machine import Machine
from medssl.engine.ranks import launched

STEPS = 5


class Spent(NamedTuple):
    """Seconds of a step: by the clock of the slowest process, and of CPU of the busiest (waiting takes none)."""

    clock: float
    cpu: float


def seconds_a_step(world: int, arguments: tuple) -> Spent:
    """On ``world`` processes; ``arguments`` are those of ``Case``."""
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=world, max_restarts=0, run_id="benchmark", rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
    )  # fmt: skip
    each = elastic_launch(config, _rank)(arguments).values()
    return Spent(max(spent.clock for spent in each), max(spent.cpu for spent in each))


def _rank(arguments: tuple) -> Spent:
    with launched(Machine("cpu", "32", 1)):
        case = Case(*arguments)
        optimise = case.optimizer.step

        def averaged() -> None:
            distributed.average_gradients(case.model.parameters())
            optimise()

        case.optimizer.step = averaged  # type: ignore[method-assign, assignment]
        case.step()
        began = time.perf_counter(), time.process_time()
        for _ in range(STEPS):
            case.step()
        return Spent((time.perf_counter() - began[0]) / STEPS, (time.process_time() - began[1]) / STEPS)
