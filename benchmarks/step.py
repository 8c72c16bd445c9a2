"""Row 1. A full PCRL step (views, losses, EMA, queue, optimiser) beside its bare passes on random tensors."""

from collections.abc import Iterator

from benchmarks.case import Case, flops
from benchmarks.measure import Metric, paired
from medssl.engine.machine import fast_bf16


def metrics(pairs: int, quick: bool) -> Iterator[Metric]:
    """2D and 3D, in float32 and, where a run would take it, in bfloat16; then where the overhead lies.

    The update costs the same whatever the batch, views and losses grow with it, so a larger batch has less overhead.
    """
    for name, arguments in cases(quick).items():
        for precision in ("float32", "bf16")[: 1 + fast_bf16("cpu")]:
            case = Case(*arguments, bf16=precision == "bf16")
            if precision == "float32":
                ratio = flops(case.step) / flops(case.bare_step)
                yield Metric(
                    row=1, name=f"arithmetic ÷ bare passes, {name}", value=ratio, goal="<= 1.001", note="count"
                )
                assert flops(case.step, "conv") == flops(case.bare_step, "conv")
            told = f"÷ bare passes, {name}, {precision}"
            yield paired(1, f"time of a step {told}", "<= 1.1", case.step, case.bare_step, pairs)
            few = max(3, pairs // 3)
            yield paired(1, f"of it views {told}", "", case.make_views, case.bare_step, few)
            yield paired(1, f"of it optimiser, EMA, queue {told}", "", case.update, case.bare_step, few)


def cases(quick: bool) -> dict[str, tuple[int, int, int, tuple[int, ...]]]:
    """Name → dims, batch, width of the encoder, size."""
    if quick:
        return {"2D 64², batch 4, width 16": (2, 4, 16, (64, 64)), "3D 16³, batch 2, width 8": (3, 2, 8, (16, 16, 16))}
    return {
        "2D 224², batch 8, width 64": (2, 8, 64, (224, 224)),
        "3D 64×64×32, batch 2, width 16": (3, 2, 16, (64, 64, 32)),
    }
