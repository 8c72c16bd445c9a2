"""Pre-training methods, by name. A new one: a file, a row here, a test and a line (docs/how-to/add-a-method.md)."""

from importlib import import_module
from typing import Any

from medssl.errors import UserError

# name: "module:Config:Method"; strings, so that listing the methods imports none of them
METHODS = {
    "pcrl": "medssl.methods.pcrl:PCRLConfig:PCRL",
    "pcrlv2": "medssl.methods.pcrlv2:PCRLv2Config:PCRLv2",
    "dae": "medssl.methods.dae:DAEConfig:DAE",
    "cmcl": "medssl.methods.cmcl:CMCLConfig:CMCL",
    "simclr": "medssl.methods.simclr:SimCLRConfig:SimCLR",
    "moco": "medssl.methods.moco:MoCoConfig:MoCo",
    "mae": "medssl.methods.mae:MAEConfig:MAE",
    "genesis": "medssl.methods.genesis:GenesisConfig:Genesis",
}


def resolve(name: str) -> tuple[Any, Any]:
    """The configuration class and the method class of a name."""
    if name not in METHODS:
        raise UserError(f"no method '{name}'", fix=f"choose one of {', '.join(METHODS)}")
    module, config, method = METHODS[name].split(":")
    found = import_module(module)
    return getattr(found, config), getattr(found, method)
