"""The early stop of a pre-training: when its probes get no better, and which encoder is kept.

The learning rate falls over all steps of a run, so one that stops early ends at a high rate. That is why the encoder of
the best probe is kept, not the last one, also where the run reaches its end.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from medssl.contract import Method
from medssl.distributed import anywhere
from medssl.engine.record import FREE
from medssl.errors import UserError
from medssl.stages.options.train import Pretrain

# What a run may be resumed with other values of, but not where probes decide: when there are any, and of what.
PROBING = ("probe_every", "probe_target", "log_every")


@dataclass
class Patience:
    """The best probe so far. After ``probes`` of them in a row that were no better, training is ``over``."""

    probes: int | None
    """None: training goes on to its end, and the last encoder is kept."""
    best: float = -math.inf
    step: int = 0
    """Of the best probe."""
    waited: int = 0
    """Probes since then."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The whole method as it was then, on the CPU; on rank 0 alone."""

    @property
    def over(self) -> bool:
        """True once training should end."""
        return self.probes is not None and self.waited >= self.probes

    def see(self, step: int, found: Mapping[str, float], method: Method) -> None:
        """Take note of a probe; rank 0 has one."""
        now = score(found)
        if self.probes is None or now is None:
            return
        if now > self.best:
            weights = {name: value.to("cpu", copy=True) for name, value in method.state_dict().items()}
            self.best, self.step, self.waited, self.weights = now, step, 0, weights
        else:
            self.waited += 1

    def agree(self) -> None:
        """What rank 0 has decided holds for all; all ranks must call after a probe."""
        if self.probes is not None and anywhere(self.over):
            self.waited = self.probes

    def state(self) -> dict[str, Any]:
        """For the checkpoint: a resumed run decides as it would have."""
        return {} if self.probes is None else {"patience": {k: v for k, v in vars(self).items() if k != "probes"}}

    def said(self, done: int, steps: int, untrained: Mapping[str, float]) -> str:
        """What was decided after ``done`` steps, in a sentence."""
        before = score(untrained)
        kept = f"the encoder of step {self.step} is kept, with the best probe ({self.best:.3f}"
        kept += ")" if before is None else f"; untrained {before:.3f})"
        if before is not None and self.best <= before:
            kept += ", though none was better than before training"
        if done == steps:
            return kept
        many = "the last probe was" if self.probes == 1 else f"the last {self.probes} probes were"
        return f"{many} no better: training ends at step {done} of {steps}, its learning rate not yet down; {kept}"


def score(found: Mapping[str, float]) -> float | None:
    """What is to rise: the mean of all probes of an encoder; None where there are none."""
    probes = [value for name, value in found.items() if name.startswith("probe.")]
    return sum(probes) / len(probes) if probes else None


def check_probes(options: Pretrain, there: bool) -> None:
    """Refuse patience where no probe is ``there``."""
    if options.patience is not None and not there:
        what = "nothing to probe: no label that training patients differ in, and no masks of theirs"
        raise UserError(what, "--patience", "give them labels or masks, or leave it out")


def free(options: Pretrain) -> frozenset[str]:
    """Options that a resumed run may have other values of."""
    return FREE if options.patience is None else FREE.difference(PROBING)


def probing(options: Pretrain) -> dict[str, Any]:
    """The options that decide when training ends, beyond its steps; none without patience."""
    if options.patience is None:
        return {}
    every, target = options.probe_every, options.probe_target
    own = {"patience": options.patience, "probe_every": every, "probe_target": target or ""}
    return own | {"log_every": options.loop.log_every}  # a probe falls on a logged step
