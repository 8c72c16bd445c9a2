"""What auto chooses, and what it refuses."""

import logging

import pytest
import torch

from medssl.engine import machine
from medssl.errors import UserError


@pytest.fixture
def no_accelerator(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("has", "chosen"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "32"), ({}, "32")],
)
def test_bf16_where_the_processor_has_it(no_accelerator, monkeypatch, has, chosen):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(has, True))
    assert machine.choose().precision == chosen


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), "32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_bf16_where_the_gpu_has_it(monkeypatch, capability, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    assert machine.choose().name == "A GPU"
    assert machine.choose() == machine.Machine("cuda", chosen, torch.get_num_threads())


def test_a_choice_is_kept(no_accelerator):
    assert machine.choose("cpu", "32", 3) == machine.Machine("cpu", "32", 3)


@pytest.mark.parametrize(
    ("device", "precision", "told"),
    [("cuda", "auto", "no usable cuda"), ("tpu", "auto", "no device 'tpu'"), ("cpu", "16", "needs a GPU")],
)
def test_what_cannot_be_is_refused(no_accelerator, device, precision, told):
    with pytest.raises(UserError, match=told):
        machine.choose(device, precision)


def test_convolutions_lie_channels_last(fabric):
    net = torch.nn.ModuleList([torch.nn.Conv3d(2, 4, 3), torch.nn.Conv2d(2, 4, 3), torch.nn.Linear(2, 2)])
    machine.place(fabric, net, 3)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert net[1].weight.is_contiguous()
    assert net[2].weight.is_contiguous()


def test_fabric_keeps_its_findings_to_itself(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    machine.make_fabric(machine.Machine("cpu", "bf16", 1))
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


SLURM = {"SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "medssl"}


def test_what_srun_starts_are_ranks_and_what_a_batch_script_calls_itself_is_alone(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert machine.ranks() == (1, 1)
    assert machine.make_fabric(machine.Machine("cpu", "32", 1)).world_size == 1
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    assert machine.ranks() == (2, 2)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(UserError, match="use --ntasks-per-node"):
        machine.ranks()
