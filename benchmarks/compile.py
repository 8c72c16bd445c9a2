"""What torch.compile of encoder and decoder brings a PCRL step, and after how many steps it has paid for itself.

    python benchmarks/compile.py [--dims 2] [--batch 4] [--size 96 96] [--width 32] [--pairs 21] [--threads 1]

Two copies of one model step by turns in this process, after warm-up; the median ratio with a bootstrap interval.
"""

import argparse
import copy
import json
import time

import numpy as np
import torch

from medssl.engine.networks import prepare
from medssl.methods.pcrl import PCRL

WARM = 3


def main() -> None:
    """Measure on this machine's CPU, or GPU where --device says so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, nargs="+", default=(96, 96))
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    layout = torch.channels_last if args.dims == 2 else torch.channels_last_3d
    model = PCRL(encoder=args.encoder, dims=args.dims, width=args.width, patch=tuple(args.size), queue=1024)
    plain = model.to(args.device).to(memory_format=layout)
    compiled = copy.deepcopy(plain)
    prepare(compiled, compiled=True)
    images = torch.rand(args.batch, 1, *plain.region())
    arms = [Arm(plain, images), Arm(compiled, images)]
    warm_s = [sum(arm.seconds() for _ in range(WARM)) for arm in arms]
    times = np.array([[arm.seconds() for arm in arms] for _ in range(args.pairs)])
    ratios = times[:, 1] / times[:, 0]
    medians = np.median(np.random.default_rng(0).choice(ratios, (2000, len(ratios))), axis=1)
    plain_s, compiled_s = np.median(times, axis=0)
    extra_s = warm_s[1] - WARM * compiled_s
    found = {
        "metric": "compiled_step_ratio", "value": round(float(np.median(ratios)), 4),
        "interval": np.percentile(medians, (2.5, 97.5)).round(4).tolist(), "compile_s": round(extra_s, 1),
        "pays_after_steps": round(extra_s / (plain_s - compiled_s)) if compiled_s < plain_s else None,
        "step_s": round(float(plain_s), 4), "size": list(args.size), "batch": args.batch, "device": args.device,
    }  # fmt: skip
    print(json.dumps(found))


class Arm:
    """A model with its optimiser."""

    def __init__(self, model: PCRL, images: torch.Tensor) -> None:
        self.model, self.images = model, images
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)

    def seconds(self) -> float:
        """Of one step; reading the terms waits for the device."""
        began = time.perf_counter()
        self.model.step(self.images, self.optimizer)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
