"""Several image encoders side by side, one a modality, that share all, some or none of their weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from medssl.config import ModelConfig
from medssl.errors import UserError
from medssl.networks.pyramid import ENCODERS, Pyramid, build_encoder, check_patch
from medssl.networks.text import Text, Vector

Share = Literal["nothing", "trunk", "all"]
OWN = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def image_towers(configs: Sequence[ModelConfig], share: Share = "nothing") -> list[Pyramid]:
    """An encoder for each of ``configs``, as plain pyramids whose weights load by themselves.

    ``trunk``: what follows the first level is one set of weights; the first level and every normalisation layer stay
    each modality's own. ``all``: one encoder for all of them.
    """
    # Named differently wherever it was published (modality-specific stems; domain-specific batch norm,
    # arXiv:2001.03111). Ours: both, so that what a tower normalises by is the same in training and after it (ADR 0016).
    if share != "nothing" and len({c.encoder for c in configs}) > 1:
        raise UserError(
            f"{' and '.join(sorted({c.encoder for c in configs}))} cannot share weights",
            fix="give all modalities one encoder, or share=nothing",
        )
    towers = [build_encoder(config) for config in (configs[:1] if share == "all" else configs)]
    for tower, config in zip(towers, configs, strict=False):
        check_patch(tower, config.size)
    if share == "trunk":
        for other in towers[1:]:
            _tie(other, towers[0])
    return towers * len(configs) if share == "all" else towers


@dataclass(frozen=True)
class Towers:
    """Which towers a method has: an encoder's name for each image modality, and what stands beside the images."""

    names: tuple[str, ...]
    encoders: tuple[str, ...]
    beside: str | None
    kind: Text | Vector | None

    @property
    def all(self) -> tuple[str, ...]:
        """The names of all."""
        return self.names if self.beside is None else (*self.names, self.beside)


def plan_towers(config: Any, towers: Mapping[str, Any] | None) -> Towers:
    """The towers that a person named, or those of ``config``: its modalities, and "text" where it wants one."""
    if towers is None:
        kind: Text | Vector | None = None
        if config.text == "tokens":
            vocab = config.text_size or config.text_vocab
            kind = Text(vocab=vocab, length=config.text_length, model=config.text_model)
        elif config.text == "vector":
            kind = Vector(config.text_size)
        towers = dict.fromkeys(config.modalities, config.encoder) | ({} if kind is None else {"text": kind})
    for name, tower in towers.items():
        if not isinstance(tower, Text | Vector) and tower not in ENCODERS:
            fix = f"give one of {', '.join(ENCODERS)}, a medssl.Text or a medssl.Vector"
            raise UserError(f"tower '{name}' is {tower!r}", fix=fix)
    images = tuple(name for name, tower in towers.items() if isinstance(tower, str))
    beside = [name for name in towers if name not in images]
    if len(beside) > 1 or not images or len(towers) < 2:
        what = f"towers for {', '.join(repr(n) for n in towers) or 'nothing'}"
        fix = "give two image modalities, or one and a text or vector (only one of these)"
        raise UserError(f"{what}: nothing to align", fix=fix)
    encoders = tuple(towers[name] for name in images)
    return Towers(images, encoders, beside[0] if beside else None, towers[beside[0]] if beside else None)


def _tie(tower: Pyramid, first: Pyramid) -> None:
    parts = dict(first.named_modules())
    for path, module in tower.named_modules():
        if isinstance(module, OWN) or any(path == name or path.startswith(f"{name}.") for name in tower.stem):
            continue
        for name, _ in list(module.named_parameters(recurse=False)):
            setattr(module, name, getattr(parts[path], name))
