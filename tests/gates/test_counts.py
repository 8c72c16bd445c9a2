"""Gates without noise: arithmetic, bytes and waits are counted, never timed (docs/results/performance.md has times)."""

import gzip

import pytest
import torch
from benchmarks import crops
from benchmarks.case import Case, flops
from benchmarks.held import Live
from torch.utils._python_dispatch import TorchDispatchMode

from medssl.data import nifti
from medssl.data.find import read_headers
from medssl.losses.contrastive import unit
from medssl.losses.tiled import tiled_info_nce

SMALL = {2: (2, 2, 64, (128, 128)), 3: (3, 2, 32, (32, 32, 32))}
TINY = {2: (2, 2, 8, (64, 64)), 3: (3, 2, 8, (16, 16, 16))}


@pytest.mark.parametrize("dims", [2, 3])
def test_a_step_does_the_arithmetic_of_its_passes(dims):
    """Heads, gates, the queue and the making of views come on top."""
    case = Case(*SMALL[dims])
    bare = flops(case.bare_step)
    assert flops(case.branchwise, "conv") == flops(case.bare_step, "conv")
    assert bare < flops(case.step) <= 1.001 * bare


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("mix", "most"), [(True, 0.35), (False, 0.4)])
def test_branchwise_backward_keeps_a_third_of_the_bytes(dims, mix, most):
    case = Case(*TINY[dims], mix=mix)
    assert case.held_bytes(case.branchwise) <= most * case.held_bytes(case.whole)


class Waits(TorchDispatchMode):
    """Operations for which Python waits until the device has done all that is queued."""

    NAMES = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "item")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.seen += [name] if name in self.NAMES else []
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"mix": True}, {"contrast": "both"}, {"rebuild_weight": "balanced"}])
def test_no_step_waits_for_the_device(options):
    case = Case(2, 2, 8, (64, 64), **options)
    case.step()
    with Waits() as waits:
        case.branchwise()
        case.optimizer.step()
        case.model.after_step(0.0)
    assert waits.seen == []


def test_the_count_of_waits_sees_one():
    with Waits() as waits:
        float(torch.ones(()) + 1)
    assert waits.seen == ["_local_scalar_dense"]


def test_memory_of_a_contrast_by_strips_is_not_quadratic():
    def most(n):
        query, key, negatives = (unit(torch.randn(n, 16)).requires_grad_() for _ in range(3))
        allowed = torch.ones(n, n, dtype=torch.bool)
        with Live() as live:
            tiled_info_nce(query, key, negatives, allowed, 0.2).backward()
        return live.most

    assert most(8192) < 4 * 2**21 + 2**21 + 8192 * 16 * 4 * 12  # a strip, its mask, a few matrices of vectors


def test_a_random_crop_reads_at_most_three_times_its_bytes(tmp_path):
    (tmp_path / "scans").mkdir()
    crops.write_ct(tmp_path / "scans" / "ct.nii.gz", (128, 128, 64))
    store = crops.prepared(tmp_path / "scans", tmp_path / "data")
    for region in ((64, 64, 32), (64, 96, 64)):
        assert crops.amplification(store, region) <= 3


def test_the_header_pass_opens_no_voxels(tmp_path, monkeypatch):
    read = []

    class Counting:
        def __init__(self, path, mode):
            self.handle = open(path, mode)  # noqa: PTH123, SIM115

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.handle.close()

        def peek(self, n):
            return self.handle.peek(n)

        def read(self, n):
            read.append(n)
            return self.handle.read(n)

    crops.write_ct(tmp_path / "whole.nii.gz", (64, 64, 64))
    whole = gzip.decompress((tmp_path / "whole.nii.gz").read_bytes())
    (tmp_path / "plain.nii").write_bytes(whole)
    (tmp_path / "voxels_missing.nii").write_bytes(whole[:352])
    monkeypatch.setattr(nifti, "open", Counting, raising=False)
    names = ["whole.nii.gz", "plain.nii", "voxels_missing.nii"]
    told = read_headers((str(tmp_path), names))
    assert all("items" in told[name] for name in names)
    assert len(read) >= 3 and sum(read) <= 3 * 2048
