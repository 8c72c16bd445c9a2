"""What a PCRL step costs beyond its passes, and what going branch by branch saves. One JSON line a metric.

    python benchmarks/step.py [--dims 2] [--batch 4] [--size 224 224] [--device cpu] [--pairs 21] [--threads 1]

Times are ratios of runs that alternate in one process, the median with a bootstrap interval; that both sides do the
same convolutions is asserted first.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from medssl.contract import Batch, Shared, Term, backpropagate, one_graph
from medssl.methods.pcrl import PCRL
from medssl.rng import Rng

Run = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, default=2)
    parser.add_argument("--encoder", default=None)
    parser.add_argument("--width", type=int, default=None)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, nargs="+", default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    case = Case(args)
    case.say("step_overhead", **case.compare(case.step, case.bare_step))
    for mix in (False, True):
        case = Case(args, mix=mix)
        saved = {"bytes_ratio": case.held_bytes(case.branchwise) / case.held_bytes(case.whole)}
        case.say("branchwise_vs_one_graph", mix=mix, **saved, **case.compare(case.branchwise, case.whole))


class Case:
    """One model, one batch, and the runs that are compared."""

    def __init__(self, args: argparse.Namespace, **options: object) -> None:
        encoder = args.encoder or ("resnet18" if args.dims == 2 else "poolunet")
        size = tuple(args.size or ((224, 224) if args.dims == 2 else (64, 64, 32)))
        layout = torch.channels_last if args.dims == 2 else torch.channels_last_3d
        self.args, self.device = args, torch.device(args.device)
        model = PCRL(encoder=encoder, dims=args.dims, width=args.width, patch=size, queue=4096, **options)
        self.model = model.to(self.device).to(memory_format=layout)
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
        self.batch = Batch.of(torch.rand(args.batch, 1, *model.region())).to(self.device)
        self.views = model.views(self.batch, Rng(0, 0))
        self.noise = torch.randn(args.batch, 1, *size, device=self.device)
        self.count = 0
        self.facts = {"encoder": encoder, "size": size, "batch": args.batch, "device": args.device}

    def step(self) -> None:
        """A whole training step."""
        self.count += 1
        views = self.model.views(self.batch, Rng(0, self.count))
        self.optimizer.zero_grad(set_to_none=True)
        backpropagate(self.model.losses(views, 0.0))
        self.optimizer.step()
        self.model.after_step(0.0)

    def bare_step(self) -> None:
        """The passes of a step and nothing else, on random tensors."""
        model = self.model
        model.zero_grad(set_to_none=True)
        student = Shared(model.encoder(self.noise))
        with torch.no_grad():
            teacher = model.teacher["encoder"](self.noise)
        gate = torch.ones((), device=self.device, requires_grad=True)
        for maps in (student.maps, [*teacher[:-1], teacher[-1] * gate], student.maps):
            model.decoder(maps).mean().backward()
        student.backward()

    def branchwise(self) -> None:
        """The passes with each term's backward at once."""
        self.model.zero_grad(set_to_none=True)
        backpropagate(self.model.losses(self.views, 0.0))

    def whole(self) -> None:
        """The passes with one backward of the sum."""
        self.model.zero_grad(set_to_none=True)
        with one_graph():
            terms = [item.value for item in self.model.losses(self.views, 0.0) if isinstance(item, Term)]
        torch.stack(terms).sum().backward()

    def compare(self, ours: Run, theirs: Run) -> dict[str, object]:
        """Median ratio of the times of two runs, with the interval that 95 % of bootstrap medians fall into."""
        assert convolutions(ours) == convolutions(theirs)
        times = np.array([[self.seconds(ours), self.seconds(theirs)] for _ in range(self.args.pairs + 2)])[2:]
        ratios = times[:, 0] / times[:, 1]
        draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
        seconds = [round(float(t), 4) for t in np.median(times, axis=0)]
        return {"time_ratio": float(np.median(ratios)), "interval": [float(low), float(high)], "seconds": seconds}

    def held_bytes(self, run: Run) -> int:
        """Most bytes kept for a backward at one time."""
        held = Held(self.model.parameters())
        with torch.autograd.graph.saved_tensors_hooks(held.pack, held.unpack):
            run()
        return held.most

    def seconds(self, run: Run) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def say(self, metric: str, **found: object) -> None:
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}
        print(json.dumps({"metric": metric, **rounded, **self.facts}), flush=True)


def convolutions(run: Run) -> int:
    """FLOPs of convolutions, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        run()
    return sum(n for op, n in counter.get_flop_counts()["Global"].items() if "convolution" in str(op))


class Held:
    """Counts bytes that autograd keeps for a backward: each storage once, parameters not."""

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        self.now = self.most = 0
        self.uses: Counter[int] = Counter()
        self.parameters = {p.untyped_storage().data_ptr() for p in parameters}

    def pack(self, x: torch.Tensor) -> object:
        storage = x.untyped_storage()
        return x if storage.data_ptr() in self.parameters else _Kept(self, x, storage.data_ptr(), storage.nbytes())

    @staticmethod
    def unpack(kept: object) -> torch.Tensor:
        return kept.x if isinstance(kept, _Kept) else kept  # type: ignore[return-value]

    def add(self, place: int, size: int) -> None:
        self.uses[place] += 1
        self.now += size * (self.uses[place] == 1)
        self.most = max(self.most, self.now)

    def drop(self, place: int, size: int) -> None:
        self.uses[place] -= 1
        self.now -= size * (self.uses[place] == 0)


class _Kept:
    def __init__(self, held: Held, x: torch.Tensor, place: int, size: int) -> None:
        self.held, self.x, self.place, self.size = held, x, place, size
        held.add(place, size)

    def __del__(self) -> None:
        self.held.drop(self.place, self.size)


if __name__ == "__main__":
    main()
