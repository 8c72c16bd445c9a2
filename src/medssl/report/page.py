"""Reports: one HTML file for a run or a study, made from its files alone. No model is loaded."""

from pathlib import Path

from medssl.files import write_text
from medssl.report import run as run_report
from medssl.report import study as study_report

NAME = "report.html"


def write_run_report(run: Path) -> Path:
    """Write report.html of a pre-training or fine-tuning; parts whose files are missing say so."""
    write_text(run / NAME, run_report.page(run).html())
    return run / NAME


def write_study_report(study: Path) -> Path:
    """Write report.html of a study; it needs verdict.json."""
    write_text(study / NAME, study_report.page(study).html())
    return study / NAME
