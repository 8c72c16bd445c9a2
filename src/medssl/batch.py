"""What flows into a method: samples as the store keeps them, and the views that are made of them."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """Samples as the store keeps them; ``normalised()`` gives what networks see.

    image (b, C, *region) stored numbers; gain, bias (b,): normalised = clip(image · gain + bias, *value_range).
    item, patient (b,) int64 row numbers, for what must not be a negative. mask (b, *region) integers; label (b, k)
    float, NaN where missing. modality (b,) int64 codes of what the scan was taken with (``Store.modality_names``).
    subject (b,) int64: samples of one patient and study, each other's positives across modalities. place (b, 4, 4)
    float64, or (b, 3, 3) in 2D: voxel indices of the region to millimetres in the world (RAS). text: (b, L) int64
    tokens, 0 for padding, a row of zeros where there is none; or (b, n) float numbers, a row of NaN.
    present (b, M) bool: where the channels are those of M modalities, which of them the sample has.
    """

    image: Tensor
    gain: Tensor
    bias: Tensor
    item: Tensor
    patient: Tensor
    value_range: tuple[float, float] = (0.0, 1.0)
    mask: Tensor | None = None
    label: Tensor | None = None
    modality: Tensor | None = None
    subject: Tensor | None = None
    place: Tensor | None = None
    text: Tensor | None = None
    present: Tensor | None = None

    @classmethod
    def of(
        cls,
        images: Tensor,
        ids: Tensor | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        modality: Tensor | None = None,
    ) -> "Batch":
        """Wrap ready-made float images (b, C, *region); without ``ids`` every image is its own patient."""
        b = len(images)
        ids = torch.arange(b) if ids is None else ids.cpu().long()
        return cls(images, torch.ones(b), torch.zeros(b), ids, ids, value_range, modality=modality)

    def __len__(self) -> int:
        return len(self.image)

    def part(self, rows: slice) -> "Batch":
        """These rows alone."""
        cut: dict[str, Any] = {name: x[rows] for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **cut)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; ids stay where they are needed, with the images."""
        narrow = {torch.float64: torch.float32} if device.type == "mps" else {}  # that device has no float64
        moved: dict[str, Any] = {
            k: v.to(narrow.get(v.dtype, v.dtype)).to(device, non_blocking=True)
            for k, v in vars(self).items()
            if isinstance(v, Tensor)
        }
        return replace(self, **moved)

    def normalised(self) -> Tensor:
        """(b, C, *region) float32 in ``value_range``."""
        shape = (-1,) + (1,) * (self.image.ndim - 1)
        return (self.image.float() * self.gain.view(shape) + self.bias.view(shape)).clamp_(*self.value_range)


@dataclass
class Views:
    """What a method sees of a batch: named images, and the chance that made them.

    Everything random is drawn before it gets here, so ``losses`` is a pure function of parameters and views.
    """

    images: dict[str, Tensor]
    drawn: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.images[name] if name in self.images else self.drawn[name]
