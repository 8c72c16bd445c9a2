"""T taken out of the inputs and left in the targets; positions stay true."""

import pytest
import torch

from medssl.networks.heads import at_places
from medssl.rng import Rng
from medssl.views.pair import PairConfig, make_pair, region_for
from medssl.views.pose import anchors, before_turn, clean_view, mirrored, poses, sample_mirror, without_turn
from medssl.views.turn import turn, unturn

PLAIN = {"blur_p": 0.0, "jitter_p": 0.0, "cutout_p": 0.0, "shuffle_p": 0.0, "paint_p": 0.0}


def both(size, **changes):
    torch.manual_seed(0)
    config = PairConfig.for_size(size, **{**PLAIN, **changes})
    region = tuple(2 * n for n in size)
    grid = torch.meshgrid(*(torch.linspace(0, 1, n) for n in region), indexing="ij")
    images = torch.stack(grid)[None].expand(6, -1, *region).contiguous()  # each voxel shows where it lies
    pair = make_pair(images, config, Rng(0, 3))
    return pair, before_turn(pair, Rng(0, 3)), region


@pytest.mark.parametrize("size", [(16, 16), (16, 12), (8, 8, 6)])
def test_targets_are_the_turned_inputs(size):
    _, pair, _ = both(size)
    for x, clean, code in ((pair.x1, pair.clean1, pair.t1), (pair.x2, pair.clean2, pair.t2)):
        assert torch.equal(turn(x, code), clean)
        assert torch.equal(unturn(turn(x, code), code), x)


@pytest.mark.parametrize("size", [(16, 16), (16, 12), (8, 8, 6)])
def test_without_turn_the_target_is_the_input(size):
    _, turned, _ = both(size)
    pair = without_turn(turned)
    for x, clean, code in ((pair.x1, pair.clean1, pair.t1), (pair.x2, pair.clean2, pair.t2)):
        assert torch.equal(x, clean) and torch.equal(turn(x, code), x)
    assert torch.equal(pair.x1, turned.x1) and torch.equal(pair.place2, turned.place2)


@pytest.mark.parametrize("size", [(16, 16), (16, 12), (8, 8, 6)])
def test_what_was_taken_away_is_told_in_the_pose_of_the_target(size):
    _, turned, _ = both(size, cutout_p=1.0)
    still = without_turn(turned)
    for i in "12":
        x, clean, code, hidden = (getattr(turned, f"{name}{i}") for name in ("x", "clean", "t", "corrupted"))
        assert torch.equal((turn(x, code) != clean).any(1), hidden) and hidden.any()
        x, clean, hidden = (getattr(still, f"{name}{i}") for name in ("x", "clean", "corrupted"))
        assert torch.equal((x != clean).any(1), hidden) and hidden.any()


@pytest.mark.parametrize("size", [(16, 16), (8, 8, 6)])
def test_inputs_are_crops_that_may_be_mirrored_and_never_turned(size):
    before, pair, _ = both(size)
    seen = set()
    for x, plain in zip(pair.x1, unturn(before.clean1, before.t1), strict=True):
        axes = range(1, x.ndim) if x.ndim == 4 else [2]
        flips = [[a for i, a in enumerate(axes) if bits >> i & 1] for bits in range(2 ** len(axes))]
        same = [tuple(f) for f in flips if torch.equal(x, plain.flip(f) if f else plain)]
        assert len(same) == 1
        seen.add(same[0])
    assert len(seen) > 1


@pytest.mark.parametrize("size", [(16, 16), (8, 8, 6)])
def test_places_follow_the_inputs(size):
    _, pair, region = both(size, rotate_p=0.0)
    dims = len(size)
    index = torch.cartesian_prod(*(torch.arange(1, n - 1) for n in size)).float()
    ones = torch.cat([index, torch.ones(len(index), 1)], dim=1)
    for b in range(6):
        there = (ones @ pair.place1[b].T)[:, :dims]
        shown = torch.stack([pair.x1[(b, axis, *index.long().T)] for axis in range(dims)], dim=1)
        expected = there / (torch.tensor(region) - 1)
        inside = ((expected > 0.05) & (expected < 0.95)).all(1)
        assert torch.allclose(shown[inside], expected[inside], atol=2e-2)


def test_anchors_show_the_same_place_in_both_views():
    _, pair, _ = both((16, 16), scale=(0.3, 1.0), rotate_p=0.0)
    cells, there, shown = anchors(pair, (2, 2), 20, Rng(0, 0))
    assert cells.shape == shown.shape == (6, 20) and shown.any()
    for b in range(6):
        assert len(set(cells[b].tolist())) == 20
    middle = torch.nn.functional.avg_pool2d(pair.x1, 2).flatten(2).gather(2, cells[:, None].expand(-1, 2, -1))
    other = at_places(pair.x2, there).view(6, 20, 2).transpose(1, 2)
    mask = shown[:, None].expand_as(middle) & (other > 0.1) & (other < 0.9)
    assert torch.allclose(middle[mask], other[mask], atol=0.05)
    again = anchors(pair, (2, 2), 20, Rng(0, 0))
    assert torch.equal(cells, again[0])


@pytest.mark.parametrize(("size", "count"), [((8, 8), 6), ((8, 4), 4), ((8, 8, 4), 7)])
def test_poses_are_codes_of_distinct_turns(size, count):
    names, codes = poses(size)
    assert len(names) == len(set(names)) == len(codes) == count
    x = torch.rand(1, 1, *size)
    assert torch.equal(turn(x, codes[:1]), x)
    found = [turn(x, code[None]) for code in codes]
    assert all(not torch.equal(found[i], found[j]) for i in range(count) for j in range(i))


def test_without_mirroring_inputs_are_the_crops():
    before, _, _ = both((16, 16))
    pair = before_turn(before, Rng(0, 3), mirror=False)
    assert torch.equal(pair.x1, unturn(before.clean1, before.t1)) and torch.equal(pair.t1, before.t1)


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("size", [(16, 16), (16, 12), (8, 8, 6)])
def test_a_clean_view_is_the_first_input_without_its_corruption(size, mirror):
    config = PairConfig.for_size(size)
    images = torch.rand(6, 2, *region_for(config), generator=torch.Generator().manual_seed(0))
    pair = before_turn(make_pair(images, config, Rng(0, 3)), Rng(0, 3), mirror)
    found = clean_view(images, config, Rng(0, 3), mirror)
    assert torch.equal(found, unturn(pair.clean1, pair.t1)) and not torch.equal(found, pair.x1)


def test_mirroring_follows_its_flips_and_images_keep_their_top():
    flips = sample_mirror(Rng(0, 0), "views/1", 64, 3)
    assert flips.unique().tolist() == [0, 1] and 0.3 < float(flips.mean()) < 0.7
    assert not sample_mirror(Rng(0, 0), "views/1", 64, 3, mirror=False).any()
    assert not sample_mirror(Rng(0, 0), "views/1", 64, 2)[:, 0].any()
    images = torch.rand(64, 1, 4, 5, 6)
    for image, row, made in zip(images, flips, mirrored(images, flips), strict=True):
        axes = [axis + 1 for axis in range(3) if row[axis]]
        assert torch.equal(made, image.flip(axes) if axes else image)
