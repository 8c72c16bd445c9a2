"""A training state on disk: one file, whole or absent, that holds tensors and plain values and runs no code."""

import errno
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from medssl import files
from medssl.engine.fit import REMEDY, NonFinite
from medssl.engine.optim import load_state
from medssl.engine.parts import exhausted
from medssl.errors import UserError

NAME = "checkpoint/state.pt"


@dataclass
class Checkpoint:
    """What ``load`` found: the steps done, and what the caller kept beside the weights."""

    step: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


class Timer:
    """When to save: every ``steps`` steps if that is set, else every ``minutes``."""

    def __init__(self, steps: int, minutes: float) -> None:
        self.steps, self.seconds = steps, 60 * minutes
        self.last = time.monotonic()

    def due(self, step: int) -> bool:
        """True if the state after ``step`` is to be saved; the minutes count from there."""
        if self.steps:
            return step % self.steps == 0
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True


def save(
    run: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    fabric: Fabric,
    step: int,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Replace the run's checkpoint, in one rename; rank 0 writes. ``extra``: plain values and tensors.

    A state that holds NaN or infinities is refused, so that the last good checkpoint stays.
    """
    if not fabric.is_global_zero:
        return
    model = module.state_dict()
    _refuse_nonfinite(model, step)
    state = {
        "format": files.FORMAT,
        "step": step,
        "model": model,
        "optimizer": optimizer.state_dict(),
        "precision": fabric.strategy.precision.state_dict(),
        "extra": dict(extra or {}),
    }
    with files.atomic(run / NAME) as temporary:
        temporary.touch()  # a folder that cannot be written to says so here, by its number
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            # torch's writer reports a full disk as a RuntimeError without a number.
            raise OSError(errno.ENOSPC, f"cannot write the checkpoint: {error}", str(run / NAME)) from error


def load(run: Path, module: nn.Module, optimizer: torch.optim.Optimizer, fabric: Fabric) -> Checkpoint:
    """Restore the run's checkpoint in place; step 0 where there is none."""
    path = run / NAME
    if not path.exists():
        return Checkpoint()
    try:
        state = torch.load(path, map_location=fabric.device, weights_only=True)
        files.check_format(state, path)
        model, precision, step, extra = (state[key] for key in ("model", "precision", "step", "extra"))
        moments = state["optimizer"]
    except (RuntimeError, EOFError, KeyError, ValueError, UnpicklingError) as error:
        if exhausted(error):  # the file is whole
            raise
        raise UserError("the checkpoint is damaged and cannot be read", path, "delete it to begin anew") from None
    try:
        module.load_state_dict(model)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        fix = "choose another --out"
        raise UserError(f"checkpoint is of another architecture: {reason}", path, fix) from None
    load_state(optimizer, moments)
    fabric.strategy.precision.load_state_dict(precision)
    return Checkpoint(step, extra)


def _refuse_nonfinite(model: Mapping[str, torch.Tensor], step: int) -> None:
    floating = {name: value for name, value in model.items() if value.is_floating_point() and value.numel()}
    norms = torch._foreach_norm(list(floating.values()))
    total = torch.stack([norm.float() for norm in norms]).tolist()
    bad = [name for name, norm in zip(floating, total, strict=True) if not math.isfinite(norm)]
    if bad:
        raise NonFinite(f"weights '{bad[0]}' are not finite at step {step}", fix=REMEDY)
