"""`medssl report`: the page of a run or a study, made anew from its files."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medssl.errors import UserError
from medssl.files import check_format, read_toml, write_text
from medssl.report.page import write_run_report, write_study_report
from medssl.stages.options.study import Report

TRACE = "report-error.txt"


def run(options: Report) -> Path:
    """Write report.html into the folder of a run or a study; returns its path."""
    folder = options.folder
    for name, write in (("study.toml", _study), ("run.toml", write_run_report)):
        if (folder / name).is_file():
            check_format(read_toml(folder / name), folder / name)
            path = write(folder)
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


def _study(folder: Path) -> Path:
    if not (folder / "verdict.json").is_file():
        raise UserError("the study has no verdict yet", folder, "run `medssl study` again to finish it")
    return write_study_report(folder)


__all__ = ["run", "spared", "write_run_report", "write_study_report"]
