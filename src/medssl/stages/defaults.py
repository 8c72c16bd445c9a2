"""What a person leaves open in a pre-training, chosen from the scans and the machine; each choice with its reason.

The experiment behind every number stands in docs/explanation/defaults.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from medssl.config import to_table
from medssl.data.store import Store
from medssl.engine import record
from medssl.engine.machine import memory_gib
from medssl.stages.configure import optim_of
from medssl.stages.options.train import Pretrain

OPEN = ("steps", "batch")  # 0 leaves them to us
LOOKS = 50  # how often a run should see every scan
SHORTEST, LONGEST = 1_000, 20_000  # steps
BATCH = {2: 64, 3: 8}
NARROW = 16  # channels of the first level that a processor trains in hours
NARROW_SWIN = 24
SMALL_GPU = 12  # GiB


@dataclass(frozen=True)
class Choice:
    """One answer: the value of an option, and who gave it."""

    option: str
    value: Any
    why: str


def settled(options: Pretrain, store: Store, rows: Sequence[int]) -> tuple[Pretrain, list[Choice]]:
    """The options with every question answered for these scans, and the reasons.

    What was chosen for the first part of a run holds for the rest of it, whatever machine goes on; a command that ended
    before anything was learnt leaves nothing behind.
    """
    images, dims, gpu = len(rows), store.plan.dims, memory_gib(options.loop.device)
    kept = _before(record.begun(options.out))
    choices: list[Choice] = []

    def answer(option: str, value: Any, why: str) -> Any:
        if option in kept:
            value, why = kept[option], "chosen when the run began"
        choices.append(Choice(option, value, why))
        return value

    batch, steps, width = options.loop.batch, options.steps, options.model.width
    batch = batch or answer("batch", *_batch(images, dims))
    steps = steps or answer("steps", *_steps(images, batch))
    if width is None:
        width = answer("width", *_width(options.model.encoder, gpu))
    model = replace(options.model, width=width)
    return replace(options, steps=steps, model=model, loop=replace(options.loop, batch=batch)), choices


def explained(options: Pretrain, config: Any, choices: Sequence[Choice]) -> str:
    """A line for every option that shapes a run: its value, and why it was chosen or that a person gave it."""
    optim = optim_of(options)
    values = {
        "encoder": config.encoder, "width": config.width, "patch": "×".join(map(str, config.size)), "norm": config.norm,
        "batch": options.loop.batch, "steps": options.steps, "optimizer": optim.optimizer, "lr": optim.lr,
        "weight_decay": optim.weight_decay, "betas": optim.betas, "warmup": optim.warmup,
    }  # fmt: skip
    values |= {name: getattr(config, name) for name in ("view_strength", "queue", "momentum") if hasattr(config, name)}
    why = (
        {
            "patch": "given, or the prepared size in steps of the encoder's stride",
            "view_strength": "given, or as published: milder views gained nothing",
            "queue": "given, or keys no older than the teacher's memory, at most one a scan",
            "momentum": "given, or a teacher that reaches back over 5 % of a short run",
        }
        | dict.fromkeys(to_table(optim), "given, or the method's own")
        | {choice.option: choice.why for choice in choices}
    )
    shown = {
        name: "the architecture's own" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in values.items()
    }
    wide = max(map(len, shown.values()))
    return "\n".join(
        f"{name:<14} {shown[name]:<{wide}}  {why.get(name, 'given, or the same for all sizes')}" for name in values
    )


def _before(record: Mapping[str, Any]) -> dict[str, Any]:
    if not record:
        return {}
    tables = [record.get(name, {}) for name in ("options", "model", "loop")]
    merged = {"width": None}  # where none is recorded it was the architecture's own: TOML has no null
    merged |= {key: value for table in tables for key, value in table.items()}
    return {name: merged[name] for name in ("steps", "batch", "width") if name in merged}


def _batch(images: int, dims: int) -> tuple[int, str]:
    most = max(4, images // 4)
    if most < BATCH[dims]:
        return most, f"a quarter of {images} scans" if 4 * most <= images else f"the least, of {images} scans"
    return BATCH[dims], f"{dims}D"


def _steps(images: int, batch: int) -> tuple[int, str]:
    wanted = ceil(LOOKS * images / batch)
    steps = min(max(wanted, SHORTEST), LONGEST)
    looks = f"{steps * batch / images:.0f} looks at each of {images} scans"
    bound = {SHORTEST: ", no run is shorter", LONGEST: ", no run is longer unless you say so"}
    return steps, looks + bound.get(steps, "")


def _width(encoder: str, gpu_gib: float | None) -> tuple[int | None, str]:
    if gpu_gib is not None and gpu_gib >= SMALL_GPU:
        return None, f"the architecture's own: {gpu_gib:.0f} GiB on the GPU"
    where = "no GPU" if gpu_gib is None else f"{gpu_gib:.0f} GiB on the GPU"
    return (NARROW_SWIN if encoder == "swin" else NARROW), f"narrow: {where}"
