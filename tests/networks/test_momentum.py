"""The teacher's recurrence, its shuffled passes, and the queue of its keys."""

import copy

import pytest
import torch
from torch import nn

from medssl.networks.momentum import KeyQueue, fit_queue, frozen_copy, move_towards, sample_shuffle, teach
from medssl.rng import Rng


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def test_copy_is_exact_and_gets_no_gradient():
    student = network()
    student(torch.randn(2, 1, 5, 5))  # so that buffers differ from fresh ones
    teacher = frozen_copy(student)
    assert all(
        torch.equal(a, b) for a, b in zip(student.state_dict().values(), teacher.state_dict().values(), strict=True)
    )
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.parameters()}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moves_by_the_recurrence_and_leaves_buffers_alone(layout):
    student = network().double().to(memory_format=layout)
    teacher = frozen_copy(student)
    buffers = {name: b.clone() for name, b in teacher.named_buffers()}
    expected = {name: p.detach().clone() for name, p in teacher.named_parameters()}
    for momentum in (0.9, 0.999, 0.0):
        with torch.no_grad():
            for p in student.parameters():
                p += torch.randn_like(p)
        student(torch.randn(2, 1, 4, 4, dtype=torch.float64))
        move_towards(teacher, student, momentum)
        for name, p in student.named_parameters():
            expected[name] = momentum * expected[name] + (1 - momentum) * p.detach()
    for name, p in teacher.named_parameters():
        assert torch.allclose(p, expected[name], atol=1e-15, rtol=0)
    assert all(torch.equal(b, buffers[name]) for name, b in teacher.named_buffers())


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x):
        return [x, self.norm(x)]


def test_shuffling_gives_each_image_its_own_maps_back():
    x = torch.randn(6, 1, 4, 4)
    encoder = Two().eval()
    plain, shuffled = teach(encoder, x), teach(encoder, x, torch.randperm(6))
    assert all(torch.equal(a, b) for a, b in zip(plain, shuffled, strict=True))


def test_the_teacher_keeps_running_statistics_of_its_own_passes():
    teacher = frozen_copy(Two())
    teach(teacher, torch.randn(4, 1, 4, 4) + 3)
    assert float(teacher.norm.running_mean) > 0.2


def keys(values):
    return torch.tensor([[float(v), 0.0] for v in values])


def ids(values):
    return torch.tensor(values)


def test_queue_starts_empty_and_keeps_the_latest():
    queue = KeyQueue(4, 2)
    assert not queue.allowed(ids([1]), ids([1])).any()
    queue.enqueue(keys([1, 2, 3]), ids([1, 2, 3]), ids([10, 20, 30]))
    assert queue.allowed(ids([9]), ids([90])).tolist() == [[True, True, True, False]]
    queue.enqueue(keys([4, 5]), ids([4, 5]), ids([40, 50]))
    assert queue.keys[:, 0].tolist() == [5, 2, 3, 4] and queue.items.tolist() == [5, 2, 3, 4]
    assert int(queue.pointer) == 1 and int(queue.filled) == 4


def test_more_keys_than_places():
    queue = KeyQueue(3, 2)
    queue.enqueue(keys([1, 2, 3, 4, 5]), ids([1, 2, 3, 4, 5]), ids([1, 2, 3, 4, 5]))
    assert sorted(queue.items.tolist()) == [3, 4, 5] and int(queue.filled) == 3


def test_same_image_or_patient_is_never_a_negative():
    queue = KeyQueue(4, 2)
    queue.enqueue(keys([1, 2, 3]), ids([1, 2, 3]), ids([10, 10, 30]))
    assert queue.allowed(ids([3]), ids([99])).tolist() == [[True, True, False, False]]
    assert queue.allowed(ids([99]), ids([10])).tolist() == [[False, False, True, False]]


def test_queue_goes_on_from_its_state():
    one = KeyQueue(5, 2)
    one.enqueue(keys([1, 2, 3]), ids([1, 2, 3]), ids([1, 2, 3]))
    other = KeyQueue(5, 2)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for queue in (one, other):
        queue.enqueue(keys([4, 5, 6]), ids([4, 5, 6]), ids([4, 5, 6]))
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def test_queue_and_momentum_fit_the_data_unless_they_are_given():
    assert fit_queue(None, None, 100000, 200000, 64) == (3840, 0.999)
    assert fit_queue(None, None, 100000, 200000, 1024) == (16384, 0.999)  # never more than published
    assert fit_queue(None, None, 40, 1200, 32)[0] == 40  # nor more than images
    assert fit_queue(None, None, 2000, 50, 8) == (32, 0.9)  # nor a teacher that forgets at once
    assert fit_queue(7, 0.5, 2000, 50, 8) == (7, 0.5)


@pytest.mark.parametrize(("norm", "groups", "drawn"), [("batch", 1, False), ("group", 4, False), ("batch", 4, True)])
def test_keys_are_shuffled_where_batch_norm_has_groups(norm, groups, drawn):
    found = sample_shuffle(Rng(0, 3), 8, norm, groups)
    assert (found is not None) == drawn
    if found is not None:
        assert sorted(found.tolist()) == list(range(8)) and torch.equal(found, sample_shuffle(Rng(0, 3, 8), 8, norm, 4))
