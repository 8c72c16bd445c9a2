"""What each of two processes runs in test_ranks.py: the fit on its share of every batch."""

import json
import sys

import torch
from tiny import Tiny, tiny_batches

from medssl import distributed
from medssl.engine.fit import fit
from medssl.engine.machine import Machine, make_fabric, place
from medssl.engine.optim import make_optimizer
from medssl.engine.stop import Stop


def main(out: str) -> None:
    fabric = make_fabric(Machine("cpu", "32", 1))
    torch.manual_seed(0)
    method = place(fabric, Tiny(norm=False), 2)
    first = 2 * distributed.rank()
    batches = tiny_batches(first=first, last=first + 2)
    told = []
    with Stop() as stop:
        optimizer = make_optimizer(method, lr=1e-2)
        for step in fit(method, batches, optimizer, fabric, steps=5, lr=lambda progress: 1e-2):  # type: ignore[arg-type]
            told.append({"samples": step.samples, **step.floats()})
            stop.requested = step.step == 3 and distributed.rank() == 1  # one rank is asked: both stop
            if stop.due(agreed=step.logged or step.step == 3):
                break
    if fabric.is_global_zero:
        weights = {name: value.tolist() for name, value in method.state_dict().items()}
        with open(out, "w") as handle:  # noqa: PTH123
            json.dump({"steps": told, "weights": weights}, handle)


if __name__ == "__main__":
    main(sys.argv[1])
