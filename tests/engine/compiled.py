"""What a process of its own runs in test_networks.py: there no hook checks shapes, which torch could not compile."""

import copy

import torch

from medssl.contract import backpropagate
from medssl.engine.networks import prepare
from medssl.methods.genesis import Genesis
from medssl.rng import Rng


def gradients(method: Genesis) -> list[torch.Tensor]:
    """Of one step on two images."""
    images = torch.rand(2, 1, *method.region(), generator=torch.Generator().manual_seed(0))
    backpropagate(method.losses(method.views(method._wrap(images, None, None), Rng(0, 0)), 0.5))
    return [p.grad for p in method.parameters()]


def main() -> None:
    # Batch norm over two samples of one position would magnify the rounding, in which compiled code may differ.
    plain = Genesis(encoder="unet", dims=2, channels=1, width=4, patch=(32, 32), norm="group")
    compiled = copy.deepcopy(plain)
    prepare(compiled, compiled=True)
    for a, b in zip(gradients(plain), gradients(compiled), strict=True):
        assert float((a - b).abs().max()) <= 1e-3 * float(a.abs().max())
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    print("equal")


if __name__ == "__main__":
    main()
