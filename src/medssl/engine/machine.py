"""The machine a run trains on: device, precision, threads, ranks, through Lightning Fabric."""

import logging
import os
import platform
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from torch import nn

from medssl.errors import UserError

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Machine:
    """What a run must keep to be resumed bit-equally on the same hardware."""

    device: str
    precision: str
    threads: int
    name: str = field(default="", compare=False)
    """The processor's or the accelerator's, for whoever reads the results."""


def choose(device: str = "auto", precision: str = "auto", threads: int = 0) -> Machine:
    """Resolve ``auto``: the accelerator there is, bf16 where it is fast, torch's own number of threads."""
    device = _device(device)
    if precision == "auto":
        precision = "bf16" if fast_bf16(device) else "32"
    if precision not in PRECISIONS:
        raise UserError(f"no precision '{precision}'", "--precision", f"choose auto, {', '.join(PRECISIONS)}")
    if precision == "16" and device == "cpu":
        raise UserError("precision 16 needs a GPU", "--precision", "choose bf16 or 32")
    return Machine(device, precision, threads or torch.get_num_threads(), _name(device))


def fast_bf16(device: str) -> bool:
    """True where the hardware multiplies bfloat16 itself; elsewhere it would be emulated, and slower than float32."""
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8 and torch.cuda.is_bf16_supported()
    if device == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return False


def memory_gib(device: str) -> float | None:
    """Memory of the GPU in GiB, of the smallest where there are several; None on a processor, and on Apple's chips.

    ``device`` as a person names it; one that this machine lacks has no memory either.
    """
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return None
    return min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())) / 2**30


def make_fabric(machine: Machine, deterministic: bool = False) -> Fabric:
    """A launched Fabric: one process, or the ranks that torchrun or SLURM started."""
    # Fabric narrates what it found on the machine; run.toml says it once, and better.
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    devices, nodes = ranks()
    # Fabric takes any process of a SLURM job for one of several that srun has started.
    alone = [LightningEnvironment()] if devices * nodes == 1 else []
    if deterministic and machine.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_num_threads(machine.threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fabric = Fabric(
            accelerator=machine.device,
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if devices * nodes > 1 else "auto",
            precision=PRECISIONS[machine.precision],  # type: ignore[arg-type]
            plugins=alone,  # type: ignore[arg-type]
        )
        fabric.launch()
    return fabric


def place(fabric: Fabric, module: nn.Module, dims: int) -> nn.Module:
    """Move a module to the device, its convolutions in the channels_last layout, 2–9 times faster on a CPU."""
    layout: Any = torch.channels_last if dims == 2 else torch.channels_last_3d
    for parameter in module.parameters():
        if parameter.ndim == dims + 2:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return fabric.to_device(module)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import version

    return {"python": platform.python_version()} | {n: version(n) for n in ("medssl", "torch", "monai", "lightning")}


def _name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    facts = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", facts.read_text()) if device == "cpu" and facts.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _device(wanted: str) -> str:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if wanted not in there:
        raise UserError(f"no device '{wanted}'", "--device", "choose auto, cpu, cuda or mps")
    if not there[wanted]:
        raise UserError(f"this machine has no usable {wanted} device", "--device", "choose auto or cpu")
    return wanted


def ranks() -> tuple[int, int]:
    """Processes a node and nodes, as the launcher says; (1, 1) where there is none."""
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    if "SLURM_STEP_NUM_TASKS" in os.environ:  # set by srun, and not for what a batch script calls without it
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))
        tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise UserError(f"SLURM was asked for {tasks} tasks, wherever", "--ntasks", "use --ntasks-per-node")
        return tasks // nodes, nodes
    return 1, 1
