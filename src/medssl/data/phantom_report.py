"""Reports of generated patients: one or two sentences that follow from the findings, in several wordings."""

import numpy as np

from medssl.data.phantom_anatomy import Findings

_NUMBERS = {1: "a single", 2: "two", 3: "three"}
_NORMAL = (
    "No focal lesion. No pleural effusion.",
    "Unremarkable study without focal lesion or pleural effusion.",
    "Lungs and upper abdomen are normal.",
    "No abnormality is seen.",
)
_LESIONS = (
    "There {is_are} {number} focal {lesion} in the {site}, up to {mm} mm.",
    "{Number} {lesion} of the {site}, the largest measuring {mm} mm.",
    "The {site} shows {number} {lesion} of up to {mm} mm in diameter.",
)
_NO_LESIONS = ("No focal lesion.", "No lesion is seen in lungs or liver.", "Lungs and liver are free of focal lesions.")
_EFFUSIONS = (
    "{Size} pleural effusion on the {side}.",
    "{Size} {side}-sided pleural effusion.",
    "Fluid in the {side} pleural space, {size}.",
)
_NO_EFFUSIONS = ("No pleural effusion.", "The pleural spaces are clear.", "No fluid in the pleural spaces.")


def report(findings: Findings, rng: np.random.Generator) -> str:
    """The report of a study. ``rng`` chooses the wording and nothing else."""
    wording = rng.random(3)
    if not findings.lesions and not findings.effusion:
        return _one(_NORMAL, wording[0])
    sentences = [_lesions(findings, wording[0]), _effusion(findings, wording[1])]
    return " ".join(sentences if wording[2] < 0.5 else sentences[::-1])


def _lesions(findings: Findings, drawn: float) -> str:
    if not findings.lesions:
        return _one(_NO_LESIONS, drawn)
    site, centre, _ = findings.lesions[0]
    many = len(findings.lesions)
    words = {
        "number": _NUMBERS[many],
        "Number": _NUMBERS[many].capitalize(),
        "lesion": "lesion" if many == 1 else "lesions",
        "is_are": "is" if many == 1 else "are",
        "site": site if site == "liver" else f"{'right' if centre[0] > 0 else 'left'} lung",
        "mm": str(round(2 * max(radius for _, _, radius in findings.lesions))),
    }
    return _one(_LESIONS, drawn).format(**words)


def _effusion(findings: Findings, drawn: float) -> str:
    if not findings.effusion:
        return _one(_NO_EFFUSIONS, drawn)
    side, height = findings.effusion
    size = "small" if height < 34 else "moderate" if height < 46 else "large"
    return _one(_EFFUSIONS, drawn).format(side="right" if side > 0 else "left", size=size, Size=size.capitalize())


def _one(wordings: tuple[str, ...], drawn: float) -> str:
    return wordings[int(drawn * len(wordings))]
