"""Self-supervised pre-training for medical images, on your own unlabelled scans, with a verdict."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medssl.data.text import Tokenizer
    from medssl.errors import UserError
    from medssl.fine_tuned import Classifier, Segmenter, load_finetuned
    from medssl.loading import load
    from medssl.methods.cmcl import CMCL, CMCLConfig
    from medssl.methods.dae import DAE, DAEConfig
    from medssl.methods.genesis import Genesis, GenesisConfig
    from medssl.methods.mae import MAE, MAEConfig
    from medssl.methods.moco import MoCo, MoCoConfig
    from medssl.methods.pcrl import PCRL, PCRLConfig
    from medssl.methods.pcrlv2 import PCRLv2, PCRLv2Config
    from medssl.methods.simclr import SimCLR, SimCLRConfig
    from medssl.networks.text import Text, Vector

# Imported when first asked for, so that `import medssl` and the command line's help load no torch.
_HOMES = {
    "CMCL": "medssl.methods.cmcl",
    "CMCLConfig": "medssl.methods.cmcl",
    "Classifier": "medssl.fine_tuned",
    "DAE": "medssl.methods.dae",
    "DAEConfig": "medssl.methods.dae",
    "Genesis": "medssl.methods.genesis",
    "GenesisConfig": "medssl.methods.genesis",
    "MAE": "medssl.methods.mae",
    "MAEConfig": "medssl.methods.mae",
    "MoCo": "medssl.methods.moco",
    "MoCoConfig": "medssl.methods.moco",
    "PCRL": "medssl.methods.pcrl",
    "PCRLConfig": "medssl.methods.pcrl",
    "PCRLv2": "medssl.methods.pcrlv2",
    "PCRLv2Config": "medssl.methods.pcrlv2",
    "Segmenter": "medssl.fine_tuned",
    "SimCLR": "medssl.methods.simclr",
    "SimCLRConfig": "medssl.methods.simclr",
    "Text": "medssl.networks.text",
    "Tokenizer": "medssl.data.text",
    "UserError": "medssl.errors",
    "Vector": "medssl.networks.text",
    "load": "medssl.loading",
    "load_finetuned": "medssl.fine_tuned",
}
__all__ = [
    "CMCL",
    "DAE",
    "MAE",
    "PCRL",
    "CMCLConfig",
    "Classifier",
    "DAEConfig",
    "Genesis",
    "GenesisConfig",
    "MAEConfig",
    "MoCo",
    "MoCoConfig",
    "PCRLConfig",
    "PCRLv2",
    "PCRLv2Config",
    "Segmenter",
    "SimCLR",
    "SimCLRConfig",
    "Text",
    "Tokenizer",
    "UserError",
    "Vector",
    "load",
    "load_finetuned",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medssl' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
