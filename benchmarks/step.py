"""Row 1. A full PCRL step (views, losses, EMA, queue, optimiser) beside its bare passes on random tensors."""

from collections.abc import Iterator

from benchmarks.case import Case, flops
from benchmarks.measure import Metric, paired
from medssl.engine.machine import fast_bf16, memory_gib

LARGE_GIB = 40  # from which on a GPU holds the large batches on one graph


def metrics(pairs: int, quick: bool, device: str = "cpu") -> Iterator[Metric]:
    """2D and 3D, in float32 and, where a run would take it, in bfloat16; then where the overhead lies.

    The update costs the same whatever the batch, views and losses grow with it, so a larger batch has less overhead.
    """
    for name, arguments in cases(quick, device).items():
        for precision in ("float32", "bf16")[: 1 + fast_bf16(device)]:
            case = Case(*arguments, precision=precision, device=device)
            if precision == "float32":
                ratio = flops(case.step) / flops(case.bare_step)
                yield Metric(
                    row=1, name=f"arithmetic ÷ bare passes, {name}", value=ratio, goal="<= 1.001", note="count"
                )
                assert flops(case.step, "conv") == flops(case.bare_step, "conv")
            told = f"÷ bare passes, {name}, {precision}"
            goal = "<= 1.1" if device == "cpu" else "<= 1.05"
            yield paired(1, f"time of a step {told}", goal, case.step, case.bare_step, pairs, device=device)
            few = max(3, pairs // 3)
            for part, run in {"views": case.make_views, "optimiser, EMA, queue": case.update}.items():
                yield paired(1, f"of it {part} {told}", "", run, case.bare_step, few, device=device)


def cases(quick: bool, device: str = "cpu") -> dict[str, tuple[int, int, int, tuple[int, ...]]]:
    """Name → dims, batch, width of the encoder, size. A GPU has batches that keep it busy, and that it can hold."""
    large = (64, 32) if (memory_gib(device) or 0) > LARGE_GIB else (16, 8)
    flat, deep = (8, 2) if device == "cpu" else large
    sizes = [(2, flat, 64, (224, 224)), (3, deep, 16, (64, 64, 32))]
    if quick:
        sizes = [(2, 2, 8, (64, 64)), (3, 2, 4, (16, 16, 16))]
    return {_name(*arguments): arguments for arguments in sizes}


def _name(dims: int, batch: int, width: int, size: tuple[int, ...]) -> str:
    sides = f"{size[0]}²" if dims == 2 else f"{size[0]}³" if len(set(size)) == 1 else "×".join(map(str, size))
    return f"{dims}D {sides}, batch {batch}, width {width}"
