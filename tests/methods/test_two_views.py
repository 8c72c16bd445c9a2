"""What methods of two views have in common."""

import pytest
import torch

from medssl.contract import Batch
from medssl.methods import resolve
from medssl.rng import Rng


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["simclr", "moco"])
def test_both_views_are_shown_in_the_report(name, dims):
    config, method = resolve(name)
    model = method(config(encoder="unet", width=4, dims=dims, patch=(16,) * dims, embed_dim=6))
    images = torch.rand(4, 1, *model.region(), generator=torch.Generator().manual_seed(0))
    views = model.views(Batch.of(images, torch.arange(4)), Rng(0, 0))
    found = model.rebuild_samples(views)
    assert found == {"view": views["x1"], "other": views["x2"]}
    assert found["other"].shape == (4, 1, *(16,) * dims)
