"""Changes of grey values that leave every structure where it is: blur, noise, tone, Bézier curves.

Strengths are relative to the image's own values, so the same numbers serve every normalisation. A parameter that
does nothing (σ = 0, factor 1) stands for "not drawn": applying it changes no bit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.rng import Rng
from medssl.views.geometry import separable
from medssl.views.noise import normal_noise, sample_seeds

NODES = 1024  # of a Bézier curve; between them it is straight


def sample_blur(rng: Rng, purpose: str, n: int, p: float, sigma: tuple[float, float]) -> Float[Tensor, "b"]:
    """Standard deviations in voxels, uniform; 0 with probability 1 - p."""
    chance = rng.uniform(purpose, n, 2)
    drawn = sigma[0] + (sigma[1] - sigma[0]) * chance[:, 1]
    return torch.from_numpy(drawn * (chance[:, 0] < p)).float()


def apply_blur(images: Float[Tensor, "b c *s"], sigma: Float[Tensor, "b"]) -> Float[Tensor, "b c *s"]:
    """Gaussian blur, a σ a sample.

    One matrix an axis. Its borders mirror the image, which makes rows and columns sum to one: constants and the
    mean survive.
    """
    rows = sigma.nonzero()[:, 0]
    if not len(rows):
        return images
    matrices = [_gaussian(sigma[rows].to(images.device), n) for n in images.shape[2:]]
    return _replaced(images, rows, lambda some: separable(some, matrices))


def _gaussian(sigma: Tensor, n: int) -> Tensor:
    """(b, n, n) half-sample mirrored Gaussian; with σ ≤ n/6 one reflection on each side holds all its mass."""
    lag = torch.arange(1 - 2 * n, 2 * n, device=sigma.device) / sigma[:, None]
    weight = torch.exp(-0.5 * lag.clamp(-6, 6) ** 2) * (lag.abs() < 6)  # denormal tails would slow the products
    weight = weight.unfold(1, 3 * n, 1).flip(1)  # (b, n, 3n): row i weighs the voxels -n … 2n-1 around it
    left, middle, right = weight.chunk(3, dim=2)
    folded = left.flip(2) + middle + right.flip(2)
    return folded / folded.sum(2, keepdim=True)


def sample_noise(rng: Rng, purpose: str, n: int, p: float, most: float) -> tuple[Float[Tensor, "b"], Int[Tensor, "b"]]:
    """(share of the image's own standard deviation, 0 with probability 1 - p; seed)."""
    chance = rng.uniform(purpose, n, 2)
    share = torch.from_numpy(chance[:, 1] * most * (chance[:, 0] < p)).float()
    return share, sample_seeds(rng, f"{purpose}/seeds", n)


def apply_noise(
    images: Float[Tensor, "b c *s"],
    share: Float[Tensor, "b"],
    seeds: Int[Tensor, "b"],
    value_range: tuple[float, float],
) -> Float[Tensor, "b c *s"]:
    """Add Gaussian noise of ``share`` × the image's standard deviation, held in the value range."""
    rows = share.nonzero()[:, 0]
    if not len(rows):
        return images

    def noisy(some: Tensor) -> Tensor:
        spread = some.flatten(1).std(1) * share[rows].to(some.device)
        noise = normal_noise(seeds[rows], tuple(some.shape[1:]), some.device)
        return (some + noise * _column(spread, some)).clamp_(*value_range)

    return _replaced(images, rows, noisy)


@dataclass(frozen=True)
class Tone:
    """A curve of grey values a sample (b,): exponent, then contrast about the mean, then brightness from black."""

    gamma: Float[Tensor, "b"]
    contrast: Float[Tensor, "b"]
    brightness: Float[Tensor, "b"]


def sample_tone(
    rng: Rng, purpose: str, n: int, p: float, jitter: float, gamma_p: float = 0.0, gamma: float = 1.5
) -> Tone:
    """Contrast and brightness in 1 ± ``jitter`` with probability p; exponents log-uniform in 1/gamma … gamma."""
    chance = rng.uniform(purpose, n, 5)
    drawn = chance[:, :1] < p
    factors = np.where(drawn, 1 + jitter * (2 * chance[:, 1:3] - 1), 1.0)
    exponent = np.where(chance[:, 3] < gamma_p, np.exp(np.log(gamma) * (2 * chance[:, 4] - 1)), 1.0)
    contrast, brightness = torch.from_numpy(factors).float().unbind(1)
    return Tone(torch.from_numpy(exponent).float(), contrast, brightness)


def apply_tone(
    images: Float[Tensor, "b c *s"], tone: Tone, value_range: tuple[float, float]
) -> Float[Tensor, "b c *s"]:
    """Apply the curves between the image's own darkest and brightest value, then hold them in the value range."""
    rows = ((tone.gamma != 1) | (tone.contrast != 1) | (tone.brightness != 1)).nonzero()[:, 0]
    if not len(rows):
        return images

    def toned(some: Tensor) -> Tensor:
        gamma, contrast, brightness = (_column(p[rows], some) for p in (tone.gamma, tone.contrast, tone.brightness))
        low, high = some.flatten(1).aminmax(dim=1)
        black, span = _column(low, some), _column((high - low).clamp(min=1e-6), some)
        grey = (some - black) / span
        if bool((tone.gamma[rows] != 1).any()):
            grey = grey.pow(gamma)
        mean = _column(grey.flatten(1).mean(1), some)
        # One multiply-add: ((grey - mean) · contrast + mean) · brightness, then back to the image's scale.
        grey = torch.addcmul(mean * (1 - contrast) * brightness, grey, contrast * brightness)
        return torch.addcmul(black, grey, span).clamp_(*value_range)

    return _replaced(images, rows, toned)


@dataclass(frozen=True)
class Bezier:
    """A cubic curve a sample, from grey in to grey out, both in [0, 1]: its control points, and whether it is used."""

    points: Float[Tensor, "b 4 2"]
    chosen: Bool[Tensor, "b"]


def sample_bezier(rng: Rng, purpose: str, n: int, p: float, falling: float = 0.5) -> Bezier:
    """The non-linear transform of Models Genesis (arXiv:1908.06912): monotone, for any control points in the square.

    From (0, 0) to (1, 1), or with probability ``falling`` from (0, 1) to (1, 0); both points between are uniform.
    """
    chance = rng.uniform(purpose, n, 6)
    points = np.zeros((n, 4, 2))
    points[:, 1:3] = chance[:, :4].reshape(n, 2, 2)
    points[:, 3] = 1
    points[:, :, 1] = np.where(chance[:, 4:5] < falling, 1 - points[:, :, 1], points[:, :, 1])
    return Bezier(torch.from_numpy(points).float(), torch.from_numpy(chance[:, 5] < p))


def apply_bezier(
    images: Float[Tensor, "b c *s"], bezier: Bezier, value_range: tuple[float, float]
) -> Float[Tensor, "b c *s"]:
    """Send every grey value through its sample's curve; the value range stands for [0, 1]."""
    rows = bezier.chosen.nonzero()[:, 0]
    if not len(rows):
        return images
    low, high = value_range
    x, y = (nodes.to(images.device) for nodes in _nodes(bezier.points[rows]))  # (b, nodes)

    def bent(some: Tensor) -> Tensor:
        grey = ((some - low) / (high - low)).clamp_(0, 1).flatten(1)  # (b, c·s)
        after = torch.searchsorted(x, grey, right=True).clamp_(1, NODES - 1)
        start, end = x.gather(1, after - 1), x.gather(1, after)
        share = (grey - start) / (end - start).clamp(min=1e-12)
        bent = torch.lerp(y.gather(1, after - 1), y.gather(1, after), share.clamp_(0, 1))
        return torch.add(low, bent, alpha=high - low).view_as(some).clamp_(low, high)

    return _replaced(images, rows, bent)


def _nodes(points: Float[Tensor, "b 4 2"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Points along each curve: Σ binomial(3, i) · tⁱ · (1-t)³⁻ⁱ · P_i, t even in [0, 1]."""
    t = torch.linspace(0, 1, NODES, dtype=torch.float64)
    weights = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])  # (4, n)
    x, y = (points.double().transpose(1, 2) @ weights).unbind(1)
    return x.cummax(1).values.float(), y.float()  # rounding must not unsort them


def _column(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.device).view(-1, *(1,) * (images.ndim - 1))


def _replaced(images: Tensor, rows: Tensor, change) -> Tensor:  # type: ignore[no-untyped-def]
    """``images`` with ``change`` applied to some rows; the others keep their bits."""
    if len(rows) == len(images):
        return change(images)
    rows = rows.to(images.device)
    return images.index_copy(0, rows, change(images[rows]))
