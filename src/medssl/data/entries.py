"""Batches of a user's own loop for methods of several modalities: named entries, row i of each being subject i."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from medssl.contract import Batch, Method
from medssl.errors import UserError
from medssl.losses.contrastive import unit
from medssl.networks.joint import JointSpace
from medssl.networks.norms import evaluating
from medssl.networks.text import check_text
from medssl.networks.towers import Towers


class OwnLoop(Method):
    """A method of several modalities whose ``step`` takes named entries, and whose ``encode`` gives their vectors."""

    kinds: Towers
    space: JointSpace

    def _wrap(self, images: Any, ids: Tensor | None, modality: Tensor | None = None) -> Batch:
        """A mapping from towers to entries whose row i is subject i; or a flat batch of images with modality codes."""
        # Without headers a subject's images lie on one grid, and a voxel is what distances are measured in.
        batch = self._flat(images, ids) if isinstance(images, Mapping) else super()._wrap(images, ids, modality)
        place = torch.eye(self.config.dims + 1, dtype=torch.float64).repeat(len(batch), 1, 1)
        return replace(batch, place=place).to(batch.image.device)

    def _flat(self, entries: Mapping[str, Any], ids: Tensor | None) -> Batch:
        flat = flat_entries(entries, self.kinds.names, self.kinds.beside)
        if ids is not None and len(ids) != flat.subjects:
            raise UserError(f"{len(ids)} ids for {flat.subjects} subjects", fix="give one id a subject")
        if flat.text is not None:
            check_text(flat.text, self.space.text, str(self.kinds.beside))
        ids = self._own_ids(flat.subjects) if ids is None else ids.cpu()
        batch = super()._wrap(flat.images, ids[flat.subject], flat.codes)
        return replace(batch, subject=flat.subject, text=flat.text)

    def encode(self, name: str, entry: Any) -> Tensor:
        """Vectors (b, embed_dim) of unit length for an entry as ``step`` takes it; NaN where a row is missing."""
        rows, n = read_entries({name: entry}, self.kinds.all)
        value, index = rows[name].value, rows[name].index
        if name in self.kinds.names:
            value = super()._wrap(value, None, index).normalised()
        with evaluating(self):
            z = unit(self.space.embed(name, value.to(next(self.parameters()).device)))
        return z.new_full((n, z.shape[1]), torch.nan).index_copy(0, index.to(z.device), z)


@dataclass(frozen=True)
class Rows:
    """What is there of an entry: ``value`` (n, …), and which rows of the batch that is, ``index`` (n,)."""

    value: Tensor
    index: Tensor


@dataclass(frozen=True)
class Flat:
    """Present images (n, C, …), the code of their modality, the row that is their subject, their text, rows in all."""

    images: Tensor
    codes: Tensor
    subject: Tensor
    text: Tensor | None
    subjects: int


def flat_entries(entries: Mapping[str, Any], names: Sequence[str], beside: str | None) -> Flat:
    """One list of the images that are there, each with what stands ``beside`` its subject (zeros or NaN if nothing).

    ``names``: of the image modalities, whose numbers are the codes.
    """
    rows, n = read_entries(entries, [*names, *([] if beside is None else [beside])])
    there = [(code, rows[name]) for code, name in enumerate(names) if name in rows and len(rows[name].index)]
    if not there:
        raise UserError("no image in this batch", fix=f"give rows for {' or '.join(names)}")
    shapes = sorted({tuple(found.value.shape[1:]) for _, found in there})
    if len(shapes) > 1:
        raise UserError(f"images of shapes {shapes[0]} and {shapes[1]}", fix="resample them to one")
    subject = torch.cat([found.index for _, found in there])
    codes = torch.cat([torch.full_like(found.index, code) for code, found in there])
    text = None
    if beside in rows and len(rows[beside].index):
        found = rows[beside]
        nothing = torch.nan if found.value.is_floating_point() else 0
        text = found.value.new_full((n, *found.value.shape[1:]), nothing)
        text[found.index.to(text.device)] = found.value
        text = text[subject.to(text.device)]
    return Flat(torch.cat([found.value for _, found in there]), codes, subject, text, n)


def read_entries(entries: Mapping[str, Any], known: Sequence[str]) -> tuple[dict[str, Rows], int]:
    """The present rows of each entry, and the number of subjects. Entries that are None, or absent, have no rows.

    A row is missing where it is None in a list, all NaN (floats), or all zeros (integers: a text without tokens).
    """
    unknown = [name for name in entries if name not in known]
    if unknown:
        raise UserError(f"no tower '{unknown[0]}'", fix=f"the towers are {', '.join(known)}")
    lengths = {name: len(entry) for name, entry in entries.items() if hasattr(entry, "__len__")}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise UserError(f"the entries differ in their rows: {told}", fix="row i of each is subject i; None if missing")
    rows = {name: read_entry(name, entries[name]) for name in known if entries.get(name) is not None}
    if not any(len(found.index) for found in rows.values()):
        raise UserError("no entry has a row", fix=f"give tensors for {', '.join(known)}")
    return rows, next(iter(lengths.values()))


def read_entry(name: str, entry: Any) -> Rows:
    """The present rows of one entry: a tensor (b, …), or a list of tensors and None."""
    if isinstance(entry, (list, tuple)) and all(row is None or isinstance(row, Tensor) for row in entry):
        kept = [i for i, row in enumerate(entry) if row is not None]
        shapes = sorted({tuple(entry[i].shape) for i in kept})
        if len(shapes) > 1:
            raise UserError(f"rows of '{name}' have shapes {shapes[0]} and {shapes[1]}", fix="give them one shape")
        value = torch.stack([entry[i] for i in kept]) if kept else torch.zeros(0)
        return _whole(name, value, torch.tensor(kept, dtype=torch.long))
    if not isinstance(entry, Tensor) or entry.ndim < 2:
        kind = f"of shape {tuple(entry.shape)}" if isinstance(entry, Tensor) else f"a {type(entry).__name__}"
        raise UserError(f"'{name}' is {kind}", fix="give a tensor, a row a subject, or a list of tensors and None")
    return _whole(name, entry, torch.arange(len(entry)))


def _whole(name: str, value: Tensor, index: Tensor) -> Rows:
    if not len(index):
        return Rows(value, index)
    flat = value.flatten(1)
    hidden = flat.isnan() if value.is_floating_point() else flat == 0
    there = (~hidden.all(1)).cpu()
    if value.is_floating_point() and bool((hidden.any(1).cpu() & there).any()):
        row = int(index[(hidden.any(1).cpu() & there).nonzero()[0, 0]])
        raise UserError(f"row {row} of '{name}' is NaN in part", fix="fill it in, or make the whole row NaN")
    if value.dtype == torch.uint8:  # an image, which its method will refuse; black is no reason to lose it here
        return Rows(value, index)
    return Rows(value[there.to(value.device)], index[there])
