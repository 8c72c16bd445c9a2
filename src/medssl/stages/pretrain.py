"""medssl pretrain: an encoder learns from prepared scans, without labels."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric import Fabric

from medssl import files
from medssl.config import to_table
from medssl.contract import Batch, Method
from medssl.data.store import Store
from medssl.distributed import rank, world_size
from medssl.engine import checkpoint, log, machine, record
from medssl.engine.fit import NonFinite, Step
from medssl.engine.networks import prepare
from medssl.engine.optim import make_optimizer
from medssl.engine.ranks import launched
from medssl.engine.stop import Stop
from medssl.errors import UserError, problems_of, raise_all
from medssl.evaluate.collapse import warning
from medssl.evaluate.modality import by_mean_intensity
from medssl.loading import WEIGHTS
from medssl.networks.norms import synchronise
from medssl.networks.pyramid import Pyramid
from medssl.report.facts import digest
from medssl.stages.configure import method_config, optim_of
from medssl.stages.defaults import OPEN, explained, settled
from medssl.stages.export import CARD, write_embedding, write_encoder, write_samples
from medssl.stages.limits import out_of_range
from medssl.stages.monitor import Monitor
from medssl.stages.options.train import Pretrain
from medssl.stages.pace import steps_of
from medssl.stages.paired import Paired, Reader, paired_data, sampler, save_reader, watched
from medssl.stages.patience import Patience, check_probes, free, probing, score
from medssl.stages.pretrain_check import check_scans
from medssl.stages.report import spared, write_run_report
from medssl.stages.seen import write_seen

CHOSEN = ("pair_by", "sync_norm", "accumulate", "checkpoint_activations", "compile")  # recorded where given
FIXED = ("verb", "method", "options", "model", "optim", "loop", "data")
PROBES = 10  # a run, unless told otherwise
SETTLED = 100  # steps before an encoder is called collapsed
SAMPLES = 6  # images that the report shows


def run(options: Pretrain, settings: Mapping[str, Any] | None = None) -> Path:
    """Pre-train, or go on where an earlier call stopped. ``settings`` are options of the method alone.

    Returns the RUN folder with encoder.safetensors, encoder.json and report.html.
    """
    raise_all(out_of_range(options, options.optim, options.loop, open_to=OPEN))
    hardware = _hardware(options)
    with launched(hardware, options.loop.deterministic) as fabric:
        return _run(options, settings, hardware, fabric)


def _run(options: Pretrain, settings: Mapping[str, Any] | None, hardware: machine.Machine, fabric: Fabric) -> Path:
    store = Store(options.data)
    rows = training_rows(store, options.transductive)
    options, choices = settled(options, store, rows)
    method_kind, config, reader = method_config(options, settings, store, rows)
    if options.explain:
        print(explained(options, config, choices))
        return options.out
    with files.locked(options.out, "RUN") if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            record.settle(options.out, _record(options, config, hardware, store, rows), FIXED, free(options))
        fabric.barrier()
        if record.finished(options.out):
            print(f"{options.out} is finished; choose another --out to train anew", file=sys.stderr)
            return options.out
        try:
            job = make_job(options, method_kind(config), store, rows, fabric, reader)
            done = _train(job)
        except NonFinite as error:
            error.where = options.out
            raise
        _finish(job, done)
    return options.out


def check(options: Pretrain, settings: Mapping[str, Any] | None = None) -> None:
    """Find all that would stop ``run`` before it trains; nothing is written."""
    raise_all(out_of_range(options, options.optim, options.loop, open_to=OPEN))
    raise_all(problems_of([partial(_hardware, options), partial(_check_method, options, settings)]))


def _check_method(options: Pretrain, settings: Mapping[str, Any] | None) -> None:
    store = Store(options.data)
    rows = training_rows(store, options.transductive)
    options, _ = settled(options, store, rows)
    method, config, _ = method_config(options, settings, store, rows)
    built = method(config)
    check_scans(options, built, store, rows)
    monitor = Monitor(store, rows, options.probe_target, built.config.seed, built.config.size, options.loop.batch)
    check_probes(options, monitor.probes)


@dataclass
class Job:
    """All that a run consists of."""

    options: Pretrain
    store: Store
    rows: list[int]
    method: Method
    optimizer: torch.optim.Optimizer
    fabric: Fabric
    monitor: Monitor
    pairs: Paired | None
    patience: Patience
    start: int = 0
    parts: int = 1
    """In how many parts a batch is taken; memory that runs out makes more of them."""
    untrained: dict[str, float] = field(default_factory=dict)

    @property
    def encoder(self) -> Pyramid:
        """What is trained, and kept."""
        return cast(Pyramid, self.method.encoder)

    def batches(self, start: int, workers: int, batch: int | None = None) -> Iterator[Batch]:
        """This rank's batches from step ``start`` on."""
        return sampler(self.pairs, self.options.foreground)(
            self.store, self.rows, region=self.method.region(), batch=batch or self.options.loop.batch,
            steps=self.options.steps, seed=self.options.model.seed, start=start, workers=workers,
            rank=rank(), world=world_size(),
        )  # fmt: skip


def training_rows(store: Store, transductive: bool) -> list[int]:
    """Rows that pre-training may see: the training split; with ``transductive`` the test patients' images too."""
    allowed = {"train", "test"} if transductive else {"train"}
    rows = [row for row, split in enumerate(store.items["split"]) if split in allowed]
    if not rows:
        raise UserError("no scan is in the training split", fix="index again with other --fractions")
    return rows


def _hardware(options: Pretrain) -> machine.Machine:
    """What ``auto`` chose for the first part of a run holds for the rest of it."""
    loop, before = options.loop, record.begun(options.out).get("machine", {})
    precision = before.get("precision", loop.precision) if loop.precision == "auto" else loop.precision
    return machine.choose(loop.device, precision, loop.threads or before.get("threads", 0))


def make_job(
    options: Pretrain, method: Method, store: Store, rows: list[int], fabric: Fabric, reader: Reader | None
) -> Job:
    """Everything in its place, and in the state of the last checkpoint."""
    config, optim = method.config, optim_of(options)
    check_scans(options, method, store, rows)
    prepare(method, options.checkpoint_activations, options.compile)
    pairs = paired_data(method, store, rows, options.pair_by, reader, fabric.is_global_zero)
    if options.sync_norm:
        synchronise(method)
    machine.place(fabric, method, config.dims)
    optimizer = make_optimizer(
        method, name=optim.optimizer, lr=optim.lr, weight_decay=optim.weight_decay, betas=optim.betas
    )  # fmt: skip
    found = checkpoint.load(options.out, method, optimizer, fabric)
    if fabric.is_global_zero:
        save_reader(options.out, reader)
    monitor = Monitor(
        store, watched(method, store, rows), options.probe_target, config.seed, config.size, options.loop.batch
    )
    check_probes(options, monitor.probes)
    patience = Patience(options.patience, **found.extra.get("patience", {}))
    untrained, parts = found.extra.get("untrained", {}), found.extra.get("parts", options.accumulate or 1)
    return Job(options, store, rows, method, optimizer, fabric, monitor, pairs, patience, found.step, parts, untrained)


def _record(options: Pretrain, config: Any, hardware: machine.Machine, store: Store, rows: list[int]) -> dict[str, Any]:
    """run.toml: everything the result depends on; no paths and no ids."""
    patients, scans = store.items["patient"][rows].n_unique(), digest(store.items["hash"][rows])
    given = {name: value for name in CHOSEN if (value := getattr(options, name))} | probing(options)
    return {
        "verb": "pretrain",
        "method": options.method,
        "options": {name: getattr(options, name) for name in ("steps", "transductive", "foreground")} | given,
        "model": to_table(config),
        "optim": to_table(optim_of(options)),
        "loop": to_table(options.loop),
        "data": {"hash": store.hash, "images": len(rows), "patients": patients, "scans": scans},
        "machine": vars(hardware),
        "versions": machine.versions(),
    }


def _train(job: Job) -> int:
    """The loop: log, probe, save, stop. Learning itself is ``fit``. Returns the steps that were taken."""
    steps, loop, boss = job.options.steps, job.options.loop, job.fabric.is_global_zero
    if job.start >= steps or job.patience.over:
        return job.start
    diary = log.Log(
        job.options.out, job.options.method, job.start, steps, tensorboard=job.options.tensorboard, silent=not boss
    )
    timer = checkpoint.Timer(loop.save_every_steps, loop.save_every_minutes)
    done, saved, ended = job.start, job.start, False
    with Stop() as stop, diary:
        _begin(job, diary)
        for step in steps_of(job, stop, diary):
            done = step.step
            diary.count(step)
            if step.logged:
                _log(job, diary, step)
            ended = done == steps or job.patience.over
            if timer.due(done) or ended:
                with diary.clock.paused():
                    saved = _save(job, done)
            if job.patience.over or stop.due(step.logged):
                break
        if ended and job.patience.probes:
            diary.say(job.patience.said(done, steps, job.untrained))
    if not ended:
        if saved < done:
            _save(job, done)
        if boss:
            print(f"stopped; step {done} of {steps} is saved in {job.options.out}", file=sys.stderr)
        raise KeyboardInterrupt
    return done


def _begin(job: Job, diary: log.Log) -> None:
    options, config, hardware = job.options, job.method.config, record.stored(job.options.out)["machine"]
    patch = "×".join(map(str, config.size))
    resumed = f", from step {job.start}" if job.start else ""
    diary.say(
        f"{options.method}: {len(job.rows)} scans, {config.encoder}, patch {patch}, batch {options.loop.batch}, "
        f"precision {hardware['precision']} on {hardware['device']}{resumed}"
    )
    if not job.start and diary.metrics is not None:
        job.untrained = job.monitor(job.encoder, job.fabric.device)
        check_probes(options, score(job.untrained) is not None)
        diary.metrics.write({"step": 0, **job.untrained, **_told_by_brightness(job, diary)})
    diary.clock.restart()


def _told_by_brightness(job: Job, diary: log.Log) -> dict[str, float]:
    """For an objective that tells modalities apart: how much of it brightness alone would solve."""
    monitor, names = job.monitor, ", ".join(name or "unknown" for name in job.store.modality_names)
    if getattr(job.method.config, "objective", "") != "discriminate":
        return {}
    found = by_mean_intensity(job.store, monitor.rows, monitor.split, job.method.config.size)
    if found is None:
        return {}
    diary.say(f"mean intensity alone tells the modalities ({names}) apart with a balanced accuracy of {found:.2f}")
    return {"modality.by_mean": found}


def _log(job: Job, diary: log.Log, step: Step) -> None:
    every = job.options.probe_every or -(-job.options.steps // PROBES)
    # A probe falls on the first logged step at or after its turn: one line holds all that is known of a step.
    turn = step.step // every > max(0, step.step - job.options.loop.log_every) // every
    measures: Any = getattr(job.method, "measures", None)
    found: dict[str, float] = {} if measures is None else measures(step.step / job.options.steps)
    with diary.clock.paused():
        if (turn or step.step == job.options.steps) and job.fabric.is_global_zero:
            found |= job.monitor(job.encoder, job.fabric.device)
            job.patience.see(step.step, found, job.method)
            # Until then the running statistics of batch norm are still those of the start.
            if step.step >= SETTLED and (sentence := warning(found, job.untrained)):
                diary.say(f"warning: {sentence}")
    if turn or step.step == job.options.steps:
        job.patience.agree()
    diary.write(step, found)


def _save(job: Job, step: int) -> int:
    extra = {"untrained": job.untrained, "parts": job.parts} | job.patience.state()
    checkpoint.save(job.options.out, job.method, job.optimizer, job.fabric, step, extra)
    return step


def _finish(job: Job, done: int) -> None:
    """Everything that others read of a run; done.json last."""
    if not job.fabric.is_global_zero:
        return
    options, folder, patience = job.options, job.options.out, job.patience
    kept, course = done, {}
    if patience.weights:
        job.method.load_state_dict(patience.weights)
        kept, course = patience.step, {"probes": patience.probes, "ended": done, "of": options.steps}
    write_seen(folder, job.store, job.rows)  # before the weights: no encoder without it
    write_encoder(folder, job.method, job.store, options.method, kept, options.transductive, course)
    with spared(folder):  # the encoder is worth more than its pictures
        few = next(job.batches(0, workers=0, batch=SAMPLES * world_size()))
        write_samples(folder, job.method, job.fabric.to_device(few), options.model.seed)
        write_embedding(folder, job.monitor, job.monitor.features(job.encoder, job.fabric.device))
        write_run_report(folder)
    files.write_json(folder / record.DONE, {"finished": True, "steps": done} | ({"kept": kept} if course else {}))
    there = [name for name in (WEIGHTS, CARD, "report.html") if (folder / name).exists()]
    print(f"{folder}: {', '.join(there)}", file=sys.stderr)
