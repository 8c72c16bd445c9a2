"""The gate is obeyed: after a short training the decoder rebuilds the pose that the code asks for, and no other."""

from dataclasses import replace

import torch

from medssl.contract import Batch
from medssl.methods.pcrl import PCRL
from medssl.rng import Rng
from medssl.views.pose import poses
from medssl.views.turn import turn, unturn

SIZE, IMAGES, STEPS = 32, 128, 150


def phantoms(n, seed):
    """Bodies with a large organ, a small one and a vessel whose places and sizes vary: no symmetry."""
    chance = torch.rand(n, 3, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    image = 0.2 * ((columns / 0.85) ** 2 + (rows / 0.7) ** 2 < 1).float().expand(n, SIZE, SIZE).clone()
    organs = [(-0.5, -0.15, 0.35, 0.8), (0.3, 0.4, 0.2, 0.3), (0.45, -0.4, 0.15, 0.3)]
    for i, (x, y, radius, value) in enumerate(organs):
        dx, dy = (0.15 * (chance[:, i, j] - 0.5) for j in (0, 1))
        distance = (columns - x - dx) ** 2 + (rows - y - dy) ** 2
        image += value * torch.exp(-distance / (radius * (0.8 + 0.4 * chance[:, i, 2])) ** 2)
    return image.clamp(0, 1)[:, None]


def test_a_trained_model_rebuilds_the_pose_it_is_told():
    model = PCRL(width=16, patch=(SIZE, SIZE), queue=64, momentum=0.9, mirror=False)
    # Mild views and quarter turns only, for the sake of time: the test is of the gate.
    calm = {"cutout_p": 0.0, "jitter_p": 0.0, "blur_p": 0.0, "rotate_p": 0.0, "flip_p": 0.0}
    model._pairs = replace(model._pairs, scale=(0.8, 1.0), min_iou=0.5, **calm)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    images = phantoms(IMAGES, seed=0)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / STEPS)
        rows = torch.randint(IMAGES, (16,), generator=torch.Generator().manual_seed(step))
        model.step(images[rows], optimizer, ids=rows)

    model.eval()
    views = model.views(Batch.of(phantoms(32, seed=1)), Rng(1, 0))  # unseen bodies
    codes = poses((SIZE, SIZE))[1][[0, 3, 4, 5]]  # as it is, 90°, 180°, 270°
    with torch.no_grad():
        clean = unturn(views["target1"], views["t1"])
        maps = model.encoder(views["x1"])
        for asked, code in enumerate(codes):
            rebuilt = model.decoder(model._gated(maps, code.expand(32, -1)))
            errors = [float((rebuilt - turn(clean, other.expand(32, -1))).square().mean()) for other in codes]
            right = errors.pop(asked)
            assert right < 0.5 * min(errors), (asked, right, errors)
