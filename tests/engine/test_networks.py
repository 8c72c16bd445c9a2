"""Compiled or recomputed networks are the same networks."""

import copy
import shutil
import subprocess
import sys

import compiled
import pytest
import torch

from medssl.engine import networks
from medssl.engine.networks import prepare
from medssl.errors import UserError
from medssl.methods.genesis import Genesis


@pytest.fixture
def method() -> Genesis:
    return Genesis(encoder="unet", dims=2, channels=1, width=4, patch=(16, 16))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_have_the_same_gradients_and_names():
    done = subprocess.run([sys.executable, compiled.__file__], capture_output=True, text=True, timeout=600)
    assert done.stdout == "equal\n", done.stderr


def test_recomputing_reaches_encoder_and_decoder(method):
    plain = copy.deepcopy(method)
    prepare(method, checkpoint_activations=True)
    assert method.encoder.recompute and method.decoder.recompute
    assert all(torch.equal(a, b) for a, b in zip(compiled.gradients(plain), compiled.gradients(method), strict=True))


def test_what_cannot_be_is_told(method, monkeypatch):
    with pytest.raises(UserError, match="--compile and --checkpoint-activations together: choose one"):
        prepare(method, checkpoint_activations=True, compiled=True)
    monkeypatch.setattr(networks.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"finds no C\+\+ compiler \(--compile\): install one"):
        prepare(method, compiled=True)
