"""Configurations: frozen dataclasses whose field docstrings are the help, kept as TOML beside what they made."""

import math
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from medssl.errors import UserError, raise_all
from medssl.value_types import fits, wrong_type

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The network, as a person chooses it."""

    encoder: str = "resnet18"
    """Encoder: resnet18, resnet34, resnet50, unet (plain), resunet (residual), poolunet (PCRL's 3D U-Net), swin
    (the transformer of Swin-UNETR)."""
    width: int | None = None
    """Channels of the first level; by default the architecture's own (64 for ResNet, 32 for U-Net, 48 for swin)."""
    norm: Literal["batch", "instance", "group"] = "batch"
    """Normalisation layers of encoder and decoder; of the decoder alone with swin, whose tokens are layer-normed."""
    patch: tuple[int, ...] = ()
    """Spatial size the network sees; by default 64×64×32 in 3D and the prepared size, at most 224, in 2D. A multiple
    of the encoder's stride (32, of U-Nets 16 or 8), but for classify, which takes any size."""
    seed: int = 0
    """Seed of all chance."""


@dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """Optimiser and schedule."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimiser; the papers of PCRL use SGD with momentum .9."""
    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 1e-4
    """Weight decay, on weights of convolutions and linear layers only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW: shares of its running means of the gradient and of its square that a step keeps."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises; cosine to zero after it."""
    clip: float = 0.0
    """Largest gradient norm; 0 for no clipping."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelOptions):
    """What every method and task shares, so that the arms of a study differ by their method only."""

    usual: ClassVar[OptimOptions] = OptimOptions()
    """How `medssl pretrain` trains it where nobody says otherwise: the one place for a method's optimiser."""
    # The house's: what the pages of results and ADR 0008 were measured with. A method with another says why beside it.

    dims: int = 2
    """Spatial axes, 2 or 3; from the plan."""
    channels: int = 1
    """Image channels; from the plan."""
    value_range: tuple[float, float] = (0.0, 1.0)
    """Range of the normalised images; from the plan."""
    scan: tuple[int, ...] = ()
    """Spatial size of the median prepared scan; from the store. Small scans are not cut from mostly padding."""

    def __post_init__(self) -> None:
        raise_all(self.problems())

    def problems(self) -> list[UserError]:
        """Everything wrong with these values at once."""
        found = []
        if self.dims not in (2, 3):
            found.append(UserError(f"dims is {self.dims}", fix="choose 2 or 3"))
        if self.patch and len(self.patch) != self.dims:
            found.append(UserError(f"patch {self.patch} has {len(self.patch)} axes", fix=f"give {self.dims} numbers"))
        if any(n < 1 for n in self.patch):
            found.append(UserError(f"patch {self.patch} holds a side below 1", fix="give positive numbers"))
        if self.channels < 1:
            found.append(UserError(f"channels is {self.channels}", fix="give 1 or more"))
        if self.width is not None and self.width < 4:
            found.append(UserError(f"width is {self.width}", fix="give 4 or more"))
        if self.value_range[0] >= self.value_range[1]:
            found.append(UserError(f"value range {self.value_range} is empty", fix="give low < high"))
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and (value := getattr(self, name)) not in get_args(hint):
                found.append(UserError(f"{name} is {value!r}", fix=f"choose one of {', '.join(get_args(hint))}"))
        # No comparison that a range is tested by is true of NaN.
        given = [(f.name, getattr(self, f.name)) for f in fields(self)]
        odd = [(name, value) for name, value in given if isinstance(value, float) and not math.isfinite(value)]
        return found + [UserError(f"{name} is {value}", fix="give a finite number") for name, value in odd]

    def refused(self, **wrong: bool) -> list[UserError]:
        """The named options for which True is given, each as a mistake."""
        return [UserError(f"{n} is {getattr(self, n)!r}", fix="see its help") for n, bad in wrong.items() if bad]

    def unreachable(self, head: str) -> list[UserError]:
        """A mistake where the ``head`` of a decoder cannot say every value of the images."""
        if head != "sigmoid" or (self.value_range[0] >= 0 and self.value_range[1] <= 1):
            return []
        return [UserError(f"a sigmoid cannot reach {self.value_range}", fix="choose head=linear")]

    @property
    def size(self) -> tuple[int, ...]:
        """The patch, or its default."""
        return self.patch or ((224, 224) if self.dims == 2 else (64, 64, 32))

    def fitted(self, images: int, steps: int, batch: int) -> Self:
        """The same configuration with what depends on the size of the data set or the run filled in."""
        del images, steps, batch
        return self


def to_table(config: Any) -> dict[str, Any]:
    """A dataclass as a TOML table."""
    return {f.name: getattr(config, f.name) for f in fields(config) if f.init}


def from_table(kind: type[T], table: dict[str, Any], where: object = None) -> T:
    """A dataclass from a TOML table; unknown and missing keys and wrong types are told all at once."""
    known = {f.name: f for f in fields(kind) if f.init}  # type: ignore[arg-type]
    place = str(where) if where is not None else None
    if not isinstance(table, dict):
        raise UserError(f"{table!r} is not a table", place, "write keys and values")
    hints = get_type_hints(kind)
    errors = [UserError(f"unknown key '{k}'", place, f"known: {', '.join(known)}") for k in table if k not in known]
    missing = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in table]
    errors += [UserError(f"key '{name}' is missing", place, "add it") for name in missing]
    wrong = [name for name, value in table.items() if name in known and not fits(value, hints[name])]
    errors += [wrong_type(name, table[name], hints[name], place) for name in wrong]
    raise_all(errors)
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})


__all__ = ["ModelConfig", "OptimOptions", "from_table", "replace", "to_table"]
