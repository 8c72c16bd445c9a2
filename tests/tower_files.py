"""What `medssl pretrain cmcl` leaves, without its hours: an encoder for each modality, the first also by itself."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from medssl import files
from medssl.config import ModelConfig, to_table
from medssl.data.store import Store
from medssl.networks.pyramid import build_encoder
from medssl.networks.weights import export_state


def write_run(folder: Path, data: Path, towers: Sequence[str], share: str = "nothing", width: int = 4) -> Path:
    """A finished run under the plan of ``data``; encoder i is drawn from seed i."""
    plan = Store(data).plan
    patch = (32,) * plan.dims
    config = ModelConfig(width=width, dims=plan.dims, channels=plan.channels, value_range=plan.value_range, patch=patch)
    folder.mkdir()
    names = {name: f"encoder-{name}.safetensors" for name in towers}
    for number, file in enumerate(names.values()):
        torch.manual_seed(number)
        state = export_state(build_encoder(config))
        save_file(state, folder / file)
        if number == 0:
            save_file(state, folder / "encoder.safetensors")
    card = {"format": files.FORMAT, "encoder": to_table(config), "preprocessing": plan.contract()}
    card |= {"method": "cmcl", "steps": 10, "towers": names, "method_config": {"share": share}}
    files.write_json(folder / "encoder.json", card)
    return folder


def weights(run: Path, modality: str) -> dict[str, torch.Tensor]:
    """Of the encoder of one modality."""
    return load_file(run / f"encoder-{modality}.safetensors")


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    """The same names and values."""
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in two)
