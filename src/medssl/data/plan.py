"""What `medssl prepare` does to a scan: decided once for a data set, kept in plan.toml, carried by every encoder."""

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from medssl.config import from_table
from medssl.data.adapt import Adapted, adapted
from medssl.data.scale import Intensity
from medssl.errors import UserError, raise_all
from medssl.files import FORMAT, check_format, read_toml, write_text
from medssl.volume import Volume, family

OTHER = "other"  # the rule of every modality that has none of its own
AXES = {2: "C,H,W", 3: "C,X,Y,Z"}
CHANNELS = {1: "grey", 3: "RGB"}

COMMENTS = {
    "dims": "2 for images, 3 for volumes.",
    "channels": "1 grey, 3 colour. Grey images are repeated, colour images become grey, where it is the other.",
    "spacing_mm": "Voxel size in mm along R, A, S (images: rows, columns). Without it images are brought to `size`.",
    "size": "Short side in pixels of images; the aspect ratio stays.",
    "orientation": "Axes of stored volumes: to the Right, Anterior, Superior. Images: rows and columns as they are.",
    "crop": "Cut volumes to the box around the patient; air is not worth disk and steps.",
    "value_range": "Range of the normalised values; a window or percentiles map to its ends.",
    "dtype": "Stored integers: int16, or uint8 where every file has 8 bits.",
    "modality": """How each modality is normalised: window (low, high in HU), percentile (low, high in percent of the
voxels) or zscore (mean and standard deviation), over all voxels or the foreground. Pictures of CT whose
values are not HU, and modalities without a table, follow `other`.""",
    "fingerprint": "What the plan was made from; nothing reads it.",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How scans are brought to one grid and one range; the keys of plan.toml."""

    dims: int
    channels: int
    spacing_mm: tuple[float, ...] | None = None
    size: int | None = None
    orientation: str = "RAS"
    crop: bool = True
    value_range: tuple[float, float] = (0.0, 1.0)
    dtype: str = "int16"
    modality: dict[str, Intensity] = field(default_factory=lambda: {OTHER: Intensity()})
    fingerprint: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        raise_all(self.problems())
        for name in ("spacing_mm", "value_range"):  # 1 and 1.0 are one plan
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(float(v) for v in value))

    def problems(self) -> list[UserError]:
        """Everything wrong with these values at once."""
        found = []
        if self.dims not in AXES:
            return [UserError(f"dims is {self.dims}", "plan", "choose 2 or 3")]
        if self.channels < 1:
            found.append(UserError(f"channels is {self.channels}", "plan", "give 1, or 3 for colour"))
        if self.spacing_mm is not None and len(self.spacing_mm) != self.dims:
            found.append(UserError(f"spacing_mm has {len(self.spacing_mm)} numbers", "plan", f"give {self.dims}"))
        if self.spacing_mm is not None and not all(0 < s < np.inf for s in self.spacing_mm):
            found.append(UserError(f"spacing_mm is {self.spacing_mm}", "plan", "give positive millimetres"))
        if self.dims == 3 and self.spacing_mm is None:
            found.append(UserError("volumes need spacing_mm", "plan", "give three numbers"))
        if self.size is not None and self.size < 1:
            found.append(UserError(f"size is {self.size}", "plan", "give a number of pixels"))
        if self.orientation != "RAS":
            found.append(UserError(f"orientation is '{self.orientation}'", "plan", "medssl stores RAS only"))
        if len(self.value_range) != 2 or not -np.inf < self.value_range[0] < self.value_range[1] < np.inf:
            found.append(UserError(f"value_range {self.value_range} is empty", "plan", "give numbers, low < high"))
        if self.dtype not in ("int16", "uint8"):
            found.append(UserError(f"dtype is '{self.dtype}'", "plan", "choose int16 or uint8"))
        if OTHER not in self.modality:
            found.append(UserError(f"[modality.{OTHER}] is missing", "plan", "add it"))
        return found + [e for name, rule in self.modality.items() for e in rule.problems(name)]

    def rule(self, modality: str, hu: bool = True) -> Intensity:
        """The rule of a modality, else of its family (MR for MR-T1), else ``other``; a window is for HU only."""
        known = (self.modality.get(name) for name in (modality, family(modality), OTHER))
        rule = next(rule for rule in known if rule is not None)
        return rule if hu or rule.normalise != "window" else self.modality[OTHER]

    def adapt(self, volume: Volume) -> tuple[np.ndarray, np.ndarray]:
        """A scan as networks see it: float32 (C, *spatial) in ``value_range``, and its affine (4, 4) to RAS mm.

        Rounds to the stored integers on the way, so a fresh scan and a prepared one give the same numbers.
        """
        result = adapted(volume, self)
        return result.normalised(self.value_range), np.reshape(result.grid.affine, (4, 4))

    def prepare(self, volume: Volume, mask: Volume | None = None) -> Adapted:
        """A scan (and its mask) as the store keeps it."""
        return adapted(volume, self, mask)

    # As a contract -------------------------------------------------------------------------------------------

    def contract(self) -> dict[str, Any]:
        """The preprocessing as JSON for encoder.json: all that decides what a network sees of a scan."""
        names = [f.name for f in fields(self) if f.name not in ("fingerprint", "modality")]
        table = {name: _plain(getattr(self, name)) for name in names}
        extra = {"axes": AXES[self.dims], "channel_order": CHANNELS.get(self.channels, "as in the files")}
        return table | extra | {"modality": {name: dict(vars(rule)) for name, rule in self.modality.items()}}

    @property
    def hash(self) -> str:
        """Of the contract."""
        text = json.dumps(self.contract(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @classmethod
    def from_contract(cls, contract: dict[str, Any]) -> Self:
        """The plan an encoder was trained under."""
        return _from_table(cls, {k: v for k, v in contract.items() if k not in ("axes", "channel_order")}, None)

    def differences(self, contract: dict[str, Any]) -> list[str]:
        """What another contract does otherwise, in words; only modalities that both name are compared."""
        own = self.contract()
        found = []
        for key in own:
            if key == "modality":
                shared = [m for m in own[key] if m in contract.get(key, {}) and own[key][m] != contract[key][m]]
                found += [f"[modality.{m}] is {own[key][m]} here, {contract[key][m]} there" for m in shared]
            elif _plain(contract.get(key)) != own[key]:
                found.append(f"{key} is {own[key]} here, {contract.get(key)} there")
        return found

    # As a file -----------------------------------------------------------------------------------------------

    def write(self, path: Path) -> None:
        """Write plan.toml, each key under a comment that says what it means."""
        lines = ["# What `medssl prepare` does to every scan. Edit it and run `medssl prepare` again:"]
        lines += ["# what the change concerns is done anew, nothing else.", f"format = {FORMAT}", ""]
        for f in fields(self):
            value = getattr(self, f.name)
            lines += [f"# {line}" for line in COMMENTS[f.name].splitlines()]
            if f.name == "modality":
                for name, rule in value.items():
                    lines += [f"[modality.{_key(name)}]", *(f"{k} = {_toml(v)}" for k, v in vars(rule).items()), ""]
            elif f.name == "fingerprint":
                lines += ["[fingerprint]", *(f"{k} = {_toml(v)}" for k, v in value.items())]
            else:
                lines += [f"# {f.name} =" if value is None else f"{f.name} = {_toml(value)}", ""]
        write_text(path, "\n".join(lines).rstrip() + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read plan.toml as a person may have edited it; everything wrong is told at once."""
        table = read_toml(path)
        check_format(table, path)
        return _from_table(cls, {k: v for k, v in table.items() if k != "format"}, path)


def _from_table(kind: type[Plan], table: dict[str, Any], where: Path | None) -> Any:
    rules = table.get("modality", {})
    if not isinstance(rules, dict) or not all(isinstance(rule, dict) for rule in rules.values()):
        raise UserError("modality is not a group of tables", where, "write [modality.CT] and its keys below it")
    read = {name: from_table(Intensity, rule, f"{where or 'plan'}, [modality.{name}]") for name, rule in rules.items()}
    return from_table(kind, table | ({"modality": read} if rules else {}), where)


def _toml(value: Any) -> str:
    """A value on one line, which tomli_w grants neither lists nor tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(str(k))} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(_plain(value))


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


__all__ = ["OTHER", "Adapted", "Intensity", "Plan", "replace"]
