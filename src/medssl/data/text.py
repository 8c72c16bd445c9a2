"""Texts as tokens: a WordPiece tokenizer trained on the corpus itself, so that nothing is fetched from anywhere."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medssl import files
from medssl.errors import UserError

PADDING, UNKNOWN = "[PAD]", "[UNK]"  # numbers 0 and 1


class Tokenizer:
    """Texts to (n, length) int64 tokens, 0 for padding. Lower case, punctuation apart, words in known pieces."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @classmethod
    def train(cls, texts: Iterable[str | None], vocab: int = 4096, length: int = 128) -> "Tokenizer":
        """Learn at most ``vocab`` pieces from a corpus; the same corpus gives the same pieces."""
        library = _library()
        corpus = sorted({text for text in texts if text and text.strip()})
        if not corpus:
            raise UserError("there is no text to train a tokenizer on", fix="give at least one that is not empty")
        if vocab < 4 or length < 1:
            raise UserError(f"{vocab} pieces and {length} tokens a text", fix="give at least 4 pieces and 1 token")
        inner = _untrained(library, {PADDING: 0, UNKNOWN: 1})
        learnt = _learn(library, inner, corpus, vocab)
        inner = _untrained(library, learnt)
        inner.enable_truncation(length)
        inner.enable_padding(pad_id=0, pad_token=PADDING, length=length)
        return cls(inner)

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """The tokenizer that ``save`` wrote."""
        library = _library()
        if not Path(path).is_file():
            raise UserError("no tokenizer here", path, "give the tokenizer.json of a run")
        try:
            inner = library.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"the tokenizer cannot be read: {error}", path, "copy it again from its run") from None
        if inner.truncation is None:
            raise UserError("the tokenizer has no length", path, "give the tokenizer.json of a run")
        return cls(inner)

    def save(self, path: Path) -> None:
        """Write tokenizer.json, which Hugging Face `tokenizers` reads too."""
        files.write_text(path, self._inner.to_str())

    @property
    def vocab(self) -> int:
        """Number of pieces, padding and the unknown one included."""
        return self._inner.get_vocab_size()

    @property
    def length(self) -> int:
        """Tokens kept of each text."""
        return self._inner.truncation["max_length"]

    def encode(self, texts: Sequence[str | None]) -> tuple[Tensor, int]:
        """Tokens (n, length) and how many texts were cut to that; an empty text, or None, is a row of zeros."""
        found = self._inner.encode_batch([text or "" for text in texts])
        tokens = torch.tensor([one.ids for one in found], dtype=torch.long).view(len(found), self.length)
        return tokens, sum(bool(one.overflowing) for one in found)


class HuggingFaceTokenizer:
    """The tokenizer of a Hugging Face text model, by folder or name; its numbers plus 1, so that 0 is padding."""

    def __init__(self, model: str, length: int = 128) -> None:
        try:
            from transformers import AutoTokenizer
        except ImportError:
            raise UserError("a Hugging Face text model needs transformers", fix="pip install 'medssl[text]'") from None
        try:
            self._inner = AutoTokenizer.from_pretrained(model)
        except (OSError, ValueError, KeyError, TypeError) as error:  # KeyError: a tokenizer.json that is none
            fix = "give a folder that holds one, or a name that this machine has cached or can reach"
            raise UserError(f"no tokenizer: {str(error).splitlines()[0]}", model, fix) from None
        self.length = length

    @property
    def vocab(self) -> int:
        """Number of pieces, and one for padding."""
        return len(self._inner) + 1

    def encode(self, texts: Sequence[str | None]) -> tuple[Tensor, int]:
        """As ``Tokenizer.encode``."""
        tokens, cut = torch.zeros(len(texts), self.length, dtype=torch.long), 0
        for row, text in enumerate(texts):
            if not text or not text.strip():
                continue
            kept = self._inner(text, truncation=True, max_length=self.length)["input_ids"]
            cut += len(self._inner(text, verbose=False)["input_ids"]) > len(kept)
            tokens[row, : len(kept)] = torch.tensor(kept) + 1
        return tokens, cut


def _untrained(library: Any, vocab: dict[str, int]) -> Any:
    inner = library.Tokenizer(library.models.WordPiece(vocab, unk_token=UNKNOWN))
    inner.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    inner.decoder = library.decoders.WordPiece()
    return inner


def _learn(library: Any, inner: Any, corpus: Sequence[str], vocab: int) -> dict[str, int]:
    """Pieces and their numbers, by the library's trainer."""
    # The trainer numbers pieces such as ##e in the order of a hash map that differs by process, and breaks ties between
    # merges by these numbers. Told to it as special pieces they have fixed numbers, and so has all that follows.
    words = [
        word for text in corpus
        for word, _ in inner.pre_tokenizer.pre_tokenize_str(inner.normalizer.normalize_str(text))
    ]  # fmt: skip
    inside = sorted({f"##{letter}" for word in words for letter in word[1:]})
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=vocab, min_frequency=2, special_tokens=[PADDING, UNKNOWN, *inside], show_progress=False
    )
    inner.train_from_iterator(corpus, trainer)
    return inner.get_vocab()


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise UserError("texts need the package tokenizers", fix="pip install 'medssl[text]'") from None
    return tokenizers
