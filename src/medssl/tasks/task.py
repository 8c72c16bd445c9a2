"""What both tasks share: a configuration, and an encoder that may be held still."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from medssl.batch import Views
from medssl.config import ModelConfig
from medssl.contract import Method
from medssl.errors import UserError
from medssl.networks.cached import Cached


@dataclass(frozen=True, kw_only=True)
class TaskConfig(ModelConfig):
    """What both tasks have in common, so that the arms of a study differ by the initial encoder only."""

    freeze: bool = False
    """Train the head only."""
    head_first: float = 0.0
    """Share of the steps, from the first, that train the head only."""
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
        if not 0 <= self.head_first <= 1:
            found.append(UserError(f"head first is {self.head_first}", fix="give a share between 0 and 1"))
        return found


class Task(Method):
    """A method that learns from labels: ``encoder`` may come pre-trained, what follows starts anew."""

    config: TaskConfig
    # Classes are weighed, and overlaps counted, over the batch; its logits are small beside what makes them.
    coupled = "its loss is a mean over the whole batch, weighted or of overlaps"
    cached = True

    def cached_logits(self, views: Views) -> Cached:
        """The logits of all samples for losses over the batch, made ``chunk`` samples at a time."""
        present = views.drawn.get("present")
        beside = () if present is None else (present,)
        return Cached(lambda *x: [self.logits(*x)], views["image"], self.chunk, beside=beside)

    def logits(self, images: Tensor, present: Tensor | None = None) -> Tensor:
        """(b, k, …) from (b, C, *spatial); of M modalities (b, M·C, *spatial), present (b, M)."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Training mode; a frozen encoder stays as it is, running statistics of its normalisation included."""
        super().train(mode)
        if self.config.freeze:
            self.encoder.eval()
        return self

    def hold(self, progress: float) -> None:
        """Hold the encoder still, as a frozen one, until its share of the steps is done; before each step's passes.

        A head that starts at random pulls features about that were fine as they were; one that has learnt first does
        so less (linear probing, then fine-tuning: Kumar et al., ICLR 2022, arXiv:2202.10054).
        """
        if self.config.head_first and not self.config.freeze:
            learns = progress >= self.config.head_first
            self.encoder.requires_grad_(learns).train(learns and self.training)

    def _freeze(self) -> None:
        if self.config.freeze:
            self.encoder.requires_grad_(False).eval()


def channels_of(encoder: nn.Module) -> list[int]:
    """Channels of the pyramid's maps, fine to coarse."""
    return list(encoder.channels)  # type: ignore[arg-type]
