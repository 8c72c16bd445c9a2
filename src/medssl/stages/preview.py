"""`medssl preview`: a sheet of the views that a method would train on, before any training."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from medssl.config import ModelOptions
from medssl.contract import Views
from medssl.data.store import Store
from medssl.errors import UserError, raise_all
from medssl.files import atomic
from medssl.rng import Rng
from medssl.stages.configure import method_config
from medssl.stages.defaults import settled
from medssl.stages.limits import out_of_range
from medssl.stages.options.data import Preview
from medssl.stages.options.train import Pretrain
from medssl.stages.paired import paired_data, sampler

TILE = 192  # pixels
GAP = 6
HEAD = 20


def run(options: Preview) -> Path:
    """Draw ``rows`` samples, a column for each image the method makes of them; returns the picture's path."""
    raise_all(out_of_range(options))
    if options.out is not None and options.out.is_dir():
        raise UserError("--out is a folder", options.out, "name a picture in it")
    store = Store(options.data)
    if store.remote is not None and options.out is None:
        raise UserError("the data are on another machine", "--out", "name the picture to write")
    rows = [i for i, split in enumerate(store.items["split"]) if split == "train"] or list(range(len(store)))
    model = ModelOptions(seed=options.seed)
    job, _ = settled(Pretrain(method=options.method, data=options.data, out=options.data, model=model), store, rows)
    method_class, config, reader = method_config(job, None, store, rows)
    method = method_class(config)
    region = method.region()
    draw = sampler(paired_data(method, store, rows, None, reader, tell=False), job.foreground)
    samples = draw(store, rows, region=region, batch=options.rows, steps=1, seed=options.seed)
    batch = next(iter(samples))
    views = method.views(batch, Rng(options.seed, 0))
    pictures = {"region": batch.normalised()} | pictures_of(views, config.value_range)
    out = options.out or options.data / f"preview-{options.method}.png"
    with atomic(out) as temporary:
        sheet(pictures, config.value_range).save(temporary, format="PNG")
    print(f"views of {options.rows} samples in {out}")
    return out


def pictures_of(views: Views, value_range: tuple[float, float]) -> dict[str, Tensor]:
    """The images among the views (b, C, *s), by name; masks (b, *s) become black and white."""
    low, high = value_range
    found = {}
    for name, image in views.images.items():
        found[name] = torch.where(image[:, None], high, low) if image.dtype == torch.bool else image
    return found


def sheet(pictures: dict[str, Tensor], value_range: tuple[float, float]) -> Image.Image:
    """A row a sample, a column a picture; volumes show the middle slice of their last axis."""
    low, high = value_range
    count = len(next(iter(pictures.values())))
    width, height = len(pictures) * (TILE + GAP) + GAP, HEAD + count * (TILE + GAP) + GAP
    page = Image.new("RGB", (width, height), (20, 22, 26))
    pen = ImageDraw.Draw(page)
    for column, (name, images) in enumerate(pictures.items()):
        left = GAP + column * (TILE + GAP)
        pen.text((left, 4), name, fill=(225, 228, 232))
        for row, image in enumerate(images):
            tile = _tile((image.float().cpu().numpy() - low) / (high - low))
            page.paste(tile, (left, HEAD + GAP + row * (TILE + GAP)))
    return page


def _tile(image: np.ndarray) -> Image.Image:
    """(C, *s) in [0, 1] as a square tile; the patient's front is up, the right side at the left."""
    if image.ndim == 4:
        image = image[:, ::-1, ::-1, image.shape[3] // 2].transpose(0, 2, 1)
    grey = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
    picture = Image.fromarray(np.moveaxis(grey, 0, -1) if len(grey) == 3 else grey[0])
    scale = TILE / max(picture.size)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BICUBIC)
    tile = Image.new("RGB", (TILE, TILE))
    tile.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    return tile
