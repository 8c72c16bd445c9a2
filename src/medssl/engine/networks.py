"""What a person may ask of the networks beside their weights: less memory, or compiled code."""

import shutil

import torch

from medssl.contract import Method
from medssl.errors import UserError
from medssl.networks.decoder import Decoder
from medssl.networks.pyramid import Pyramid
from medssl.networks.recompute import set_recompute


def prepare(method: Method, checkpoint_activations: bool = False, compiled: bool = False) -> None:
    """Set encoders and decoders up before the first step."""
    if checkpoint_activations and compiled:
        raise UserError("--compile and --checkpoint-activations together", fix="choose one: torch compiles only one")
    set_recompute(method, checkpoint_activations)
    if not compiled:
        return
    if not torch.cuda.is_available() and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise UserError("torch.compile finds no C++ compiler", "--compile", "install one (g++), or leave it out")
    for part in method.modules():
        if isinstance(part, (Pyramid, Decoder)):
            part.compile()
