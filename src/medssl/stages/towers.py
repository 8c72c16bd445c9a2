"""The towers of a run of several modalities, as files: an encoder each, and what brings them into one space."""

import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from medssl import files
from medssl.config import from_table
from medssl.data.text import HuggingFaceTokenizer, Tokenizer
from medssl.errors import UserError
from medssl.loading import find_weights, read_card
from medssl.methods import resolve
from medssl.networks.weights import export_state, load_state
from medssl.stages.paired import TOKENIZER, Reader

ALIGN = "align.safetensors"
TOWERS = "space.towers."
TRAINING_ONLY = ("decoders.", "voxels.", "words.")  # not needed to embed


def tower_file(modality: str) -> str:
    """encoder-MODALITY.safetensors."""
    return f"encoder-{re.sub(r'[^A-Za-z0-9.-]+', '_', modality) or 'unknown'}.safetensors"


def write_towers(run: Path, method: Any) -> dict[str, str]:
    """An encoder's weights for each modality and align.safetensors; returns the files by modality for encoder.json."""
    named = dict(zip(method.kinds.names, method.space.pyramids, strict=True))
    for modality, tower in named.items():
        files.write_bytes(run / tower_file(modality), save(export_state(tower)))
    rest = {k: v.clone() for k, v in export_state(method).items() if not k.startswith((TOWERS, *TRAINING_ONLY))}
    files.write_bytes(run / ALIGN, save(rest))  # copies: where towers share all, their heads are one
    return {modality: tower_file(modality) for modality in named}


def load_towers(run: Path) -> tuple[Any, dict[str, Any], Reader | None]:
    """The method of a finished run in evaluation mode, its card, and its tokenizer."""
    card = read_card(find_weights(run))
    if "towers" not in card:
        what = f"a run of {card.get('method', 'another method')} has no space of several modalities"
        raise UserError(what, run, "give a run of `medssl pretrain cmcl`")
    config_kind, method_kind = resolve(card["method"])
    config = from_table(config_kind, card["encoder"] | card["method_config"], run / "encoder.json")
    method = method_kind(config)
    for tower, modality in zip(method.space.pyramids, method.kinds.names, strict=True):
        path = run / card["towers"][modality]
        load_state(tower, _weights(path), path)
    missing = method.load_state_dict(_weights(run / ALIGN), strict=False).missing_keys
    lost = [key for key in missing if not key.startswith((TOWERS, *TRAINING_ONLY))]
    if lost:
        raise UserError(f"{len(lost)} weights are missing, {lost[0]} among them", run / ALIGN, "copy the run again")
    method.eval()
    return method, card, _reader(run, config)


def _reader(run: Path, config: Any) -> Reader | None:
    if config.text != "tokens":
        return None
    if config.text_model:
        return HuggingFaceTokenizer(config.text_model, config.text_length)
    return Tokenizer.load(run / TOKENIZER)


def _weights(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError("the file is missing", path, "copy the whole run folder")
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"weights cannot be read: {error}", path, "copy or train them anew") from None
