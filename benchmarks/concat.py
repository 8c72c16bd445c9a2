"""Whether a decoder's convolution of two concatenated maps is faster as the sum of two, which needs no copy of them.

    OMP_NUM_THREADS=1 python -m benchmarks.concat [--pairs 21] [--device cpu]

Forward and backward of both forms by turns, channels last; the median ratio split ÷ concatenated. Both give one result.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import paired
from benchmarks.results import told

CASES = {  # maps of a decoder's levels, channels of each of the two
    "2D 8×64×112²": ((8, 64, 112, 112), torch.channels_last),
    "2D 8×256×28²": ((8, 256, 28, 28), torch.channels_last),
    "3D 2×16×64×64×32": ((2, 16, 64, 64, 32), torch.channels_last_3d),
    "3D 2×64×16×16×8": ((2, 64, 16, 16, 8), torch.channels_last_3d),
}


def main() -> None:
    """Print a line a case and precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    for name, (shape, layout) in CASES.items():
        for precision in (torch.float32, torch.bfloat16):
            split, whole = forms(shape, layout, precision, options.device)
            told_case = f"{name}, {str(precision).removeprefix('torch.')}: split ÷ concatenated"
            print(told(paired(1, told_case, "", split, whole, options.pairs, device=options.device)), flush=True)


def forms(
    shape: tuple[int, ...], layout: torch.memory_format, precision: torch.dtype, device: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The two forms as functions without arguments, on the same maps and weights; they are compared once."""
    channels, dims = shape[1], len(shape) - 2
    conv = (F.conv2d, F.conv3d)[dims - 2]
    a, b = (torch.randn(shape, device=device, dtype=precision).to(memory_format=layout) for _ in range(2))
    a.requires_grad_(), b.requires_grad_()
    weight = torch.randn(channels, 2 * channels, *(3,) * dims, device=device, dtype=precision)
    weight = (weight / (2 * channels * 3**dims) ** 0.5).to(memory_format=layout).requires_grad_()

    def whole() -> Tensor:
        return conv(torch.cat([a, b], 1), weight, padding=1)

    def split() -> Tensor:
        first, second = weight.split(channels, dim=1)
        return conv(a, first, padding=1) + conv(b, second, padding=1)

    torch.testing.assert_close(split(), whole(), rtol=0.05, atol=0.1 if precision is torch.bfloat16 else 1e-3)

    def trained(form: Callable[[], Tensor]) -> None:
        a.grad = b.grad = weight.grad = None
        form().float().square().mean().backward()

    return (lambda: trained(split)), (lambda: trained(whole))


if __name__ == "__main__":
    main()
