"""`medssl finetune`: learn a task from few labels, keep the best step by validation patients, test it once.

RUN/run.toml, metrics.jsonl, model.safetensors, predictions.parquet, samples.npz, model.json, result.json, done.json
(last); and predictions/ where asked for. The same command resumes, or returns at once where all is done.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from medssl import files
from medssl.config import to_table
from medssl.contract import Batch
from medssl.data.sample import batches
from medssl.data.several import with_present
from medssl.engine import checkpoint, log, machine, memory, record
from medssl.engine.fit import NonFinite, Step, fit
from medssl.engine.optim import make_optimizer, warmup_cosine
from medssl.engine.parts import Parts
from medssl.engine.stop import Stop
from medssl.errors import UserError, raise_all
from medssl.fine_tuned import CARD
from medssl.report.facts import digest
from medssl.stages.finetune_score import Score, test, validate
from medssl.stages.finetune_setup import Setup, build, set_up
from medssl.stages.finetune_write import write_model_card, write_weights
from medssl.stages.limits import out_of_range
from medssl.stages.options.train import Finetune
from medssl.tasks.task import Task

# Only the second half of the schedule competes: with few patients to validate on, the luckiest early step would often
# win over steps that are better on everybody else (measured on chest X-rays: AUC .820 against .851).
SETTLED = 0.5
LEAST_BATCH = 2  # batch normalisation of one sample whose coarsest map is one position has nothing to average over

FIXED = ("kind", "task", "init", "options", "model", "optim", "loop", "data")


def run(options: Finetune) -> Path:
    """Fine-tune and test, or go on where an earlier call stopped. Returns the RUN folder."""
    folder = options.out
    _check(options)
    setup = set_up(options)
    before, loop = record.begun(folder).get("machine", {}), options.loop
    hardware = machine.choose(loop.device, before.get("precision", loop.precision), before.get("threads", loop.threads))
    with files.locked(folder, "RUN"):
        record.settle(folder, _record(options, setup, hardware), FIXED)
        if record.finished(folder):
            if not (folder / CARD).exists():  # by a medssl that wrote none
                write_model_card(folder, setup, files.read_json(folder / "result.json"))
            print(f"{folder} is finished; choose another --out to train anew", file=sys.stderr)
            return folder
        fabric = machine.make_fabric(hardware, loop.deterministic)
        task: Any = machine.place(fabric, build(setup), setup.config.dims)
        try:
            best_step = Training(options, setup, task, fabric).run()
        except NonFinite as error:
            error.where = folder
            raise
        write_weights(folder, task)
        result = test(options, setup, task, fabric) | {"best_step": best_step}
        write_model_card(folder, setup, result)
        files.write_json(folder / "result.json", result)
        files.write_json(folder / record.DONE, {"finished": True, "steps": options.steps})
    print(f"{folder}: {result['metric']} {result['value']:.3f} on {result['n_test']} test patients", file=sys.stderr)
    return folder


@dataclass
class Best:
    """The step that did best on the validation patients, with its weights."""

    step: int
    score: Score
    state: dict[str, torch.Tensor]


class Training:
    """One training, from its checkpoint if it has one."""

    def __init__(self, options: Finetune, setup: Setup, task: Task, fabric: Fabric) -> None:
        self.options, self.setup, self.task, self.fabric = options, setup, task, fabric
        optim = options.optim
        self.optimizer = make_optimizer(
            task,
            name=optim.optimizer,
            lr=optim.lr,
            weight_decay=optim.weight_decay,
            betas=optim.betas,
            scales={"encoder": options.encoder_lr} if setup.init else {},
        )
        found = checkpoint.load(options.out, task, self.optimizer, fabric)
        self.start, kept, self.parts = found.step, found.extra.get("best"), found.extra.get("parts", 1)
        self.best = Best(kept["step"], Score(**kept["score"]), kept["state"]) if kept else None

    def run(self) -> int:
        """Train to the end and leave the best weights in the task; returns their step."""
        if self.start < self.options.steps:
            self._loop()
        if self.best is None:  # nobody to validate on: the schedule has ended at rate zero, and the end is kept
            return self.options.steps
        self.task.load_state_dict(self.best.state)
        return self.best.step

    def _loop(self) -> None:
        options, loop = self.options, self.options.loop
        diary = log.Log(options.out, f"finetune {options.task}", self.start, options.steps)
        timer = checkpoint.Timer(loop.save_every_steps, loop.save_every_minutes)
        done = self.start
        with Stop() as stop, diary:
            for step in self._steps(diary.say):
                done = step.step
                diary.count(step)
                with diary.clock.paused():
                    found = self._validate(done)
                if step.logged:
                    diary.write(step, found)
                elif found and diary.metrics is not None:
                    diary.metrics.write({"step": done, **found})
                if done < options.steps and (timer.due(done) or stop.requested):
                    self._save(done)
                if stop.requested:
                    break
        if done < options.steps:
            print(f"stopped; step {done} of {options.steps} is saved in {options.out}", file=sys.stderr)
            raise KeyboardInterrupt

    def _steps(self, tell: Callable[[str], object]) -> Iterator[Step]:
        options = self.options
        parts = Parts(self.task, options.loop.batch, self.parts, tell)
        for step in memory.advised(self._fit(options, self.start, options.steps, parts), self._advice):
            self.parts = parts.count
            yield step

    def _advice(self) -> UserError:
        batch, patch = self.options.loop.batch, self.setup.config.size
        fits = memory.largest_fitting(self._attempt, batch, LEAST_BATCH)
        return memory.explain(fits, batch, patch, LEAST_BATCH)

    def _attempt(self, batch: int) -> None:
        smaller = replace(self.options, loop=replace(self.options.loop, batch=batch, workers=0))
        next(self._fit(smaller, 0, 1, Parts(self.task, batch)))

    def _fit(self, options: Finetune, start: int, steps: int, parts: Parts) -> Iterator[Step]:
        return fit(
            self.task,
            training_batches(options, self.setup, self.task, start),
            self.optimizer,
            self.fabric,
            steps=steps,
            start=start,
            seed=self.setup.config.seed,
            lr=partial(warmup_cosine, peak=options.optim.lr, warmup=options.optim.warmup),
            clip=options.optim.clip,
            log_every=options.loop.log_every,
            parts=parts,
        )

    def _validate(self, step: int) -> dict[str, float]:
        """Keep the weights if they are the best so far; the metrics for the log. Nothing where it is not the time."""
        options = self.options
        if not self.setup.subset.val or (step % options.validate_every and step != options.steps):
            return {}
        score = validate(self.setup, self.task, self.fabric)
        settled = step >= SETTLED * options.steps
        if settled and (self.best is None or score.better_than(self.best.score)):
            self.best = Best(step, score, {k: v.detach().clone() for k, v in self.task.state_dict().items()})
        return {f"val_{name}": value for name, value in score.metrics.items() if not math.isnan(value)}

    def _save(self, step: int) -> None:
        best = self.best
        kept = {"step": best.step, "score": vars(best.score), "state": best.state} if best else None
        extra = {"best": kept, "parts": self.parts}
        checkpoint.save(self.options.out, self.task, self.optimizer, self.fabric, step, extra)


def training_batches(options: Finetune, setup: Setup, task: Task, start: int) -> Iterator[Batch]:
    """Whole items for a classifier, patches around structures for a segmenter; from step ``start``."""
    rows, seed, loop = setup.subset.train, setup.config.seed, options.loop
    if options.task == "classify":
        items = setup.items_of(rows)
        whole = items.training(batch=loop.batch, steps=options.steps, seed=seed, start=start)
        return with_present(whole, setup.store)
    drawn = batches(
        setup.store,
        rows,
        region=task.region(),
        batch=loop.batch,
        steps=options.steps,
        seed=seed,
        start=start,
        workers=loop.workers or 0,
        masks=True,
        foreground=options.foreground,
    )
    return with_present(drawn, setup.store)


def _check(options: Finetune) -> None:
    if machine.ranks() != (1, 1):
        raise UserError("fine-tuning runs in one process", fix="start it without torchrun")
    wrong = out_of_range(options, options.optim, options.loop)
    if options.loop.batch == 1:  # batch normalisation needs two
        wrong.append(UserError("--batch is 1", fix="give 2 or more"))
    raise_all(wrong)


def _record(options: Finetune, setup: Setup, hardware: machine.Machine) -> dict[str, Any]:
    """run.toml: everything the result depends on; no paths and no ids."""
    names = ("target", "n_labels", "subset_seed", "steps", "validate_every", "encoder_lr")
    return {
        "kind": "finetune",
        "task": options.task,
        "init": setup.initial,
        "options": {name: getattr(options, name) for name in names}
        | {"test_modalities": options.test_modalities or None}
        | {"encoder_seed": None if setup.init else options.encoder_seed},
        "model": to_table(setup.config),
        "optim": to_table(options.optim),
        "loop": to_table(options.loop),
        "data": {"hash": setup.store.hash, "subset": _subset_hash(setup)},
        "machine": vars(hardware),
        "versions": machine.versions(),
    }


def _subset_hash(setup: Setup) -> str:
    """Of who is learnt from, validated and tested on, with the truth about them: labels and splits may change."""
    images, truth = setup.store.items["hash"], setup.truth.matrix
    parts = [(part, row) for part in ("train", "val", "test") for row in getattr(setup.subset, part)]
    return digest(f"{part} {images[row]} {truth[row].astype('<f4').tobytes().hex()}" for part, row in parts)
