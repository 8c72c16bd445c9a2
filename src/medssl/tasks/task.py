"""What both tasks share: a configuration, and an encoder that may be held still."""

from dataclasses import dataclass
from typing import Self

from torch import nn

from medssl.config import ModelConfig
from medssl.contract import Method


@dataclass(frozen=True, kw_only=True)
class TaskConfig(ModelConfig):
    """What both tasks have in common, so that the arms of a study differ by the initial encoder only."""

    freeze: bool = False
    """Train the head only."""
    augment: bool = True
    """Turn, shift, zoom and re-window training images a little."""
    mirror: bool = False
    """Augmentation may exchange left and right."""


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
