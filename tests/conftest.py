"""Fixtures of the whole suite; shapes of tensors are checked wherever medssl annotates them."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before medssl is imported: the annotations `Float[Tensor, "b c h w"]` become checks, in tests only.
install_import_hook(["medssl.views", "medssl.losses", "medssl.networks"], "beartype.beartype")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real public images beside the checkout; a test that needs it skips where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real images are not on this machine")
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two test processes share two cores; one thread each is faster, and sums come out the same."""
    import torch

    torch.set_num_threads(1)
