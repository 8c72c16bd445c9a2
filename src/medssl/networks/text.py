"""Towers for what comes with an image: tokens of a text, or ready-made numbers. Each returns its levels as a pyramid.

``Text`` and ``Vector`` describe a tower; ``build_tower`` makes it. Its last level is the pooled vector (b, width).
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from medssl.errors import UserError


@dataclass(frozen=True)
class Vector:
    """``size`` ready-made numbers a sample (a text embedding, a clinical table), through an MLP of ``hidden`` units."""

    size: int
    hidden: int = 256


@dataclass(frozen=True)
class Text:
    """Tokens, 0 for padding, through a transformer; ``model``: a Hugging Face text model instead, by folder or name."""

    vocab: int = 4096
    length: int = 128
    width: int = 256
    depth: int = 4
    heads: int = 4
    model: str = ""


def build_tower(kind: Text | Vector) -> "TextTower | VectorTower | HuggingFaceTower":
    """The tower that ``kind`` describes; fresh weights, unless they are a Hugging Face model's."""
    numbers = {name: value for name, value in vars(kind).items() if name != "model"}
    if bad := {name: value for name, value in numbers.items() if not isinstance(value, int) or value < 1}:
        name, value = next(iter(bad.items()))
        raise UserError(f"{name} of a {type(kind).__name__} is {value!r}", fix="give a whole number from 1 on")
    if isinstance(kind, Vector):
        return VectorTower(kind)
    if kind.width % kind.heads:
        raise UserError(f"{kind.heads} heads do not divide a width of {kind.width}", fix="choose others")
    return HuggingFaceTower(kind.model) if kind.model else TextTower(kind)


class VectorTower(nn.Module):
    """FC, GELU, FC. Numbers of very different sizes should be scaled before they come here."""

    def __init__(self, kind: Vector) -> None:
        super().__init__()
        self.size, self.channels = kind.size, (kind.hidden,)
        self.layers = nn.Sequential(nn.Linear(kind.size, kind.hidden), nn.GELU(), nn.Linear(kind.hidden, kind.hidden))

    def forward(self, numbers: Float[Tensor, "b n"]) -> list[Tensor]:
        """[(b, hidden)]."""
        return [self.layers(numbers)]


class TextTower(nn.Module):
    """Token and position embeddings, ``depth`` pre-norm transformer layers, a mean over the real tokens in float32.

    There is no dropout: the alignment's own noise, the other texts of the batch, is enough in short runs, and encoding
    a text twice gives the same vector.
    """

    def __init__(self, kind: Text) -> None:
        super().__init__()
        self.vocab, self.length, self.channels = kind.vocab, kind.length, (kind.width, kind.width)
        self.tokens = nn.Embedding(kind.vocab, kind.width, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(kind.length, kind.width) * 0.02)
        with torch.no_grad():
            self.tokens.weight *= 0.02
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                kind.width, kind.heads, 4 * kind.width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(kind.depth)
        )
        self.norm = nn.LayerNorm(kind.width)

    def forward(self, tokens: Int[Tensor, "b l"]) -> list[Tensor]:
        """[words (b, l, width), pooled (b, width)]; a text without tokens is pooled to zeros."""
        if tokens.shape[1] > self.length:
            raise UserError(f"texts have {tokens.shape[1]} tokens", fix=f"cut them to the {self.length} of the tower")
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        hidden = tokens == 0
        hidden[:, 0] = False  # attention to nothing at all would be NaN
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=hidden)
        words = self.norm(x)
        return [words, pool_words(words, tokens)]


class HuggingFaceTower(nn.Module):
    """A Hugging Face text model; tokens are its tokenizer's plus 1, so that 0 is padding here as everywhere."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = _pretrained(model)
        for part in self.model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0  # encoding a text twice gives the same vector, which gradient caching relies on
        config = self.model.config
        self.vocab, self.length = config.vocab_size + 1, int(getattr(config, "max_position_embeddings", 512))
        self.channels = (config.hidden_size, config.hidden_size)

    def forward(self, tokens: Int[Tensor, "b l"]) -> list[Tensor]:
        """[words (b, l, width), pooled (b, width)]."""
        shown = tokens != 0
        shown[:, 0] = True
        words = self.model(input_ids=(tokens - 1).clamp(min=0), attention_mask=shown.long()).last_hidden_state
        return [words, pool_words(words, tokens)]


def pool_words(words: Float[Tensor, "b l d"], tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    """Mean over the real tokens, in float32 or better; zeros where there are none."""
    real = (tokens != 0)[:, :, None]
    wide = words.to(torch.promote_types(words.dtype, torch.float32))
    return torch.where(real, wide, 0).sum(1) / real.sum(1).clamp(min=1)


def check_text(text: Tensor, tower: nn.Module, name: str) -> None:
    """Refuse rows (b, n) that a tower does not take, in one sentence."""
    size: Any = getattr(tower, "size", None)
    kind = f"{text.dtype} {tuple(text.shape)}"
    if size is not None and (not text.is_floating_point() or text.ndim != 2 or text.shape[1] != size):
        raise UserError(f"'{name}' is {kind}", fix=f"its tower takes float (b, {size})")
    if size is None:
        length, vocab = (int(getattr(tower, key)) for key in ("length", "vocab"))
        if text.dtype != torch.int64 or text.ndim != 2 or text.shape[1] > length:
            raise UserError(
                f"'{name}' is {kind}", fix=f"its tower takes int64 tokens (b, up to {length}), 0 for padding"
            )
        if len(text) and (int(text.max()) >= vocab or int(text.min()) < 0):
            fix = f"its tower knows tokens from 0 to {vocab - 1}: give its Text the vocab of your tokenizer"
            raise UserError(f"'{name}' has tokens from {int(text.min())} to {int(text.max())}", fix=fix)


def filled(text: Tensor | None, n: int, tower: nn.Module, device: torch.device) -> tuple[Tensor, Bool[Tensor, " n"]]:
    """What a tower can take of ``Batch.text``, missing rows as zeros, and which rows are there."""
    if text is None:
        size: Any = getattr(tower, "size", None)
        empty = torch.zeros(n, 1, dtype=torch.long) if size is None else torch.zeros(n, size)
        return empty.to(device), torch.zeros(n, dtype=torch.bool, device=device)
    if text.is_floating_point():
        said = ~text.isnan().any(1)
        return torch.where(said[:, None], text, 0), said
    return text, text.ne(0).any(1)


def fingerprint(text: Tensor) -> Int[Tensor, " n"]:
    """A number for the content of each row: equal rows have equal ones, others hardly ever."""
    whole = text if not text.is_floating_point() else text.float().view(torch.int32).long()
    factor = torch.arange(1, whole.shape[1] + 1, device=text.device) * 0x9E3779B97F4A7C1 | 1
    mixed = (whole + 0x51ED27) * factor
    mixed = (mixed ^ (mixed >> 29)) * 0x3F58476D1CE4E5B9
    return (mixed ^ (mixed >> 32)).sum(1) | 1  # never 0, which stands for no text


def _pretrained(model: str) -> Any:
    try:
        from transformers import AutoModel
    except ImportError:
        raise UserError("a Hugging Face text model needs transformers", fix="pip install 'medssl[text]'") from None
    try:
        found = AutoModel.from_pretrained(model, add_pooling_layer=False)
    except TypeError:  # not every model has a pooling layer to leave out
        found = AutoModel.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        fix = "give a folder that holds one, or a name that this machine has cached or can reach"
        raise UserError(f"no text model: {reason}", model, fix) from None
    return found.float()
