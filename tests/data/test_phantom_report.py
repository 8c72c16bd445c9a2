"""A report says what is there, in words that differ, and nothing that is not."""

import re

import numpy as np

from medssl.data.phantom import make_patient
from medssl.data.phantom_anatomy import Findings
from medssl.data.phantom_report import report

NONE = re.compile(r"^(No |.*(unremarkable|normal|free of|clear|without))", re.IGNORECASE)


def wordings(findings: Findings) -> set[str]:
    return {report(findings, np.random.default_rng(seed)) for seed in range(60)}


def test_each_finding_is_named_with_its_place_and_size_in_several_wordings() -> None:
    lung = (("lung", (-80.0, 0.0, 60.0), 12.2), ("lung", (-70.0, 10.0, 60.0), 8.0))
    said = wordings(Findings(lung, (1, 55.0)))
    assert len(said) >= 6
    for text in said:
        assert "left lung" in text and re.search(r"\btwo\b", text, re.IGNORECASE) and "24 mm" in text
        assert "right" in text and "large" in text.lower() and "liver" not in text
    assert all(
        "liver" in text and "single" in text.lower() for text in wordings(Findings((("liver", (75.0, 0, 0), 9),)))
    )


def test_what_is_not_there_is_not_claimed() -> None:
    normal = wordings(Findings())
    assert len(normal) >= 3
    for text in normal:
        assert all(NONE.match(sentence) for sentence in text.split(". ")), text
    for text in wordings(Findings(effusion=(-1, 25.0))):
        assert "left" in text and "small" in text.lower() and "right" not in text and " mm" not in text


def test_reports_of_a_set_agree_with_its_labels() -> None:
    for patient in range(30):
        findings = make_patient(0, patient).findings
        text = report(findings, np.random.default_rng(patient))
        assert bool(re.search(r"\d+ mm", text)) == bool(findings.lesions)
        side = None if not findings.effusion else "right" if findings.effusion[0] > 0 else "left"
        fluid = [s for s in re.split(r"(?<=\.) ", text) if re.search("effusion|Fluid in", s) and side and side in s]
        assert bool(fluid) == (side is not None)
