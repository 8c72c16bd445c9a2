"""Every method goes on where it was interrupted, to the bit: nothing it remembers is missing from a checkpoint."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from test_resume import assert_same_run, interrupted_after

from medssl.methods import METHODS
from medssl.stages import pretrain
from medssl.stages.options.train import LoopOptions, Pretrain
from scans import two_modalities

STEPS, STOPPED = 6, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory, trained_run) -> dict[int, Path]:
    pairs = two_modalities(tmp_path_factory.mktemp("methods"), ["CR", "PT"] * 8, patients=8)  # CMCL compares them
    return {2: pairs, 3: trained_run["DATA"]}


# test_resume has PCRL; what a method remembers does not depend on dims, so one stands for all in 3D.
@pytest.mark.parametrize(("method", "dims"), [*((name, 2) for name in METHODS if name != "pcrl"), ("moco", 3)])
def test_a_method_resumes_to_the_same_bits(method, dims, data, tmp_path, monkeypatch):
    loop = LoopOptions(batch=4, workers=0, log_every=1, device="cpu", threads=1, precision="32")
    options = Pretrain(method=method, data=data[dims], out=tmp_path / "run", steps=STEPS, loop=loop)
    options = replace(options, model=replace(options.model, encoder="unet", width=4, patch=(16,) * dims))
    straight = pretrain.run(replace(options, out=tmp_path / "straight"))
    interrupted_after(monkeypatch, options, STOPPED, signal.SIGTERM)
    assert_same_run(pretrain.run(options), straight)
