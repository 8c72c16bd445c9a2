"""Several encoders as one: a mean over what is present, the plain task where there is one modality."""

from typing import Any

import pytest
import torch

from medssl.contract import Batch, backpropagate
from medssl.errors import UserError
from medssl.rng import Rng
from medssl.tasks.classify import Classify, ClassifyConfig
from medssl.tasks.fused import Towers, drop
from medssl.tasks.segment import Segment, SegmentConfig

SIZE = (32, 32)
TASKS: dict[str, Any] = {"segment": (Segment, SegmentConfig), "classify": (Classify, ClassifyConfig)}


def made(name: str, modalities: tuple[str, ...], **changes: Any) -> Any:
    kind, config = TASKS[name]
    torch.manual_seed(0)
    return kind(config(**{"width": 4, "dims": 2, "patch": SIZE, "modalities": modalities} | changes))


def batch_for(task: Any, count: int, b: int = 4) -> Batch:
    g = torch.Generator().manual_seed(1)
    batch = Batch.of(torch.rand(b, count, *task.region(), generator=g))
    batch.mask = torch.randint(0, 2, (b, *task.region()), generator=g)
    batch.label = torch.eye(2)[torch.arange(b) % 2]
    return batch


@pytest.mark.parametrize("name", TASKS)
def test_one_modality_is_the_plain_task_to_the_bit(name: str) -> None:
    plain, fused = made(name, ()), made(name, ("CT",))
    one = batch_for(plain, 1)
    two = batch_for(fused, 1)
    two.present = torch.ones(4, 1, dtype=torch.bool)
    expected = backpropagate(plain.losses(plain.views(one, Rng(0, 0)), 0.5))
    found = backpropagate(fused.losses(fused.views(two, Rng(0, 0)), 0.5))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    own = dict(fused.named_parameters())
    for key, p in plain.named_parameters():
        q = own[key.replace("encoder.", "encoder.towers.0.")]
        assert torch.equal(q, p) and torch.equal(q.grad, p.grad), key


def naive(towers: Towers, x: torch.Tensor, present: torch.Tensor) -> list[list[torch.Tensor]]:
    """Sample by sample, level by level: the mean over the modalities that are there."""
    per = x.shape[1] // len(towers.towers)
    told = []
    for i in range(len(x)):
        maps = [t(x[i : i + 1, m * per : (m + 1) * per]) for m, t in enumerate(towers.towers) if present[i, m]]
        told.append([sum(level) / len(level) for level in zip(*maps, strict=True)])
    return told


@pytest.mark.parametrize("channels", [1, 3])
def test_every_level_is_the_mean_of_those_present_and_absent_voxels_change_nothing(channels: int) -> None:
    towers = made("segment", ("A", "B", "C"), channels=channels).encoder.double()
    present = torch.tensor([[1, 1, 1], [0, 1, 0], [1, 0, 1], [0, 0, 1]], dtype=torch.bool)
    x = torch.rand(4, 3 * channels, *SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    other = x.clone()
    for i, m in (~present).nonzero().tolist():
        other[i, m * channels : (m + 1) * channels] = torch.nan
    for training in (True, False):
        torch.testing.assert_close(towers.train(training)(x, present), towers(other, present), rtol=0, atol=0)
    expected = naive(towers, x, present)
    for level, maps in enumerate(towers(x, present)):
        torch.testing.assert_close(maps, torch.cat([told[level] for told in expected]))


def test_the_order_of_modalities_does_not_matter() -> None:
    towers = made("segment", ("A", "B", "C")).encoder.eval()
    order = [2, 0, 1]
    turned = Towers([towers.towers[m] for m in order]).eval()
    x, present = torch.rand(2, 3, *SIZE), torch.tensor([[1, 1, 1], [1, 0, 1]], dtype=torch.bool)
    for one, two in zip(towers(x, present), turned(x[:, order], present[:, order]), strict=True):
        torch.testing.assert_close(one, two)


def test_a_tower_trains_on_one_sample_of_one_position() -> None:
    task = made("segment", ("A", "B"), augment=False, modality_dropout=0.0)
    batch = batch_for(task, 2)
    batch.present = torch.tensor([[1, 0], [1, 0], [1, 0], [1, 1]], dtype=torch.bool)
    terms = backpropagate(task.losses(task.views(batch, Rng(0, 0)), 0.5))
    assert all(value.isfinite() for value in terms.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())


def test_dropout_never_drops_all_nor_adds_what_is_absent() -> None:
    g = torch.Generator().manual_seed(3)
    present = torch.rand(2000, 3, generator=g) < 0.6
    present = present[present.any(1)]
    chance = torch.rand(present.shape, generator=g)
    kept = drop(present, chance, 0.5)
    assert kept.any(1).all() and not (kept & ~present).any()
    assert torch.equal(drop(present, chance, 0.0), present)
    whole = drop(torch.ones(20000, 2, dtype=torch.bool), torch.rand(20000, 2, generator=g), 0.5)
    assert whole.float().mean().item() == pytest.approx(0.625, abs=0.01)  # 1/4 both, 3/4 one of two


def test_views_draw_what_is_left_out_and_predictions_use_what_they_are_told() -> None:
    task = made("classify", ("A", "B"), modality_dropout=0.5)
    batch = batch_for(task, 2, b=64)
    batch.present = torch.ones(64, 2, dtype=torch.bool)
    seen = task.views(batch, Rng(0, 0))["present"]
    assert torch.equal(seen, task.views(batch, Rng(0, 0))["present"]) and 0 < (~seen).sum() < 64
    task.eval()
    x, only = torch.rand(2, 2, *SIZE), torch.tensor([[True, False]] * 2)
    other = torch.cat([x[:, :1], torch.rand(2, 1, *SIZE)], 1)
    assert torch.equal(task.predict(x, only), task.predict(other, only))
    assert not torch.equal(task.predict(x), task.predict(other))
    segment = made("segment", ("A", "B")).eval()
    maps = [segment.logits(image[None], only[:1]) for image in (x[0], other[0])]
    assert torch.equal(*maps)
    assert torch.equal(segment.predict(x[0], 0.0, only[0]), segment.predict(other[0], 0.0, only[0]))


def test_a_share_that_would_leave_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="modality dropout is 1"):
        made("segment", ("A", "B"), modality_dropout=1.0)
