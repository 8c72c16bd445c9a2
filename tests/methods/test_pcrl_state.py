"""What PCRL does between losses: teacher, queue, counts of passes, memory, and what its options refuse."""

import copy
import weakref

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import medssl
from medssl.config import from_table, to_table
from medssl.contract import Batch, Shared, Term, backpropagate, one_graph
from medssl.errors import UserError
from medssl.methods.pcrl import PCRLConfig
from medssl.rng import Rng
from medssl.views.turn import turn


def test_teacher_is_an_exact_copy_then_follows_the_recurrence(make, views_of):
    model = make(momentum=0.9)
    state = model.state_dict()
    for name in ("encoder", "projector"):
        own = {n: v for n, v in state.items() if n.startswith(name + ".")}
        assert own and all(torch.equal(v, state[f"teacher.{n}"]) for n, v in own.items())
    expected = {n: p.detach().clone() for n, p in model.teacher.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
        views = views_of(model, step=step)
        optimizer.zero_grad()
        backpropagate(model.losses(views, 0.0))
        assert all(p.grad is None for p in model.teacher.parameters())
        optimizer.step()
        model.after_step(0.0)
        students = dict(model.named_parameters())
        expected = {n: 0.9 * v + 0.1 * students[n].detach() for n, v in expected.items()}
    for n, p in model.teacher.named_parameters():
        assert not p.requires_grad and torch.allclose(p, expected[n], atol=1e-14, rtol=0), n


def test_teacher_keeps_buffers_of_its_own_passes(make, views_of):
    model = make()
    views = views_of(model)
    with torch.no_grad():
        alone = copy.deepcopy(model.teacher["encoder"])
        alone(views["x2"])
    backpropagate(model.losses(views, 0.0))
    model.after_step(0.0)
    teacher, student = model.teacher["encoder"], model.encoder
    pairs = list(zip(teacher.named_buffers(), alone.buffers(), student.buffers(), strict=True))
    assert pairs and all(torch.equal(b, own) for (_, b), own, _ in pairs)
    assert not all(torch.equal(b, other) for (_, b), _, other in pairs)


@pytest.mark.parametrize(("mix", "passes"), [(False, 1), (True, 2)])
def test_each_encoder_runs_once_a_view(make, views_of, mix, passes):
    model, calls = make(mix=mix), {"student": 0, "teacher": 0, "decoder": 0}

    def count(name):
        return lambda *_: calls.update({name: calls[name] + 1})

    model.encoder.register_forward_hook(count("student"))
    model.teacher["encoder"].register_forward_hook(count("teacher"))
    model.decoder.register_forward_hook(count("decoder"))
    backpropagate(model.losses(views_of(model), 0.0))
    assert calls == {"student": passes, "teacher": passes, "decoder": 3 + mix}


def convolutions(run):
    with FlopCounterMode(display=False) as counter:
        run()
    counts = counter.get_flop_counts()["Global"]
    return sum(n for op, n in counts.items() if "convolution" in str(op))


def test_no_convolution_is_done_that_the_method_does_not_need(make, views_of):
    model = make(dtype=torch.float32, size=32)
    views = views_of(model)

    def bare():
        student = Shared(model.encoder(views["x1"]))
        with torch.no_grad():
            teacher = model.teacher["encoder"](views["x2"])
        gate = torch.ones((), requires_grad=True)
        for maps in (student.maps, [*teacher[:-1], teacher[-1] * gate], student.maps):
            model.decoder(maps).sum().backward()
        student.backward()

    assert convolutions(lambda: backpropagate(model.losses(views, 0.0))) == convolutions(bare)


class Held:
    """Bytes that autograd keeps for backward: how many at most, each storage counted once."""

    def __init__(self, ours):
        self.now = self.peak = 0
        self.alive = {}
        self.ours = {p.untyped_storage().data_ptr() for p in ours}

    def pack(self, x):
        storage = x.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self.ours:
            return x
        box = [x.detach()]
        self.alive[place] = self.alive.get(place, 0) + 1
        if self.alive[place] == 1:
            self.now += size
            self.peak = max(self.peak, self.now)
        keeper = _Keeper(box)
        weakref.finalize(keeper, self.release, place, size)
        return keeper

    def release(self, place, size):
        self.alive[place] -= 1
        if not self.alive[place]:
            self.now -= size

    @staticmethod
    def unpack(kept):
        return kept.box[0] if isinstance(kept, _Keeper) else kept


class _Keeper:
    def __init__(self, box):
        self.box = box


def held_bytes(model, run):
    held = Held(model.parameters())
    with torch.autograd.graph.saved_tensors_hooks(held.pack, held.unpack):
        run()
    return held.peak


@pytest.mark.parametrize(("mix", "share"), [(True, 0.4), (False, 0.6)])
def test_activations_of_one_decode_are_held_at_a_time(make, views_of, mix, share):
    model = make(encoder="poolunet", dtype=torch.float32, size=32, mix=mix)
    views = views_of(model)

    def one():
        with one_graph():
            terms = [t.value for t in model.losses(views, 0.0) if isinstance(t, Term)]
        torch.stack(terms).sum().backward()

    branchwise = held_bytes(model, lambda: backpropagate(model.losses(views, 0.0)))
    assert branchwise <= share * held_bytes(model, one)


def test_queue_takes_each_key_once_after_the_loss(make, views_of):
    model = make(queue=10)
    views = views_of(model, filled=0)
    before = model.queue.keys.clone()
    terms = backpropagate(model.losses(views, 0.0))
    assert torch.equal(model.queue.keys, before) and float(terms["contrast"]) == 0  # no negatives yet
    model.after_step(0.0)
    assert int(model.queue.filled) == 4 and int(model.queue.pointer) == 4
    assert model.queue.items[:4].tolist() == views["item"].tolist()
    with torch.no_grad():
        keys = model.teacher["projector"](model.teacher["encoder"](views["x2"])[-1].flatten(2).mean(2))
    assert torch.allclose(model.queue.keys[:4].norm(dim=1), torch.ones(4).double(), atol=1e-6)
    assert keys.shape == model.queue.keys[:4].shape
    model.after_step(0.0)
    assert int(model.queue.filled) == 4  # without a loss there is nothing to add


def test_an_image_that_comes_again_is_not_its_own_negative(make):
    model = make(queue=64, dtype=torch.float32)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    images, ids = torch.rand(4, 1, 16, 16), torch.tensor([3, 3, 3, 3])
    for _ in range(3):
        terms = model.step(images, optimizer, ids=ids)
    assert int(model.queue.filled) == 12 and terms["contrast"] == 0  # one patient alone has no negative
    assert model.step(images, optimizer, ids=ids + 1)["contrast"] > 0


def test_views_hold_their_chance_and_say_which_turn_was_applied(make):
    model = make(target="view", mix=True, contrast="both", batch_groups=2)
    images = torch.rand(4, 1, *model.region())
    one, again, other = (model.views(Batch.of(images), Rng(0, step)) for step in (5, 5, 6))
    assert all(torch.equal(v, again[k]) for k, v in one.images.items())
    assert one["alpha"] == again["alpha"] != other["alpha"]
    assert 0.5 <= one["alpha"] <= 1 and 0.5 <= one["lambda"] <= 1
    assert sorted(one["order"].tolist()) == sorted(one["shuffle"].tolist()) == [0, 1, 2, 3]
    assert not torch.equal(one["x1"], one["x2"]) and not torch.equal(one["x1"], other["x1"])
    for i in "12":
        assert torch.equal(turn(one[f"x{i}"], one[f"t{i}"]), one[f"target{i}"])


@pytest.mark.parametrize(
    ("dims", "value_range", "head"), [(2, (0.0, 1.0), "linear"), (3, (0.0, 1.0), "sigmoid"), (3, (-2.0, 3.0), "linear")]
)
def test_targets_lie_within_the_range_of_the_head(make, views_of, dims, value_range, head):
    model = make(dims=dims, value_range=value_range, dtype=torch.float32)
    assert model.decoder.sigmoid == (head == "sigmoid")
    low, high = value_range
    images = low + (high - low) * torch.rand(2, 1, *model.region())
    views = views_of(model, images=images)
    for name in ("x1", "x2", "target1", "target2"):
        assert low - 1e-5 <= float(views[name].min()) and float(views[name].max()) <= high + 1e-5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"contrast": "imgae"}, "contrast is 'imgae': give one of image, patch, both"),
        ({"rebuild_weight": "auto"}, "rebuild_weight is 'auto'"),
        ({"rebuild_weight": (1.0, 2.0, 3.0)}, "rebuild_weight is"),
        ({"rebuild_weight": -1.0}, "rebuild_weight is -1.0"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"queue": 0}, "queue is 0"),
        ({"head": "sigmoid", "value_range": (-1.0, 1.0)}, "a sigmoid cannot reach"),
        ({"contrast_weight": 0.0, "rebuild_weight": 0.0}, "nothing is left to learn"),
        ({"encoder": "resnet19"}, "no encoder 'resnet19'"),
        ({"patch": (30, 32)}, "no multiple of 32×32: choose"),
        ({"colour": 3}, "unknown key 'colour'"),
    ],
)
def test_wrong_options_are_told_in_one_sentence(options, said):
    with pytest.raises(UserError) as caught:
        medssl.PCRL(**{"width": 4, "patch": (32, 32), "queue": 8, **options})
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "steps", "batch", "expected"),
    [
        (100000, 200000, 64, (3840, 0.999)),
        (100000, 200000, 1024, (16384, 0.999)),
        (500, 1200, 32, (128, 1 - 20 / 1200)),
        (40, 1200, 32, (40, 1 - 20 / 1200)),
        (2000, 50, 8, (32, 0.9)),
    ],
)
def test_defaults_follow_the_data_and_the_steps(images, steps, batch, expected):
    config = PCRLConfig().fitted(images, steps, batch)
    assert (config.queue, config.momentum) == pytest.approx(expected)
    kept = PCRLConfig(queue=7, momentum=0.5).fitted(images, steps, batch)
    assert (kept.queue, kept.momentum) == (7, 0.5)


def test_configuration_survives_its_table():
    config = PCRLConfig(rebuild_weight=(1.0, 0.5), patch=(32, 32))
    table = {k: list(v) if isinstance(v, tuple) else v for k, v in to_table(config).items() if v is not None}
    assert from_table(PCRLConfig, table) == config


def test_the_seed_decides_the_weights_and_leaves_the_users_generator_alone(make):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.encoder.blocks[0].conv1.conv.weight, two.encoder.blocks[0].conv1.conv.weight)
    assert not torch.equal(one.encoder.blocks[0].conv1.conv.weight, other.encoder.blocks[0].conv1.conv.weight)


def test_samples_for_the_report(make, views_of):
    model = make(dtype=torch.float32)
    model.train()
    found = model.rebuild_samples(views_of(model))
    assert found["view"].shape == found["target"].shape == found["rebuilt"].shape == (4, 1, 16, 16)
    assert found["gate_rebuilt"].shape == found["gate_target"].shape == (len(found["gate_names"]), 1, 16, 16)
    assert model.training and not found["rebuilt"].requires_grad
    assert not torch.equal(found["gate_rebuilt"][0], found["gate_rebuilt"][1])
