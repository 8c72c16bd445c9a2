"""Two processes learn what one would, and stop at the same step."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_batches

from medssl.engine.fit import fit
from medssl.engine.optim import make_optimizer


def launched(out: Path) -> dict:
    """As torchrun starts them, without the time that torchrun takes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    script = Path(__file__).with_name("one_rank.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, out],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    return json.loads(out.read_text())


def test_two_ranks_equal_one_and_stop_together(tiny, fabric, tmp_path):
    found = launched(tmp_path / "out.json")
    method = tiny(norm=False)
    alone = []
    for step in fit(method, tiny_batches(), make_optimizer(method, lr=1e-2), fabric, steps=5, lr=lambda progress: 1e-2):
        alone.append({"samples": step.samples, **step.floats()})
        if step.step == 3:
            break
    assert len(found["steps"]) == 3
    for both, one in zip(found["steps"], alone, strict=True):
        assert both == pytest.approx(one, rel=1e-5)
    for name, value in method.state_dict().items():
        torch.testing.assert_close(torch.tensor(found["weights"][name]), value, rtol=1e-4, atol=1e-6, msg=name)
