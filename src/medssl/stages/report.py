"""`medssl report`: the page of a run or a study, made anew from its files."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medssl.errors import UserError
from medssl.evaluate.ranks import of_verdicts
from medssl.files import check_format, read_toml, write_json, write_text
from medssl.report import ledger, scores
from medssl.report.formats import table
from medssl.report.judged import Verdict
from medssl.report.page import write_run_report, write_study_report
from medssl.stages.judge import QUESTION, judged, read_pairs, show, show_table
from medssl.stages.options.study import Report

TRACE = "report-error.txt"


def run(options: Report) -> Path:
    """Write report.html into the folder of a run or a study; returns its path."""
    folder = options.folder
    for name, write in (("study.toml", _study), ("run.toml", _run)):
        if (folder / name).is_file():
            check_format(read_toml(folder / name), folder / name)
            path = write(folder, options)
            print(f"report: {path}")
            return path
    what = "no run and no study" if folder.is_dir() else "no such folder"
    raise UserError(what, folder, "name a folder that `medssl pretrain`, `finetune` or `study` wrote")


@contextmanager
def spared(folder: Path) -> Iterator[None]:
    """What fails within costs the report alone: it is told with its remedy, and finished work stays finished."""
    try:
        yield
        (folder / TRACE).unlink(missing_ok=True)
    except Exception as error:
        why = str(error)
        if not isinstance(error, UserError):  # a fault of ours: its trace is kept for whoever mends it
            why = f"{type(error).__name__}: {error} (see {folder / TRACE})"
            with suppress(OSError):
                write_text(folder / TRACE, "".join(traceback.format_exception(error)))
        told = f"warning: the report could not be made: {why}; all else is finished"
        print(f"{told}, and `medssl report {folder}` tries again", file=sys.stderr)


def _run(folder: Path, options: Report) -> Path:
    if options.compare or options.ranks:
        raise UserError("a run has no arms to compare or rank", folder, "name the folder of a study")
    return write_run_report(folder)


def _study(folder: Path, options: Report) -> Path:
    verdicts = [_verdict(each) for each in (folder, *options.ranks)]
    if options.compare:
        arms = list(dict.fromkeys(arm for at in verdicts[0]["labels"] for arm in at["arms"]))
        asked = {name: verdicts[0][name] for name in QUESTION}
        verdicts[0] |= judged(ledger.read(folder), **asked, beside=read_pairs(options.compare, arms))
        write_json(folder / "verdict.json", verdicts[0])
        show(verdicts[0])
    if options.ranks:
        show_table(scores.ranks(asdict(of_verdicts(verdicts))))
    return write_study_report(folder)


def _verdict(folder: Path) -> dict[str, Any]:
    path = folder / "verdict.json"
    if not path.is_file():
        raise UserError("the study has no verdict yet", folder, "run `medssl study` again to finish it")
    return table(path, Verdict)


__all__ = ["run", "spared", "write_run_report", "write_study_report"]
