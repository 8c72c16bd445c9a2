"""The thumbnail sheet: middle slices in a window that suits the modality, so that a person sees what was found."""

import math
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medssl.data.jobs import each
from medssl.data.progress import progress
from medssl.data.readers import read_volume
from medssl.errors import UserError
from medssl.files import atomic
from medssl.volume import family

FEW_VOXELS = 30_000_000  # are read here, sooner than processes start
TILE, GAP, CAPTION, MARGIN, HEAD = 150, 10, 34, 24, 58
COLUMNS, MOST = 8, 48
PAPER, FRAME, INK, FAINT = (18, 20, 24), (0, 0, 0), (232, 234, 237), (140, 146, 155)
SIDES = {"train": (88, 166, 255), "val": (227, 179, 65), "test": (247, 120, 186)}
WINDOW_HU = (-160.0, 240.0)  # soft tissue
THICK = 2.0  # slice distance over pixel size
LUNG_HU = (-1350.0, 150.0)


def write_sheet(path: Path, rows: list[dict[str, Any]], scans: Path, title: str, workers: int = 0) -> None:
    """Draw at most 48 scans, evenly taken from every modality, and write the picture."""
    chosen = _chosen(rows)
    tiles: dict[int, np.ndarray] = {}
    jobs = [(row, str(scans)) for row in chosen]
    voxels = sum(math.prod(row["shape"]) for row in chosen)
    with progress("drawing sheet", len(jobs)) as step:
        for position, outcome in each(thumbnail, jobs, workers=1 if voxels < FEW_VOXELS else workers):
            if isinstance(outcome, np.ndarray):
                tiles[position] = outcome
            step()
    sheet = _drawn([(chosen[k], tiles[k]) for k in sorted(tiles)], title)
    with atomic(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def thumbnail(job: tuple[dict[str, Any], str]) -> np.ndarray:
    """(h, w, 3) bytes of one scan, at most a tile large, in true proportions."""
    row, scans = job
    try:
        volume = read_volume(row, Path(scans))
    except UserError:
        return np.zeros((TILE, TILE, 3), np.uint8)
    image, aspect = middle_slice(volume.array, volume.affine)
    shown = in_window(image, row)
    height, width = shown.shape[1:]
    scale = TILE / max(height * aspect, width)
    size = (max(1, round(width * scale)), max(1, round(height * aspect * scale)))
    pixels = np.broadcast_to(shown, (3, height, width)).transpose(1, 2, 0)
    way = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, way))


def middle_slice(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, float]:
    """The middle slice (C, h, w) as radiology shows it, and the height of a pixel over its width.

    Axial, or of thick slices the plane they were taken in.
    """
    if array.ndim == 3:
        rows, columns = np.linalg.norm(affine[:3, :2], axis=0)
        return array, float(rows / columns)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes = _axes(affine)  # the array's axis that runs along x, y, z
    cut = int(spacing.argmax()) if spacing.max() > THICK * spacing.min() else axes[2]
    image = array.take(array.shape[cut + 1] // 2, axis=cut + 1)
    across, down = [axis for axis in axes if axis != cut]
    image = image if down < across else image.swapaxes(1, 2)  # rows first
    if affine[axes.index(down), down] > 0:
        image = image[:, ::-1]
    if affine[axes.index(across), across] > 0:
        image = image[:, :, ::-1]
    return image, float(spacing[down] / spacing[across])


def in_window(image: np.ndarray, row: dict[str, Any]) -> np.ndarray:
    """Bytes: soft tissue or lung for CT in HU, from foreground percentiles for all else; colour as it is."""
    if len(image) == 3 and image.dtype == np.uint8:
        return image
    values = image[:3] if len(image) >= 3 else image[:1]
    if family(row["modality"] or "") == "CT" and row["min"] < -500:
        chest = np.mean((values > -950) & (values < -600)) > 0.12
        low, high = LUNG_HU if chest else WINDOW_HU
    elif row["dims"] == 2:
        low, high = row["p01"], row["p99"]
    else:
        low, high = min(row["foreground_low"], row["foreground_p005"]), row["foreground_p995"]
    high = high if high > low else low + 1.0
    return (np.clip((values.astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib brings DejaVu, which has the × that Pillow's own font lacks."""
    package = find_spec("matplotlib")
    folder = Path(package.origin).parent if package and package.origin else Path()
    return ImageFont.truetype(folder / "mpl-data/fonts/ttf/DejaVuSans.ttf", size)


def _axes(affine: np.ndarray) -> list[int]:
    """Array axes in the order of the patient's: across, front to back, up."""
    ways, free = np.abs(affine[:3, :3]), [0, 1, 2]
    axes = []
    for patient in range(3):
        axis = max(free, key=lambda a: ways[patient, a])
        free.remove(axis)
        axes.append(axis)
    return axes


def _chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds: dict[tuple, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        kinds[row["modality"], row["dims"]].append(row)
    share = max(1, MOST // max(1, len(kinds)))
    chosen = []
    for kind in sorted(kinds):
        members = kinds[kind]
        chosen += [
            members[i] for i in np.unique(np.linspace(0, len(members) - 1, min(share, len(members))).astype(int))
        ]
    return chosen[:MOST]


def _drawn(tiles: list[tuple[dict[str, Any], np.ndarray]], title: str) -> Image.Image:
    columns = min(COLUMNS, max(4, len(tiles)))
    lines = max(1, -(-len(tiles) // columns))
    width = 2 * MARGIN + columns * (TILE + GAP) - GAP
    height = HEAD + MARGIN + lines * (TILE + CAPTION + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = _font(16), _font(10)
    draw.text((MARGIN, 20), title, INK, large)
    for k, (row, tile) in enumerate(tiles):
        x = MARGIN + (k % columns) * (TILE + GAP)
        y = HEAD + (k // columns) * (TILE + CAPTION + GAP)
        draw.rectangle((x, y, x + TILE - 1, y + TILE - 1), FRAME)
        h, w = tile.shape[:2]
        sheet.paste(Image.fromarray(tile), (x + (TILE - w) // 2, y + (TILE - h) // 2))
        first, second = _captions(row)
        draw.ellipse((x, y + TILE + 7, x + 6, y + TILE + 13), SIDES.get(row["split"], FAINT))
        draw.text((x + 11, y + TILE + 3), first, INK, small)
        draw.text((x + 11, y + TILE + 17), second, FAINT, small)
    _legend(draw, width, small)
    return sheet


def _captions(row: dict[str, Any]) -> tuple[str, str]:
    """What it is, and how large; no name of a file or a person."""
    shape = "×".join(map(str, row["shape"]))
    spacing = "×".join(f"{s:.3g}" for s in row["spacing_mm"]) + " mm" if row["spacing_mm"] else "no spacing"
    kind = row["modality"] or "unknown"
    return f"{kind} · {shape}", spacing


def _legend(draw: ImageDraw.ImageDraw, width: int, font: Any) -> None:
    x = float(width - MARGIN)
    for name in reversed(SIDES):
        x -= draw.textlength(name, font)
        draw.text((x, 24), name, FAINT, font)
        x -= 12
        draw.ellipse((x, 27, x + 6, 33), SIDES[name])
        x -= 16
