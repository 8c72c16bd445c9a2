"""Weights: how they begin; how they leave medssl and come back, plain tensors under the names of their network."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from medssl.errors import UserError
from medssl.rng import key


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """Within, layers draw their first weights from ``seed``; a user's own generator goes on undisturbed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "weights") % 2**63)
        yield


def export_state(encoder: nn.Module) -> dict[str, Tensor]:
    """Contiguous CPU tensors. A ResNet's names are MONAI's own: they load with ``strict=True`` there."""
    return {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}


def load_state(encoder: nn.Module, state: Mapping[str, Tensor], where: object = None) -> None:
    """Load every weight or none: a missing, unknown or differently shaped one is an error that names it."""
    own = encoder.state_dict()
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    place = None if where is None else str(where)
    if shapes:
        name = shapes[0]
        what = f"{len(shapes)} weights have another shape, first {name}: {tuple(state[name].shape)}"
        raise UserError(
            f"{what} where the network has {tuple(own[name].shape)}", place, "use the same width, dims, channels"
        )
    if missing or unknown:
        what = f"{len(missing)} weights are missing and {len(unknown)} unknown, first {(missing + unknown)[0]}"
        raise UserError(what, place, "make the network with the encoder and norm of encoder.json")
    encoder.load_state_dict(state)


def to_dynunet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``unet`` or ``resunet`` under the names of MONAI's ``DynUNet`` (load with ``strict=False``)."""
    last = max(int(name.split(".")[1]) for name in state)
    places = {0: "input_block", last: "bottleneck"} | {i: f"downsamples.{i - 1}" for i in range(1, last)}
    renamed = {}
    for name, value in state.items():
        _, level, rest = name.split(".", 2)
        renamed[f"{places[int(level)]}.{rest}"] = value
    return renamed
