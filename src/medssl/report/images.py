"""Arrays as pictures inside a page: one slice each, grey or colour, with masks drawn over them."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image

# Structures of a mask, told apart also by people who see few colours, on grey tissue.
MASK_COLOURS = np.array(
    [(242, 169, 59), (73, 178, 232), (226, 96, 146), (104, 200, 130), (170, 140, 235), (240, 110, 70)], float
)
_LARGEST = 256  # pixels of a picture's long side; more would only make the page heavy
_SMALLEST = 96


def slice_of(image: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """The axial slice of a volume (C, X, Y, Z) that shows most of the mask, else the middle one; 2D images as they are.

    Axes of volumes are patient right-left and front-back, so they are turned to the way radiologists look at them.
    """
    if image.ndim == 3:
        return image, mask
    level = image.shape[-1] // 2
    if mask is not None and mask.any():
        level = int((mask > 0).sum((0, 1)).argmax())
    flat = image[..., level].transpose(0, 2, 1)[:, ::-1, ::-1]
    return flat, None if mask is None else mask[..., level].T[::-1, ::-1]


def picture(
    image: np.ndarray,
    value_range: tuple[float, float] | None = None,
    mask: np.ndarray | None = None,
    shape_mm: Sequence[float] | None = None,
) -> str:
    """A data address of the slice (C, H, W) as PNG. Mask values 1, 2, … are tinted and outlined.

    ``value_range`` is mapped to black and white, by default the 0.5 and 99.5 percentiles; ``shape_mm`` corrects the
    aspect of pixels that are not square.
    """
    image = np.asarray(image, np.float32)
    low, high = value_range or np.percentile(image[np.isfinite(image)], (0.5, 99.5))
    grey = np.clip((np.nan_to_num(image) - low) / max(high - low, 1e-6), 0, 1) * 255
    rgb = np.stack([grey[0]] * 3 if len(grey) != 3 else list(grey), axis=-1)
    if mask is not None:
        rgb = _tinted(rgb, np.asarray(mask).astype(int))
    return _png(rgb.round().astype(np.uint8), shape_mm)


def _tinted(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    colour = MASK_COLOURS[(mask - 1) % len(MASK_COLOURS)]
    inside = (mask > 0)[..., None]
    rgb = np.where(inside, 0.68 * rgb + 0.32 * colour, rgb)
    # The outline: pixels whose neighbour below or to the right, or above or to the left, is of another structure.
    edge = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        steps = np.diff(mask, axis=axis) != 0
        before = [(0, 1) if a == axis else (0, 0) for a in (0, 1)]
        after = [(1, 0) if a == axis else (0, 0) for a in (0, 1)]
        edge |= np.pad(steps, before) | np.pad(steps, after)
    return np.where((edge & (mask > 0))[..., None], colour, rgb)


def _png(rgb: np.ndarray, shape_mm: Sequence[float] | None) -> str:
    picture = Image.fromarray(rgb)
    height, width = rgb.shape[:2]
    tall, wide = shape_mm or (height, width)
    scale = max(tall, wide) / max(_SMALLEST, min(_LARGEST, max(height, width)))
    size = (max(1, round(wide / scale)), max(1, round(tall / scale)))
    if size != (width, height):
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all():
        picture = picture.convert("L")
    packed = io.BytesIO()
    picture.save(packed, "PNG", optimize=True)
    return Markup("data:image/png;base64," + base64.b64encode(packed.getvalue()).decode())
