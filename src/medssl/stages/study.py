"""`medssl study`: pre-train once an arm, fine-tune every arm on the same subsets, and say whether it helped.

STUDY/study.toml, pretrain/ARM/, runs/ARM-nN-sS/, logs/, data.json, results.jsonl, predictions.parquet, verdict.json,
report.html. Finished runs are skipped, so the same command goes on where it stopped, and more seeds, label counts or
arms extend the study; so are runs that ``--known`` folders record.
"""

import contextlib
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medssl import files
from medssl.data.content import Contents
from medssl.data.jobs import cores, each
from medssl.data.progress import progress
from medssl.data.remote import remote
from medssl.data.store import Store
from medssl.engine.record import begun, finished
from medssl.errors import UserError
from medssl.evaluate.compare import BASELINE
from medssl.report.facts import fingerprint
from medssl.report.ledger import Ledger
from medssl.stages import finetune, pretrain
from medssl.stages.finetune_modalities import store_of
from medssl.stages.judge import QUESTION, judged, show
from medssl.stages.options.study import Study
from medssl.stages.options.train import Finetune
from medssl.stages.recipe import Recipe, read_recipe
from medssl.stages.report import spared, write_study_report
from medssl.stages.study_check import check, other_starts
from medssl.stages.study_defaults import answered
from medssl.stages.study_keys import Planned, planned
from medssl.stages.study_known import begin, known, refuse_stale
from medssl.stages.study_record import leak_checks, settle
from medssl.stages.study_result import collect

Failures = dict[str, str]


def run(options: Study, warnings: Sequence[str] = ()) -> Path:
    """Run what is missing of the study; returns its folder. ``warnings`` stand above the verdict in the report.

    A run that fails does not stop the others: the verdict is given on what there is, then the failures are raised.
    """
    recipe = read_recipe(options)
    out = recipe.out
    with files.locked(out, "STUDY"):
        store = Store(recipe.data)
        recipe = answered(recipe, store)
        check(recipe)
        told = [*warnings, *other_starts(recipe)]
        contents = Contents(store_of(recipe.data, recipe.finetune.modalities))
        plan = planned(recipe, contents)
        earlier = known(recipe.known, plan)
        settle(recipe, store)
        refuse_stale(out, plan)
        collect(recipe, contents, plan, earlier)  # what a disk has damaged is told before hours are spent
        todo = [one for one in plan if one.key not in earlier.predictions and not finished(one.run.folder)]
        inits, failed = _pretrained(recipe, {one.run.start for one in todo})
        facts = fingerprint(store.items, store.plan.contract(), store.hash)
        facts["checks"] += leak_checks(recipe, {one.run.arm.name for one in plan if one.run.start in inits}, store)
        files.write_json(out / "data.json", facts)
        begin(out, todo)
        failed |= _finetuned(recipe, todo, inits)
        results = collect(recipe, contents, plan, earlier)
        results.write(out)
        found = _judged(recipe, results, failed) | {"warnings": told, "failed": sorted(failed)}
        files.write_json(out / "verdict.json", found)
        report = None
        with spared(out):  # the verdict is worth more than its page
            report = write_study_report(out)
    show(found)
    print(found["sentence"])
    if report:
        print(f"report: {report}")
    if failed:
        raise _failure(failed, len(results.rows), out)
    return out


# Runs ----------------------------------------------------------------------------------------------------------------


def _pretrained(recipe: Recipe, needed: Collection[str]) -> tuple[dict[str, str], Failures]:
    """What runs begin with, by the name of their start; what failed is missing and told of.

    Only what is ``needed`` is pre-trained: of the others every run is there.
    """
    inits: dict[str, str] = {}
    failed: Failures = {}
    for name, (arm, k) in {run.start: (run.arm, run.pretraining) for run in recipe.runs()}.items():
        if arm.options is None:
            inits[name] = str(arm.run) if arm.run else BASELINE
            continue
        folder = recipe.out / "pretrain" / name
        try:
            if name in needed and not finished(folder):
                pretrain.run(replace(arm.pretrain(k), out=folder), arm.settings)
            inits[name] = str(folder)
        except Exception as error:
            failed[f"pretrain/{name}"] = _told(error, recipe.out / "logs" / f"pretrain-{name}.txt")
    return inits, failed


def _finetuned(recipe: Recipe, todo: Sequence[Planned], inits: Mapping[str, str]) -> Failures:
    """Fine-tune what is to do; returns what failed."""
    runs = [one.run for one in todo if one.run.start in inits]
    jobs = [recipe.job(run.n_labels, run.seed, inits[run.start], run.folder, run.pretraining) for run in runs]
    jobs = [_anywhere(_threaded(job, recipe.jobs)) for job in jobs]
    logs, failed = (recipe.out / "logs").absolute(), {}
    logs.mkdir(exist_ok=True)
    with progress("fine-tune", len(jobs)) as step:
        tasks = [(job, logs / f"{job.out.name}.txt") for job in jobs]
        for position, outcome in each(_finetune, tasks, workers=recipe.jobs, cluster=recipe.cluster):
            if isinstance(outcome, BaseException):
                job, log = tasks[position]
                failed[f"runs/{job.out.name}"] = _told(outcome, log)
            step()
    return failed


def _finetune(task: tuple[Finetune, Path]) -> None:
    """One fine-tuning, in whatever process; what it says goes to its log, which is kept if it fails."""
    options, log = task
    with log.open("a", encoding="utf-8") as text, contextlib.redirect_stderr(text), contextlib.redirect_stdout(text):
        finetune.run(options)
    log.unlink(missing_ok=True)


def _threaded(job: Finetune, jobs: int) -> Finetune:
    """Runs side by side share the cores; a number that the recipe gives is kept, and one that a run began with."""
    if job.loop.threads:
        return job
    threads = begun(job.out).get("loop", {}).get("threads", cores(jobs) if jobs > 1 else 0)
    return replace(job, loop=replace(job.loop, threads=threads))


def _anywhere(job: Finetune) -> Finetune:
    """The same job with whole paths, but for addresses: a worker of a cluster runs in a folder of its own."""
    init = job.init if job.init == BASELINE else str(Path(job.init).absolute())
    data = job.data if remote(job.data) else job.data.absolute()
    return replace(job, data=data, out=job.out.absolute(), init=init)


def _told(error: BaseException, log: Path) -> str:
    """The failure in one line; the trace of what is no user's mistake goes to the log."""
    if isinstance(error, UserError):
        return str(error).replace("\n", "; ")
    log.parent.mkdir(exist_ok=True)
    with log.open("a", encoding="utf-8") as text:
        traceback.print_exception(error, file=text)
    return f"{type(error).__name__}: {error} (see {log})"


def _failure(failed: Failures, finished_runs: int, out: Path) -> UserError:
    told = "".join(f"\n  {name}: {why}" for name, why in failed.items())
    what = f"{len(failed)} failed, {finished_runs} runs finished; the verdict rests on these{told}\n"
    return UserError(what, out, "mend the cause and give the same command again: finished runs are kept")


# Verdict -------------------------------------------------------------------------------------------------------------


def _judged(recipe: Recipe, results: Ledger, failed: Failures) -> dict[str, Any]:
    if not results.rows and failed:
        raise _failure(failed, 0, recipe.out)
    return judged(results, **{name: getattr(recipe, name) for name in QUESTION}, beside=recipe.compare)
