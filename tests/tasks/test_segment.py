"""The segmenter: Dice against sets and MONAI, windows against the whole, and that it learns."""

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss

from medssl.contract import Batch, Shared, Term, backpropagate, one_graph
from medssl.errors import UserError
from medssl.rng import Rng
from medssl.tasks.segment import EPS, Segment, SegmentConfig, soft_dice


def naive_dice(logits: torch.Tensor, classes: torch.Tensor) -> float:
    b, k = logits.shape[:2]
    p = logits.softmax(1).flatten(2)
    g = classes.flatten(1)
    scores = []
    for c in range(1, k):
        shared = both = 0.0
        for i in range(b):
            for v in range(g.shape[1]):
                shared += float(p[i, c, v]) * (int(g[i, v]) == c)
                both += float(p[i, c, v]) + (int(g[i, v]) == c)
        scores.append((2 * shared + EPS) / (both + EPS))
    return 1 - sum(scores) / len(scores)


@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 2)])
def test_soft_dice_counts_as_the_formula_says_and_as_monai(shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, *shape, generator=g, dtype=torch.float64)
    classes = torch.randint(0, 3, (2, *shape), generator=g)
    assert soft_dice(logits, classes).item() == pytest.approx(naive_dice(logits, classes), abs=1e-12)
    theirs = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    assert soft_dice(logits, classes).item() == pytest.approx(theirs(logits, classes[:, None]).item(), abs=1e-4)


def test_dice_does_not_depend_on_how_voxels_fall_into_samples() -> None:
    g = torch.Generator().manual_seed(1)
    logits, classes = torch.randn(4, 3, 6, 5, generator=g), torch.randint(0, 3, (4, 6, 5), generator=g)
    one = soft_dice(torch.cat(list(logits), dim=1)[None], torch.cat(list(classes))[None])
    torch.testing.assert_close(soft_dice(logits, classes), one)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(soft_dice(logits[order], classes[order]), one)


def test_a_perfect_prediction_costs_nothing() -> None:
    classes = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(2))
    logits = 200.0 * F.one_hot(classes, 3).movedim(-1, 1)
    assert soft_dice(logits, classes).item() == pytest.approx(0.0, abs=1e-6)


def config(dims: int = 2, **changes: object) -> SegmentConfig:
    patch = (32, 32) if dims == 2 else (32, 32, 32)
    given: dict = {"width": 8, "patch": patch, "dims": dims, "labels": (3, 7)} | changes
    return SegmentConfig(**given)


def discs(b: int, seed: int, region: tuple[int, ...]) -> Batch:
    """A bright and a dim disc on noise; mask values 3 and 7."""
    g = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.arange(n).float() for n in region), indexing="ij")
    images, masks = 0.1 * torch.rand(b, 1, *region, generator=g), torch.zeros(b, *region, dtype=torch.int16)
    for i in range(b):
        for label, value in ((3, 0.9), (7, 0.5)):
            centre = torch.rand(len(region), generator=g) * 16 + torch.tensor(region) / 2 - 8
            inside = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) < 36
            masks[i][inside] = label
            images[i, 0][inside] = value
    batch = Batch.of(images)
    batch.mask = masks
    return batch


def test_it_learns_to_mark_discs_and_gives_mask_values_back() -> None:
    torch.manual_seed(0)
    task = Segment(config())
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for step in range(40):
        optimizer.zero_grad()
        backpropagate(task.losses(task.views(discs(8, step, task.region()), Rng(0, step)), step / 40))
        optimizer.step()
    task.eval()
    test = discs(1, 999, (45, 40))
    found = task.predict(test.normalised()[0])
    assert set(found.unique().tolist()) <= {0, 3, 7}
    for label in (3, 7):
        p, t = found == label, test.mask[0] == label
        assert 2 * (p & t).sum() / (p.sum() + t.sum()) > 0.8


@pytest.mark.parametrize("dims", [2, 3])
def test_the_two_terms_one_by_one_give_the_gradient_of_their_sum(dims: int) -> None:
    torch.manual_seed(1)
    task = Segment(config(dims, width=4, norm="group", augment=False)).double()
    batch = discs(2, 0, task.region())
    views = task.views(batch, Rng(0, 0))
    views.images["image"] = views["image"].double()
    with one_graph():
        total = sum(item.value for item in task.losses(views, 0.0) if isinstance(item, Term))
    expected = torch.autograd.grad(total, list(task.parameters()))
    task.zero_grad()
    backpropagate(task.losses(views, 0.0))
    for parameter, gradient in zip(task.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)


def test_terms_are_named_and_the_logits_come_last() -> None:
    task = Segment(config())
    kinds = list(task.losses(task.views(discs(2, 0, task.region()), Rng(0, 0)), 0.0))
    assert [item.name for item in kinds if isinstance(item, Term)] == ["dice", "cross_entropy"]
    assert isinstance(kinds[-1], Shared)


@pytest.mark.parametrize(("dims", "shape"), [(2, (32, 32)), (2, (20, 27)), (3, (32, 19, 32))])
def test_an_image_within_one_patch_is_predicted_as_one(dims: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    task = Segment(config(dims)).eval()
    image = torch.rand(1, *shape)
    patch = task.config.size
    low = [(p - n) // 2 for p, n in zip(patch, shape, strict=True)]
    padded = torch.full((1, 1, *patch), float(image.min()))
    box = tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True))
    padded[(0, slice(None), *box)] = image
    with torch.no_grad():
        classes = task.logits(padded)[0].argmax(0)[box]
    expected = torch.tensor([0, 3, 7])[classes]
    assert torch.equal(task.predict(image), expected)


def test_windows_give_what_the_whole_gives_for_a_pointwise_network() -> None:
    class Pointwise(Segment):
        def logits(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat([1 - images, images * 1.5, images**2 * 2], dim=1)

    task = Pointwise(config()).eval()
    image = torch.rand(1, 77, 50, generator=torch.Generator().manual_seed(3))
    expected = torch.tensor([0, 3, 7])[task.logits(image[None])[0].argmax(0)]
    assert torch.equal(task.predict(image), expected)


def test_mask_values_become_classes_and_others_background() -> None:
    found = Segment(config()).classes(torch.tensor([0, 3, 7, 5, 3], dtype=torch.int16))
    assert found.tolist() == [0, 1, 2, 0, 1]


def test_images_without_masks_are_refused() -> None:
    with pytest.raises(UserError, match="without masks"):
        Segment(config()).views(Batch.of(torch.rand(2, 1, 38, 38)), Rng(0, 0))


@pytest.mark.parametrize("changes", [{"labels": ()}, {"labels": (0, 1)}, {"labels": (1, 1)}, {"overlap": 1.0}])
def test_absurd_settings_are_told(changes: dict) -> None:
    with pytest.raises(UserError):
        config(**changes)
