"""A training step on several processes of this machine, each on one core and with a batch of its own."""

import time

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from benchmarks.case import Case
from medssl import distributed
from medssl.engine.machine import Machine
from medssl.engine.ranks import launched

STEPS = 5


def seconds_a_step(world: int, arguments: tuple) -> float:
    """Of the slowest of ``world`` processes, by the clock; ``arguments`` are those of ``Case``."""
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=world, max_restarts=0, run_id="benchmark", rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
    )  # fmt: skip
    return max(elastic_launch(config, _rank)(arguments).values())


def _rank(arguments: tuple) -> float:
    with launched(Machine("cpu", "32", 1)):
        case = Case(*arguments)
        optimise = case.optimizer.step

        def averaged() -> None:
            distributed.average_gradients(case.model.parameters())
            optimise()

        case.optimizer.step = averaged  # type: ignore[method-assign, assignment]
        case.step()
        began = time.perf_counter()
        for _ in range(STEPS):
            case.step()
        return (time.perf_counter() - began) / STEPS
