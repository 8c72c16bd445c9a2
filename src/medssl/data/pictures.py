"""PNG, JPEG, TIFF and BMP by Pillow: one image, gray or colour, no geometry."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from medssl.errors import UserError
from medssl.volume import Volume

GRAY = {"L", "I;16", "I;16B", "I;16L", "I", "F"}


def check_picture(path: Path) -> None:
    """Refuse by the header what could not be used."""
    with _opened(path) as image:
        pages = getattr(image, "n_frames", 1)
    if pages > 1:
        fix = "save the pages as images of their own, or a stack of slices as NIfTI with its spacing"
        raise UserError(f"{pages} pages in one file", fix=fix)


def read_picture(path: Path, labels: bool = False) -> Volume:
    """The image, (1 or 3, H, W), as a viewer would show it: palettes resolved, turned by its EXIF tag.

    ``labels``: of a mask; a palette of colours then only shows its labels, which are the numbers of the colours.
    """
    check_picture(path)
    with _opened(path) as image:
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise UserError(f"broken pixels: {error}", fix="copy or export the file again") from None
        plain = upright.mode in GRAY or (labels and _is_coloured(upright))
        array = np.asarray(upright if plain else upright.convert(_plain_mode(upright.mode)))
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return Volume(array, np.eye(4))


def _is_coloured(image: Image.Image) -> bool:
    """True for a palette of more than greys."""
    colours = np.reshape(image.getpalette("RGB") or [0], (-1, 3)) if image.mode == "P" else np.zeros((1, 3))
    return bool((colours != colours[:, :1]).any())


def _plain_mode(mode: str) -> str:
    return "L" if mode in ("1", "LA", "La") else "RGB"


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        text = "not a picture that can be read" if "cannot identify" in str(error) else str(error)
        raise UserError(text, fix="export the file again, or rename it to what it is") from None
