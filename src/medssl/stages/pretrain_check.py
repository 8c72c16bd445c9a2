"""What a method asks of the scans, the batch and the ranks of a run, told before it trains."""

from collections.abc import Iterator

import torch

from medssl.contract import Method
from medssl.data.store import Store
from medssl.distributed import world_size
from medssl.engine.parts import Parts
from medssl.errors import UserError, raise_all
from medssl.stages.options.train import Pretrain
from medssl.stages.paired import check_batch


def check_scans(options: Pretrain, method: Method, store: Store, rows: list[int]) -> None:
    """What the method asks of the scans, of the batch and of batch norm on several ranks; and who cuts the crops."""
    if options.cache == "device" and options.loop.workers:
        fix = "leave --workers out, or give --cache on"
        raise UserError(f"--workers {options.loop.workers} cannot cut crops in the memory of a device", fix=fix)
    method.check_scans(*(torch.from_numpy(codes[rows]) for codes in (store.modalities, store.patients)))
    if options.sync_norm:
        raise_all(_not_in_step(method, getattr(method.config, "batch_groups", 1)))
    check_batch(method, store, rows, options.loop.batch, options.sync_norm)
    Parts(method, options.loop.batch // world_size(), options.accumulate or 1).check()


def _not_in_step(method: Method, groups: int) -> Iterator[UserError]:
    """Why the batch norms of the ranks cannot be one."""
    if groups > 1:
        yield UserError("--sync-norm joins the statistics that --batch-groups keeps apart", fix="choose one of them")
    if hasattr(method, "kinds"):  # a rank whose share lacks a modality would not come to the other's call
        yield UserError("--sync-norm does not go with an encoder for each modality", fix="choose --norm group")
