"""When memory runs out: try smaller batches here and now, and name values that fit."""

import gc
from collections.abc import Callable
from dataclasses import replace

import torch
from lightning.fabric import Fabric
from torch import Tensor

from medssl.contract import Batch, Method, backpropagate
from medssl.engine.fit import autocast_each
from medssl.errors import UserError
from medssl.rng import Rng


def exhausted(error: BaseException) -> bool:
    """True if an error means that memory ran out, on a GPU or in torch's CPU allocator."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        said in str(error) for said in ("out of memory", "DefaultCPUAllocator", "can't allocate memory")
    )


def advice(method: Method, fabric: Fabric, channels: int, batch: int, patch: tuple[int, ...]) -> UserError:
    """The error to raise: tries one step at half the batch, a quarter, … until one fits."""

    def attempt(size: int) -> None:
        image = torch.rand(size, channels, *method.region())
        place = torch.eye(len(patch) + 1, dtype=torch.float64).repeat(size, 1, 1)
        one = Batch.of(image, value_range=method.config.value_range, modality=torch.zeros(size, dtype=torch.long))
        _step(method, fabric, replace(one, place=place))

    return explain(largest_fitting(attempt, batch), batch, patch)


def largest_fitting(attempt: Callable[[int], None], batch: int) -> int:
    """The largest batch among batch/2, batch/4, …, 1 for which ``attempt`` does not run out of memory; 0 if none."""
    size = batch // 2
    while size:
        try:
            attempt(size)
            return size
        except Exception as error:
            if not exhausted(error):
                raise
        release()
        size //= 2
    return 0


def explain(fits: int, batch: int, patch: tuple[int, ...]) -> UserError:
    """Memory grows with batch × voxels: give up the one or the other."""
    told = "×".join(map(str, patch))
    what = f"out of memory with --batch {batch} and --patch {told}"
    # A patch of half the sides holds 1/4 (2D) or 1/8 (3D) of the voxels; sides stay multiples of what they were.
    halvings, share = 0, max(fits, 0.5) / batch
    while 2.0 ** (-len(patch) * halvings) > share:
        halvings += 1
    smaller = " ".join(str(max(1, side >> halvings)) for side in patch)
    if not fits:
        return UserError(what, fix=f"not even one sample fits; try --batch 1 --patch {smaller}, or a smaller --width")
    return UserError(what, fix=f"--batch {fits} fits; or keep the batch and take --patch {smaller}")


def release() -> None:
    """Give back what the failed step held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _step(method: Method, fabric: Fabric, batch: Batch) -> dict[str, Tensor]:
    method.zero_grad(set_to_none=True)
    with torch.no_grad():
        views = method.views(fabric.to_device(batch), Rng(0, 0))
    terms = backpropagate(autocast_each(method.losses(views, 0.5), fabric), fabric.backward)
    method.zero_grad(set_to_none=True)
    return terms
