"""Small PCRL models and batches."""

import pytest
import torch

from medssl.contract import Batch
from medssl.methods.pcrl import PCRL
from medssl.rng import Rng


@pytest.fixture
def make():
    def build(dims=2, size=16, dtype=torch.float64, **options):
        defaults = {"encoder": "unet", "width": 4, "patch": (size,) * dims, "queue": 12, "embed_dim": 6}
        return PCRL(dims=dims, **{**defaults, **options}).to(dtype)

    return build


@pytest.fixture
def views_of():
    """Views of random images, in the model's precision, with the queue filled by other patients' keys."""

    def build(model, b=4, seed=0, filled=9, step=0, images=None):
        generator = torch.Generator().manual_seed(seed)
        if images is None:
            images = torch.rand(b, model.config.channels, *model.region(), generator=generator)
        views = model.views(Batch.of(images, value_range=model.config.value_range), Rng(seed, step))
        dtype = next(model.parameters()).dtype
        views.images = {k: v.to(dtype) if v.is_floating_point() else v for k, v in views.images.items()}
        views.drawn |= {k: v.to(dtype) for k, v in views.drawn.items() if k in ("t1", "t2")}
        if filled:
            keys = torch.nn.functional.normalize(
                torch.randn(filled, model.config.embed_dim, generator=generator), dim=1
            )
            ids = torch.arange(filled) - 2  # two of them are patients of the batch
            model.queue.enqueue(keys.to(dtype), ids, ids)
        return views

    return build
