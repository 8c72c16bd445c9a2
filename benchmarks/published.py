"""Row 3. Samples a second beside a loop that does what the published PCRL code does, on the same network.

Our own text, from what is known of that code: every sample is transformed alone, twice, by CPU transforms (MONAI's
here) and, in 3D, by Python loops over blocks and boxes; two encodes by the student, two by the teacher and four decodes
hang on one graph in the contiguous layout; the queue is cloned for each of three contrasts; the average over parameters
is a loop. It does more passes than our default, which leaves mixed inputs out; ``mix`` has ours do them too.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from monai import transforms as mt
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.case import Case
from benchmarks.measure import Metric, inverse, of_ratios, paired
from benchmarks.served import BLOCKS, MOST_WORKERS, STEPS, block_seconds, served
from benchmarks.step import cases
from medssl.data.jobs import cores
from medssl.engine.machine import fast_bf16
from medssl.networks.heads import pool
from medssl.views.turn import turn

SHUFFLES = 1000  # blocks that local shuffling moves; Models Genesis, from whom the published code has it, moves 10 000


def metrics(pairs: int, quick: bool, device: str = "cpu") -> Iterator[Metric]:
    """In float32 both, with and without mixed inputs, then ours as it comes.

    On a GPU the transforms of the loop run in worker processes, a core each, as the published code has it.
    """
    workers = 0 if device == "cpu" else min(MOST_WORKERS, cores())
    for case, arguments in cases(quick, device).items():
        for told, options in {
            "float32": {},
            "float32, ours with mixed inputs too": {"mix": True},
            "ours in bf16": {"precision": "bf16"},
        }.items():
            if "precision" in options and not fast_bf16(device):
                continue
            ours = Case(*arguments, device=device, **options)  # type: ignore[arg-type]
            loop = Published(ours, workers)
            name = f"samples a second ÷ published loop, {case}, {told}"
            if workers:
                pair = _blocks(name, ours, loop, workers)
            else:
                pair = paired(3, name, "", ours.step, loop.step, max(3, pairs // 3))
            yield inverse(pair, ">= 3")


def _blocks(name: str, ours: Case, loop: "Published", workers: int) -> Metric:
    """Time of ours ÷ the loop's, in blocks of steps that have to wait for the loop's workers."""
    times = [
        [block_seconds(ours.step, STEPS, 0, ours.device), block_seconds(loop.step, STEPS, workers, ours.device)]
        for _ in range(BLOCKS)
    ]
    note = f"{BLOCKS} blocks of {STEPS} steps, the loop's transforms in {workers} processes"
    return of_ratios(3, name, "", [a / b for a, b in times], note)


class Published:
    """The loop, from the same weights and the same regions in memory."""

    def __init__(self, case: Case, workers: int = 0) -> None:
        self.model = copy.deepcopy(case.model).to(memory_format=torch.contiguous_format)
        self.teacher = self.model.teacher
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9, weight_decay=1e-4, foreach=False)
        self.size, self.device = case.noise.shape[2:], case.device
        self.views = served(_Views(case.batch.image.cpu(), tuple(self.size)), workers)
        width = self.model.config.embed_dim
        self.queue = F.normalize(torch.randn(len(self.model.queue.keys), width, device=self.device), dim=1)
        self.place = 0
        self.rng = np.random.default_rng(0)

    def step(self) -> None:
        """One batch: views a sample, one graph, three contrasts, update."""
        x1, x2 = (x.to(self.device) for x in next(self.views))
        t1, t2 = self._codes(len(x1)), self._codes(len(x2))
        share = float(self.rng.beta(1, 1))
        order = torch.from_numpy(self.rng.permutation(len(x1))).to(self.device)
        mixed1, mixed2 = (share * x + (1 - share) * x[order] for x in (x1, x2))

        model, encoder = self.model, self.model.encoder
        ours, blended = encoder(x1), encoder(mixed1)
        with torch.no_grad():
            theirs, blended_theirs = self.teacher["encoder"](x2), self.teacher["encoder"](mixed2)
        total = torch.zeros((), device=self.device)
        for maps, keys in ((ours, theirs), (blended, blended_theirs), (blended, theirs)):
            total = total + self._contrast(maps[-1], keys[-1])
        gated, gated2 = model._gated(ours, t1), model._gated(theirs, t2)
        total = total + F.mse_loss(model.decoder(gated), turn(x1, t1))
        hybrid = [share * a + (1 - share) * b for a, b in zip(gated, gated2, strict=True)]
        total = total + F.mse_loss(model.decoder(hybrid), share * turn(x1, t1) + (1 - share) * turn(x2, t2))
        total = total + F.mse_loss(model.decoder(blended), mixed1)
        both = [share * a + (1 - share) * b for a, b in zip(blended, blended_theirs, strict=True)]
        total = total + F.mse_loss(model.decoder(both), share * mixed1 + (1 - share) * mixed2)

        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        for name in ("encoder", "projector"):
            student = getattr(model, name)
            for slow, fast in zip(self.teacher[name].parameters(), student.parameters(), strict=True):
                slow.data.mul_(0.999).add_(fast.data, alpha=0.001)
        total.item()

    def _contrast(self, ours: Tensor, theirs: Tensor) -> Tensor:
        query = F.normalize(self.model.projector(pool(ours)), dim=1)
        with torch.no_grad():
            key = F.normalize(self.teacher["projector"](pool(theirs)), dim=1)
        queue = self.queue.clone()
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], dim=1) / 0.2
        for row in key:
            self.queue[self.place] = row
            self.place = (self.place + 1) % len(self.queue)
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=self.device))

    def _codes(self, n: int) -> Tensor:
        dims = len(self.size)
        code = np.concatenate([self.rng.random((n, dims)) < 0.5, np.eye(4)[[0] * n]], 1)
        return torch.from_numpy(code).float().to(self.device)


class _Views(Dataset):
    """``views[step]``: two views of every image, each transformed alone."""

    def __init__(self, images: Tensor, size: tuple[int, ...]) -> None:
        self.images, self.size = images, size
        self.transform = _transform(size)
        self.rng = np.random.default_rng(0)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        return tuple(torch.stack([self._view(image) for image in self.images]) for _ in range(2))  # type: ignore[return-value]

    def _view(self, image: Tensor) -> Tensor:
        x = torch.as_tensor(self.transform(image))
        return x if x.ndim == 3 else torch.from_numpy(self._painted(self._shuffled(x.numpy().copy())))

    def _shuffled(self, x: np.ndarray) -> np.ndarray:
        """Voxels permuted within random blocks, block after block."""
        if self.rng.random() < 0.5:
            for _ in range(SHUFFLES):
                edge = [int(self.rng.integers(1, max(2, n // 10 + 1))) for n in self.size]
                low = [int(self.rng.integers(0, n - e + 1)) for n, e in zip(self.size, edge, strict=True)]
                box = (0, *(slice(a, a + e) for a, e in zip(low, edge, strict=True)))
                block = x[box].flatten()
                self.rng.shuffle(block)
                x[box] = block.reshape(x[box].shape)
        return x

    def _painted(self, x: np.ndarray) -> np.ndarray:
        """Up to 5 boxes of noise."""
        if self.rng.random() < 0.9:
            for _ in range(5):
                edge = [int(self.rng.integers(n // 6, n // 3)) for n in self.size]
                low = [int(self.rng.integers(0, n - e)) for n, e in zip(self.size, edge, strict=True)]
                box = (0, *(slice(a, a + e) for a, e in zip(low, edge, strict=True)))
                x[box] = self.rng.random(edge, dtype=np.float32)
        return x


def _transform(size: tuple[int, ...]) -> mt.Compose:
    """A random part of the region, resized, flipped, turned a little, blurred; in 2D also grey values and holes."""
    dims, mode = len(size), "bilinear" if len(size) == 2 else "trilinear"
    steps = [
        mt.RandSpatialCrop([int(0.6 * n) for n in size], max_roi_size=list(size), random_size=True),
        mt.Resize(size, mode=mode),
        *(mt.RandFlip(0.5, axis) for axis in range(dims)),
        mt.RandRotate(
            *[np.radians(10)] * (1 if dims == 2 else 3), prob=1.0 if dims == 2 else 0.3, padding_mode="zeros"
        ),
        mt.RandGaussianSmooth(*[(0.1, 2.0)] * dims, prob=0.5),
    ]
    if dims == 2:
        steps += [mt.RandAdjustContrast(0.8, (0.6, 1.4)), mt.RandCoarseDropout(3, [n // 7 for n in size], prob=1.0)]
    return mt.Compose(steps)
