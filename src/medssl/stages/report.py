"""`medssl report`: the page of a run or a study, made anew from its files."""

from pathlib import Path

from medssl.errors import UserError
from medssl.files import check_format, read_toml
from medssl.report.page import write_run_report, write_study_report
from medssl.stages.options.study import Report


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


def _study(folder: Path) -> Path:
    if not (folder / "verdict.json").is_file():
        raise UserError("the study has no verdict yet", folder, "run `medssl study` again to finish it")
    return write_study_report(folder)


__all__ = ["run", "write_run_report", "write_study_report"]
