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


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SCANS, DATA, RUN and TUNED as a user has them after the first commands; small, 3D, plain weights."""
    from medssl.cli import main

    folder = tmp_path_factory.mktemp("trained")
    scans, data, run, tuned = (folder / name for name in ("SCANS", "DATA", "RUN", "TUNED"))
    for command in (
        f"phantom {scans} --patients 6 --size 32 --modalities CT",
        f"index {scans} --out {data} --workers 1",
        f"prepare {data} --workers 1",
        f"pretrain pcrl --data {data} --out {run} --steps 2 --batch 2 --patch 32 32 32 --workers 0 --precision 32",
        f"finetune segment --data {data} --init {run} --out {tuned} --steps 2 --batch 2 --patch 32 32 32",
    ):
        assert main(command.split()) == 0, command
    return {"SCANS": scans, "DATA": data, "RUN": run, "TUNED": tuned}
