"""One PCRL model, one batch, and the runs that are compared: the step, its bare passes, one graph, term by term."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.held import Held
from benchmarks.measure import Run
from medssl.contract import Batch, Shared, Term, Views, backpropagate, one_graph
from medssl.engine.fit import autocast_each
from medssl.engine.networks import prepare
from medssl.methods.pcrl import PCRL
from medssl.rng import Rng

ENCODERS = {2: "resnet18", 3: "poolunet"}
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
DTYPES = {"float32": None, "bf16": torch.bfloat16, "float16": torch.float16}


class Case:
    """``precision``: of the passes, by autocast; float16 scales its gradients, as a run does.

    The other keywords choose what a run chooses by itself; ``options`` are the method's.
    """

    def __init__(
        self,
        dims: int,
        batch: int,
        width: int,
        size: tuple[int, ...],
        *,
        precision: str = "float32",
        device: str = "cpu",
        contiguous: bool = False,
        fused: bool = True,
        compiled: bool = False,
        **options: object,
    ) -> None:
        model = PCRL(encoder=ENCODERS[dims], dims=dims, width=width, patch=size, queue=4096, **options)
        layout = torch.contiguous_format if contiguous else LAYOUTS[dims]
        self.model = model.to(device, memory_format=layout)
        prepare(self.model, compiled=compiled)
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=fused)
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "float16")
        self.batch = Batch.of(torch.rand(batch, 1, *model.region())).to(torch.device(device))
        self.views = self.model.views(self.batch, Rng(0, 0))
        self.noise = torch.randn(batch, 1, *size, device=device)
        self.device, self.dtype = device, DTYPES[precision]
        self.count = 0

    def step(self) -> None:
        """A whole training step."""
        self.make_views()
        self.branchwise()
        self.update()

    def make_views(self) -> None:
        """Other views of the batch."""
        self.count += 1
        self.views = self.model.views(self.batch, Rng(0, self.count))

    def update(self) -> None:
        """Optimiser, momentum encoder, queue."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.model.after_step(0.0)

    def bare_step(self) -> None:
        """The passes of a step without ``mix`` and nothing else, on random tensors."""
        model = self.model
        model.zero_grad(set_to_none=True)
        with self.precision():
            student = Shared(model.encoder(self.noise))
            with torch.no_grad():
                teacher = model.teacher["encoder"](self.noise)
        gate = torch.ones((), device=self.noise.device, requires_grad=True)
        for maps in (student.maps, [*teacher[:-1], teacher[-1] * gate], student.maps):
            with self.precision():
                value = model.decoder(maps).float().mean()
            self._backward(value)
        student.backward()

    def branchwise(self) -> None:
        """The passes with each term's backward at once."""
        self.model.zero_grad(set_to_none=True)
        backpropagate(self._items(), self._backward)

    def whole(self) -> None:
        """The passes with one backward of the sum."""
        self.model.zero_grad(set_to_none=True)
        with one_graph():
            terms = [item.value for item in self._items() if isinstance(item, Term)]
        self._backward(torch.stack(terms).sum())

    def precision(self) -> contextlib.AbstractContextManager:
        """Autocast, or nothing."""
        return torch.autocast(self.device, dtype=self.dtype) if self.dtype else contextlib.nullcontext()

    def held_bytes(self, run: Run) -> int:
        """Most bytes kept for a backward at one time."""
        held = Held(self.model.parameters())
        with torch.autograd.graph.saved_tensors_hooks(held.pack, held.unpack):
            run()
        return held.most

    def _backward(self, value: torch.Tensor) -> None:
        self.scaler.scale(value).backward()

    def _items(self) -> Iterator[Term | Shared]:
        self.model.noted = []  # passes without an update would pile their keys up
        return autocast_each(self.model.losses(self.views, 0.0), self.precision)


def flops(run: Run, only: str = "") -> int:
    """Of matrix products and convolutions, forward and backward; ``only``: those whose name holds it."""
    with FlopCounterMode(display=False) as counter:
        run()
    return sum(n for op, n in counter.get_flop_counts()["Global"].items() if only in str(op))


def moved(views: Views, device: str, dtype: torch.dtype | None = None) -> Views:
    """The views on a device, where ``dtype`` is given with floating-point numbers of it; the rest as it is."""

    def move(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        return x.to(device, dtype if x.is_floating_point() else None, non_blocking=True)

    return Views(*({name: move(x) for name, x in part.items()} for part in (views.images, views.drawn)))
