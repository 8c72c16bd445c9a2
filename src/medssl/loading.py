"""``medssl.load(RUN)``: a pre-trained encoder that prepares its images itself, as it saw them in training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medssl import files
from medssl.config import ModelConfig, from_table
from medssl.data.plan import OTHER, Plan
from medssl.data.readers import read_volume, reader_of
from medssl.errors import UserError
from medssl.evaluate.features import embed_image, frozen
from medssl.networks.pyramid import Pyramid, build_encoder
from medssl.networks.weights import load_state
from medssl.volume import Volume

WEIGHTS = "encoder.safetensors"
Scan = str | Path | Volume | np.ndarray | Tensor


def load(run: str | Path, modality: str | None = None) -> "Encoder":
    """The encoder of a finished run (its folder, or an encoder.safetensors with its encoder.json beside it).

    ``modality``: of the scans it will see. A run of several modalities (`medssl pretrain cmcl`) has an encoder for
    each, and gives the first where none is named.
    """
    weights = find_weights(run) if modality is None else weights_for(run, modality)
    card = read_card(weights)
    config = from_table(ModelConfig, card["encoder"], card_of(weights))
    network = build_encoder(config)
    load_state(network, read_weights(weights), weights)
    network.eval()
    return Encoder(network, config, Plan.from_contract(card["preprocessing"]), modality or "")


def find_weights(run: str | Path) -> Path:
    """The encoder.safetensors that a run folder or a path names."""
    path = Path(run)
    weights = path / WEIGHTS if path.is_dir() else path
    if weights.is_file():
        return weights
    if path.is_dir() and (path / "run.toml").exists() and not (path / "result.json").exists():
        raise UserError(f"no {WEIGHTS}", path, "run the same `medssl pretrain` again to finish it")
    what = f"no {WEIGHTS}" if path.is_dir() else "no such encoder"
    raise UserError(what, path, f"give a run folder of `medssl pretrain`, or its {WEIGHTS} with encoder.json beside it")


def run_of(weights: Path) -> Path | None:
    """The folder of the run that left these weights; None for a file of another name, beside which others may lie."""
    return weights.parent if weights.name == WEIGHTS else None


def towers_of(run: str | Path) -> dict[str, Path]:
    """The weights of each modality's encoder, where a run folder has several that differ; else empty.

    A file that is named itself is meant as it is, and towers that share all are one encoder.
    """
    if not Path(run).is_dir():
        return {}
    weights = find_weights(run)
    card = read_card(weights)
    named = card.get("towers", {})
    if len(named) < 2 or card.get("method_config", {}).get("share") == "all":
        return {}
    return {modality: weights.with_name(name) for modality, name in named.items()}


def weights_for(run: str | Path, modality: str) -> Path:
    """The weights that scans of ``modality`` go through: their own where a run has several, else its only ones."""
    towers = towers_of(run)
    if not towers:
        return find_weights(run)
    if modality not in towers:
        what = f"the run has no encoder of modality '{modality or 'unknown'}'"
        named = ", ".join(name or "unknown" for name in towers)
        raise UserError(what, run, f"it has {named}; to use one of them all the same, name its file")
    if not towers[modality].is_file():
        raise UserError("the file is missing", towers[modality], "copy the whole run folder")
    return towers[modality]


def read_weights(weights: Path) -> dict[str, Tensor]:
    """The tensors of encoder.safetensors, by name."""
    try:
        return load_file(weights)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"weights cannot be read: {error}", weights, "copy or train them anew") from None


def card_of(weights: Path) -> Path:
    """Where the card of these weights lies: beside them, or encoder.json where several towers share one."""
    path = weights.with_suffix(".json")
    shared = not path.is_file() and weights.name.startswith("encoder-")
    return weights.with_name("encoder.json") if shared else path


def read_card(weights: Path) -> dict[str, Any]:
    """encoder.json: architecture and preprocessing of the weights beside it."""
    return card_at(card_of(weights), ("encoder", "preprocessing"))


def card_at(path: Path, tables: Sequence[str]) -> dict[str, Any]:
    """What is told of the weights beside ``path``, with at least these ``tables``."""
    if not path.is_file():
        raise UserError(f"{path.name} is missing", path, "copy it with the weights: it says how images are prepared")
    card = files.read_json(path)
    files.check_format(card, path)
    lacking = [key for key in tables if not isinstance(card.get(key), dict)]
    if lacking:
        raise UserError(
            f"no {' and no '.join(lacking)} in it", path, "copy it again from the run that wrote the weights"
        )
    return card


def check_preprocessing(plan: Plan, contract: dict[str, Any], where: Path, who: str = "the encoder expects") -> None:
    """Refuse scans that are prepared otherwise than those that a network was trained on."""
    if different := plan.differences(contract):
        fix = "write its values into plan.toml of the data and run `medssl prepare` again"
        raise UserError(f"{who} other preprocessing: {'; '.join(different)}", where, fix)


class Encoder(nn.Module):
    """A network with its preprocessing. ``encoder(scan)`` is the feature vector that `medssl embed` writes.

    A scan is a path (file, or folder of one DICOM series), a ``medssl.volume.Volume``, or an array: (X, Y, Z) or
    (H, W), or either with channels first. Arrays need ``spacing_mm`` or an ``affine`` (4, 4) to RAS mm if the encoder
    was trained at a spacing. Values are physical: HU for CT. ``network`` is the bare pyramid, for training.
    ``modality``: of scans that name none.
    """

    network: Pyramid

    def __init__(self, network: Pyramid, config: ModelConfig, plan: Plan, modality: str = "") -> None:
        super().__init__()
        self.network, self.config, self.plan, self.modality = network, config, plan, modality

    def forward(self, scan: Scan, **how: Any) -> Tensor:
        """Features (d,): the coarsest map, averaged over the whole scan. ``how`` as for ``prepared``."""
        image, _ = self.prepared(scan, **how)
        return embed_image(self.network, image, patch=self.config.size, low=self.plan.value_range[0])

    def maps(self, scan: Scan, **how: Any) -> list[Tensor]:
        """All maps (1, channels, *spatial), fine to coarse, of the whole scan, padded to a multiple of the stride."""
        image, _ = self.prepared(scan, **how)
        missing = [(0, -n % s) for n, s in zip(image.shape[1:], self.network.strides[-1], strict=True)]
        padded = np.pad(image, [(0, 0), *missing], constant_values=self.plan.value_range[0])
        with frozen(self.network):
            return self.network(torch.from_numpy(padded)[None].to(next(self.parameters()).device))

    def prepared(
        self,
        scan: Scan,
        *,
        spacing_mm: Sequence[float] | None = None,
        affine: np.ndarray | None = None,
        modality: str = "",
    ) -> tuple[np.ndarray, np.ndarray]:
        """The scan as the network sees it, float32 (C, *spatial), and its affine (4, 4) to RAS mm."""
        how: dict[str, Any] = {"spacing_mm": spacing_mm, "affine": affine, "modality": modality}
        return self.plan.adapt(as_volume(scan, self.plan, self.modality, **how))


def as_volume(
    scan: Scan,
    plan: Plan,
    usual: str = "",
    *,
    spacing_mm: Sequence[float] | None = None,
    affine: np.ndarray | None = None,
    modality: str = "",
) -> Volume:
    """A scan in memory, with the modality by which ``plan`` treats it; ``usual``: of scans that name none."""
    volume = scan if isinstance(scan, Volume) else None
    if isinstance(scan, (str, Path)):
        volume = _read(Path(scan))
    elif isinstance(scan, (np.ndarray, Tensor)):
        volume = _wrapped(np.asarray(scan), plan, spacing_mm, affine)
    if volume is None:
        raise UserError(f"a scan cannot be a {type(scan).__name__}", fix="give a path, a Volume or an array")
    return Volume(volume.array, volume.affine, _modality(modality or volume.modality or usual, plan))


def _wrapped(array: np.ndarray, plan: Plan, spacing_mm: Sequence[float] | None, affine: np.ndarray | None) -> Volume:
    dims = plan.dims
    if array.ndim == dims:
        array = array[None]
    if array.ndim != dims + 1:
        axes = "(H, W) or (C, H, W)" if dims == 2 else "(X, Y, Z) or (C, X, Y, Z)"
        raise UserError(f"the array has shape {array.shape}", fix=f"this network takes {axes}")
    if affine is None and spacing_mm is None and plan.spacing_mm is not None:
        raise UserError("the array comes without a spacing", fix="give spacing_mm= or affine=")
    if affine is None:
        sides = tuple(spacing_mm) if spacing_mm is not None else (1.0,) * dims
        if len(sides) != dims or not all(0 < side < np.inf for side in sides):
            raise UserError(f"spacing_mm is {sides}", fix=f"give {dims} positive numbers")
        affine = np.diag([*sides, *(1.0,) * (4 - dims)])
    if np.shape(affine) != (4, 4):
        raise UserError(f"the affine has shape {np.shape(affine)}", fix="give (4, 4), voxels to RAS mm")
    return Volume(array, np.asarray(affine, float))


def _modality(given: str, plan: Plan) -> str:
    """NIfTI and arrays name no modality; it matters where several of them are prepared differently."""
    known = [name for name in plan.modality if name != OTHER]
    if given or not known:
        return given
    if len(known) > 1:
        raise UserError("the scan names no modality", fix=f"give modality=, one of {', '.join(known)}")
    return known[0]


def _read(path: Path) -> Volume:
    if not path.exists():
        raise UserError("no such file", path, "give the path of a scan")
    reader = reader_of(path.name)
    if path.is_dir() or reader in ("dicom", ""):
        return _read_dicom(path)
    return read_volume({"reader": reader, "files": [path.name], "member": 0}, path.parent)


def _read_dicom(path: Path) -> Volume:
    """A DICOM file, or the one series in a folder."""
    from medssl.data.dicom.headers import read_slices
    from medssl.data.dicom.stacks import stack_up

    root = path if path.is_dir() else path.parent
    inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    slices, first = [], None
    for file in inside:
        try:
            slices += read_slices(file, file.relative_to(root).as_posix())
        except UserError as error:
            first = first or error
    if not slices:
        raise first or UserError("the folder is empty", path, "give a file, or a folder of one DICOM series")
    items, _ = stack_up(slices)
    if len(items) != 1:
        raise UserError(f"the folder holds {len(items)} series", path, "give a folder of one DICOM series")
    return read_volume(items[0].row(), root)
