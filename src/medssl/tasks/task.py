"""What both tasks share: a configuration, and an encoder that may be held still."""

from dataclasses import dataclass
from typing import Self

from torch import nn

from medssl.config import ModelConfig
from medssl.contract import Method
from medssl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TaskConfig(ModelConfig):
    """What both tasks have in common, so that the arms of a study differ by the initial encoder only."""

    freeze: bool = False
    """Train the head only."""
    augment: bool = True
    """Turn, shift, zoom and re-window training images a little."""
    mirror: bool = False
    """Augmentation may exchange left and right."""
    modalities: tuple[str, ...] = ()
    """Modalities that have an encoder each; without any there is one encoder for all scans."""
    modality_dropout: float = 0.25
    """Chance that training leaves a modality of a sample out; one always stays."""

    def problems(self) -> list[UserError]:
        """Everything wrong with these values at once."""
        found = super().problems()
        if not 0 <= self.modality_dropout < 1:
            fix = "give a share of at least 0 and below 1"
            found.append(UserError(f"modality dropout is {self.modality_dropout}", fix=fix))
        return found


class Task(Method):
    """A method that learns from labels: ``encoder`` may come pre-trained, what follows starts anew."""

    config: TaskConfig

    def train(self, mode: bool = True) -> Self:
        """Training mode; a frozen encoder stays as it is, running statistics of its normalisation included."""
        super().train(mode)
        if self.config.freeze:
            self.encoder.eval()
        return self

    def _freeze(self) -> None:
        if self.config.freeze:
            self.encoder.requires_grad_(False).eval()


def channels_of(encoder: nn.Module) -> list[int]:
    """Channels of the pyramid's maps, fine to coarse."""
    return list(encoder.channels)  # type: ignore[arg-type]
