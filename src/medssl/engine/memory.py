"""When memory runs out: try smaller batches here and now, and name values that fit."""

import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from medssl.contract import Batch, Method, backpropagate
from medssl.engine.fit import Step, autocast_each
from medssl.engine.parts import exhausted, release
from medssl.errors import UserError
from medssl.rng import Rng


def advised(steps: Iterator[Step], advice: Callable[[], UserError]) -> Iterator[Step]:
    """``steps``; memory that runs out in one whose parts can be no smaller becomes the error that says what to do."""
    try:
        yield from steps
        return
    except Exception as error:
        if not exhausted(error):
            raise
    # Outside the handler: the traceback that it keeps would hold the failed step's memory.
    release()
    raise advice()


def advice(
    method: Method,
    fabric: Fabric,
    channels: int,
    batch: int,
    patch: tuple[int, ...],
    least: int = 1,
    ranks: int = 1,
    whole: str = "",
) -> UserError:
    """The error to raise: tries one step at half the batch, a quarter, … until one fits, or ``least`` is passed.

    ``batch`` and ``least`` are of one rank; what the error says of ``--batch`` is of all of them.
    ``whole`` says why a step cannot take its batch in parts.
    """

    def attempt(size: int) -> None:
        image = torch.rand(size, channels, *method.region())
        place = torch.eye(len(patch) + 1, dtype=torch.float64).repeat(size, 1, 1)
        truth: dict[str, Any] = {
            "label": torch.zeros(size, 1),
            "mask": torch.ones(size, *method.region(), dtype=torch.int16),
        }
        one = Batch.of(image, value_range=method.config.value_range, modality=torch.zeros(size, dtype=torch.long))
        _step(method, fabric, replace(one, place=place, **truth))

    return explain(largest_fitting(attempt, batch, least), batch, patch, least, ranks, whole)


def largest_fitting(attempt: Callable[[int], None], batch: int, least: int = 1) -> int:
    """The largest of batch/2, batch/4, …, ``least`` for which ``attempt`` does not run out of memory; 0 if none."""
    size = max(batch // 2, least)
    while size < batch:
        try:
            attempt(size)
            return size
        except Exception as error:
            if not exhausted(error):
                raise
        release()
        if size == least:
            break
        size = max(size // 2, least)
    return 0


def explain(
    fits: int, batch: int, patch: tuple[int, ...], least: int = 1, ranks: int = 1, whole: str = ""
) -> UserError:
    """Memory grows with batch × voxels: give up the one or the other."""
    told = "×".join(map(str, patch))
    what = f"out of memory with --batch {batch * ranks} and --patch {told}"
    what += f", which is not taken in parts, since {whole}" if whole else ""
    # A patch of half the sides holds 1/4 (2D) or 1/8 (3D) of the voxels; sides stay multiples of what they were.
    halvings, share = 0, (fits or least / 2) / batch
    while 2.0 ** (-len(patch) * halvings) > share:
        halvings += 1
    smaller = " ".join(str(max(1, side >> halvings)) for side in patch)
    if fits:
        return UserError(what, fix=f"--batch {fits * ranks} fits; or keep the batch and take --patch {smaller}")
    few = "not even one sample fits" if least * ranks == 1 else f"not even {least * ranks} fit, the fewest it can take"
    return UserError(what, fix=f"{few}; try --batch {least * ranks} --patch {smaller}, or a smaller --width")


def _step(method: Method, fabric: Fabric, batch: Batch) -> dict[str, Tensor]:
    method.zero_grad(set_to_none=True)
    with torch.no_grad():
        views = method.views(fabric.to_device(batch), Rng(0, 0))
    terms = backpropagate(autocast_each(method.losses(views, 0.5), fabric.autocast), fabric.backward)
    method.zero_grad(set_to_none=True)
    return terms


def peak_bytes(device: torch.device) -> int:
    """Most memory in use so far: of this process on a CPU, of torch's tensors on an accelerator."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
