"""Who is who in a batch of several modalities: which samples are to come together, and which apart (ADR 0014, 0018)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl import distributed

IDS = ("modality", "subject", "patient", "content", "label")


def who_is_who(drawn: Mapping[str, Any], order: Int[Tensor, " n"], text_code: int) -> dict[str, Tensor]:
    """The ids of the samples of all ranks, those of ``drawn`` in ``order``, and what they say of pairs.

    ``drawn``: modality, subject and patient (b,); content (b,) of texts, which then follow the images, with
    ``text_code`` as their modality; label (b, k). Adds ``alike``, ``apart`` and ``present`` as ``relations`` takes
    them, each only where something tells it.
    """
    ids = {name: drawn[name][order] for name in IDS if name in drawn}
    if "content" in ids:
        ids = {name: torch.cat([x, drawn[name]]) for name, x in ids.items()}
        ids["modality"][len(order) :] = text_code
    ids = {name: distributed.gather_rows(x) for name, x in ids.items()}
    if "label" in ids:
        ids["alike"], ids["apart"] = by_label(ids["label"])
    if "content" in ids:
        ids["present"], same = texts_once(ids["modality"] == text_code, ids["subject"], ids["content"])
        ids["alike"] = ids["alike"] | same if "alike" in ids else same
    return ids


def relations(
    subject: Int[Tensor, " n"],
    same: Sequence[Int[Tensor, " n"]] = (),
    alike: Bool[Tensor, "n n"] | None = None,
    present: Bool[Tensor, " n"] | None = None,
    apart: Bool[Tensor, "n n"] | None = None,
) -> tuple[Bool[Tensor, "n n"], Bool[Tensor, "n n"]]:
    """Who is a positive, and who a negative, of whom; see ``align``."""
    positive = subject[:, None] == subject
    if alike is not None:
        positive = positive | alike
    negative = ~positive if apart is None else apart & ~positive
    for ids in same:
        negative = negative & (ids[:, None] != ids)
    if present is not None:
        both = present[:, None] & present
        positive, negative = positive & both, negative & both
    return positive, negative


def by_label(label: Float[Tensor, "n k"]) -> tuple[Bool[Tensor, "n n"], Bool[Tensor, "n n"]]:
    """What labels say of each pair: ``alike``, all known and equal; ``apart``, one that both know differs.

    NaN: nobody said. Where that leaves it open whether two samples are of one kind, they are neither.
    """
    known = ~label.isnan()
    differ = (label[:, None] != label) & known[:, None] & known
    apart, whole = differ.any(2), known.all(1)
    return whole[:, None] & whole & ~apart, apart


def texts_once(
    is_text: Bool[Tensor, " n"], subject: Int[Tensor, " n"], content: Int[Tensor, " n"]
) -> tuple[Bool[Tensor, " n"], Bool[Tensor, "n n"]]:
    """What texts ask of ``align``: ``present`` and ``alike``.

    ``content`` (n,): a number for each sample's text, its own or its subject's, 0 for none. A text that several samples
    of a subject carry counts once, an empty one not at all; equal texts are positives of each other's images.
    """
    same = (content[:, None] == content) & (content != 0)
    either = is_text[:, None] | is_text
    again = same & (subject[:, None] == subject) & is_text[:, None] & is_text
    present = ~is_text | ((content != 0) & ~again.tril(-1).any(1))
    return present, same & either
