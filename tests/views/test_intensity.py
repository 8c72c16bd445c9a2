import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medssl.rng import Rng
from medssl.views.intensity import (
    Bezier,
    Tone,
    apply_bezier,
    apply_blur,
    apply_noise,
    apply_tone,
    sample_bezier,
    sample_blur,
    sample_noise,
    sample_tone,
)

SHAPES = [(2, 32, 24), (1, 16, 20, 12)]


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_keeps_constants_and_the_mean(shape) -> None:
    images = torch.rand(3, *shape)
    sigma = torch.tensor([0.1, 1.0, 2.0])
    blurred = apply_blur(images, sigma)
    torch.testing.assert_close(blurred.flatten(1).mean(1), images.flatten(1).mean(1))
    torch.testing.assert_close(apply_blur(torch.full_like(images, 0.7), sigma), torch.full_like(images, 0.7))
    spread = blurred.flatten(1).std(1)
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_equals_scipys(shape) -> None:
    images = torch.rand(2, *shape, dtype=torch.float32)
    blurred = apply_blur(images, torch.tensor([0.8, 1.7]))
    for image, out, sigma in zip(images.numpy(), blurred.numpy(), (0.8, 1.7), strict=True):
        for channel, made in zip(image, out, strict=True):
            np.testing.assert_allclose(made, gaussian_filter(channel, sigma, mode="reflect", truncate=6), atol=1e-5)


def test_parameters_that_do_nothing_change_no_bit() -> None:
    images = torch.rand(4, 1, 12, 12)
    off, one = torch.zeros(4), torch.ones(4)
    assert torch.equal(apply_blur(images, off), images)
    assert torch.equal(apply_noise(images, off, torch.arange(4), (0.0, 1.0)), images)
    assert torch.equal(apply_tone(images, Tone(one, one, one), (0.0, 1.0)), images)


def test_only_the_drawn_rows_change() -> None:
    images = torch.rand(3, 1, 12, 12)
    chosen = torch.tensor([0.0, 1.5, 0.0])
    factor = torch.tensor([1.0, 1.3, 1.0])
    noisy = apply_noise(images, chosen * 0.1, torch.arange(3), (0.0, 1.0))
    for out in (apply_blur(images, chosen), noisy, apply_tone(images, Tone(factor, factor, factor), (0.0, 1.0))):
        assert torch.equal(out[[0, 2]], images[[0, 2]])
        assert not torch.equal(out[1], images[1])


def test_noise_is_a_share_of_the_images_own_spread() -> None:
    images = torch.randn(2, 1, 64, 64) * torch.tensor([1.0, 10.0]).view(2, 1, 1, 1)
    added = apply_noise(images, torch.tensor([0.2, 0.2]), torch.tensor([3, 4]), (-100.0, 100.0)) - images
    spread = added.flatten(1).std(1) / images.flatten(1).std(1)
    torch.testing.assert_close(spread, torch.full((2,), 0.2), atol=0.01, rtol=0)


def test_tone_equals_the_curve_written_out() -> None:
    images = torch.rand(1, 1, 8, 8) * 0.8 + 0.1
    tone = Tone(torch.tensor([1.3]), torch.tensor([0.8]), torch.tensor([0.9]))
    black, white = images.min(), images.max()
    grey = ((images - black) / (white - black)) ** 1.3
    grey = ((grey - grey.mean()) * 0.8 + grey.mean()) * 0.9
    wanted = (black + grey * (white - black)).clamp(0, 1)
    torch.testing.assert_close(apply_tone(images, tone, (0.0, 1.0)), wanted)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-4.0, 4.0)])
def test_values_stay_in_the_range(value_range) -> None:
    low, high = value_range
    images = torch.rand(16, 1, 12, 12) * (high - low) + low
    rng = Rng(0, 0)
    share, seeds = sample_noise(rng, "noise", 16, 1.0, 0.5)
    out = apply_noise(images, share, seeds, value_range)
    out = apply_tone(out, sample_tone(rng, "tone", 16, 1.0, 0.4, 1.0), value_range)
    out = apply_blur(out, sample_blur(rng, "blur", 16, 1.0, (0.1, 2.0)))
    assert low - 1e-5 <= float(out.min()) and float(out.max()) <= high + 1e-5


def test_a_constant_image_stays_finite() -> None:
    flat = torch.full((2, 1, 8, 8), 0.5)
    rng = Rng(0, 0)
    share, seeds = sample_noise(rng, "noise", 2, 1.0, 0.5)
    assert torch.equal(apply_noise(flat, share, seeds, (0.0, 1.0)), flat)
    toned = apply_tone(flat, sample_tone(rng, "tone", 2, 1.0, 0.4, 1.0), (0.0, 1.0))
    torch.testing.assert_close(toned, flat)


def test_draws_are_as_often_and_as_strong_as_asked() -> None:
    sigma = sample_blur(Rng(0, 0), "blur", 2000, 0.5, (0.1, 2.0))
    assert abs(float(sigma.gt(0).float().mean()) - 0.5) < 0.05
    assert float(sigma[sigma > 0].min()) >= 0.1 and float(sigma.max()) <= 2.0
    tone = sample_tone(Rng(0, 0), "tone", 2000, 0.8, 0.4, 0.3)
    assert abs(float((tone.contrast != 1).float().mean()) - 0.8) < 0.05
    assert abs(float((tone.gamma != 1).float().mean()) - 0.3) < 0.05
    assert float(tone.brightness.min()) >= 0.6 and float(tone.brightness.max()) <= 1.4


def naive_bezier(grey: float, points: np.ndarray) -> float:
    """Solve x(t) = grey, then y(t): the cubic's coefficients from its control points."""
    cubic = np.array([[-1, 3, -3, 1], [3, -6, 3, 0], [-3, 3, 0, 0], [1, 0, 0, 0]], float) @ points
    roots = np.roots(cubic[:, 0] - [0, 0, 0, grey])
    inside = [r.real for r in roots if abs(r.imag) < 1e-6 and -1e-6 <= r.real <= 1 + 1e-6]
    return float(np.polyval(cubic[:, 1], min(max(inside[0], 0.0), 1.0)))


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-4.0, 4.0)])
def test_bezier_equals_the_curve_solved_voxel_by_voxel(value_range) -> None:
    low, high = value_range
    bezier = sample_bezier(Rng(0, 0), "bezier", 8, 1.0)
    grey = torch.rand(8, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    found = apply_bezier(grey * (high - low) + low, bezier, value_range)
    for image, out, points in zip(grey, found, bezier.points, strict=True):
        wanted = [naive_bezier(float(v), points.double().numpy()) for v in image.flatten()]
        np.testing.assert_allclose((out.flatten() - low) / (high - low), wanted, atol=2e-4)


def test_identity_control_points_change_nothing() -> None:
    line = torch.linspace(0, 1, 4)[None, :, None].expand(3, 4, 2).contiguous()
    images = torch.rand(3, 1, 12, 12)
    torch.testing.assert_close(apply_bezier(images, Bezier(line, torch.ones(3).bool()), (0.0, 1.0)), images)
    falling = torch.stack([line[..., 0], 1 - line[..., 1]], dim=-1)
    some = apply_bezier(images, Bezier(falling, torch.tensor([False, True, False])), (0.0, 1.0))
    assert torch.equal(some[[0, 2]], images[[0, 2]])  # those not chosen keep their bits
    torch.testing.assert_close(some[1], 1 - images[1])  # the falling line exchanges dark and bright


def test_bezier_is_monotone_and_keeps_the_range_at_its_ends() -> None:
    bezier = sample_bezier(Rng(0, 0), "bezier", 300, 1.0)
    corners = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])  # as steep as it gets
    bezier = Bezier(torch.cat([bezier.points, corners]), torch.ones(301).bool())
    ramp = torch.linspace(-2, 3, 501).view(1, 1, 1, -1).expand(301, 1, 1, 501).contiguous()
    out = apply_bezier(ramp, bezier, (-2.0, 3.0)).flatten(1)
    steps, falls = out.diff(dim=1), bezier.points[:, 0, 1] == 1
    assert float(steps[~falls].min()) >= -1e-5 and float(steps[falls].max()) <= 1e-5
    assert float(out.min()) >= -2 and float(out.max()) <= 3
    ends = torch.where(falls[:, None], torch.tensor([3.0, -2.0]), torch.tensor([-2.0, 3.0]))
    torch.testing.assert_close(out[:, [0, -1]], ends)


def test_bezier_is_drawn_as_often_as_published_and_falls_half_of_the_times() -> None:
    bezier = sample_bezier(Rng(0, 0), "bezier", 2000, 0.9)
    assert abs(float(bezier.chosen.float().mean()) - 0.9) < 0.03
    falls = bezier.points[:, 0, 1] == 1
    assert abs(float(falls.float().mean()) - 0.5) < 0.05
    inner = bezier.points[:, 1:3]
    assert float(inner.min()) >= 0 and float(inner.max()) <= 1 and abs(float(inner.mean()) - 0.5) < 0.02
    assert not bool(torch.corrcoef(inner.flatten(1).T).fill_diagonal_(0).abs().max() > 0.1)
