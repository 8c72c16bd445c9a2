"""Small CMCL models and batches with something missing."""

from dataclasses import replace

import torch

from medssl.contract import Batch, Term, one_graph
from medssl.methods.cmcl import CMCL
from medssl.networks.text import Text
from medssl.rng import Rng

SMALL_TEXT = Text(vocab=20, length=6, width=8, depth=1, heads=2)
# One study has everything, one no MR, one no text; two studies are of one patient, two reports are equal.
CODES, SUBJECT, PATIENT = [0, 1, 0, 0, 1, 0], [10, 10, 11, 12, 12, 13], [1, 1, 2, 3, 3, 1]
SAID = {10: [3, 4, 5], 11: [6, 7], 12: [], 13: [6, 7]}


def make(towers=None, dims=2, size=16, **options):
    towers = towers or {"CT": "unet", "MR": "unet", "report": SMALL_TEXT}
    given = {"width": 4, "patch": (size,) * dims, "dims": dims, "embed_dim": 6, "norm": "group", **options}
    return CMCL(towers=towers, **given).double()


def batch_of(model, rows=(0, 1, 2, 3, 4, 5), seed=0, text=True):
    rows = list(rows)
    images = torch.rand(6, 1, *model.region(), generator=torch.Generator().manual_seed(seed))[rows]
    tokens = torch.tensor([SAID[SUBJECT[i]] + [0] * (6 - len(SAID[SUBJECT[i]])) for i in rows])
    codes, subject, patient = (torch.tensor(x)[rows] for x in (CODES, SUBJECT, PATIENT))
    place = torch.eye(model.config.dims + 1).double().repeat(len(rows), 1, 1)
    batch = Batch.of(images, patient, modality=codes)
    return replace(batch, subject=subject, place=place, text=tokens if text else None)


def views_of(model, batch, start=0):
    views = model.views(batch, Rng(0, 0, start))
    views.images = {k: v.double() if v.is_floating_point() else v for k, v in views.images.items()}
    return views


def values(model, views, progress=0.0):
    found = {}
    with one_graph():
        for item in model.losses(views, progress):
            if isinstance(item, Term):  # a modality at a time, or a chunk
                found[item.name] = found.get(item.name, 0) + item.value
    return found
