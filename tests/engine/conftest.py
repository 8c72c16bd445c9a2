"""Fixtures of the engine's tests."""

from collections.abc import Callable

import pytest
import torch
from lightning.fabric import Fabric
from tiny import Tiny

from medssl.engine.machine import Machine, make_fabric, place


@pytest.fixture
def fabric() -> Fabric:
    return make_fabric(Machine("cpu", "32", 1))


@pytest.fixture
def tiny(fabric: Fabric) -> Callable[..., Tiny]:
    """Makes the method, always with the same weights."""

    def make(norm: bool = True) -> Tiny:
        torch.manual_seed(0)
        return place(fabric, Tiny(norm), 2)  # type: ignore[return-value]

    return make
