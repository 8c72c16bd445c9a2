"""The tables of a study, the same in its report and in the terminal: scores, pairs of arms, mean ranks."""

from collections.abc import Mapping
from typing import Any

from medssl.report.blocks import Table
from medssl.wording import probability, score, signed, span

METRICS = {"auc": "AUC", "dice": "Dice"}


def scores(verdict: Mapping[str, Any]) -> Table:
    """Every arm at every label count: score, difference to scratch, p value, labels saved, and the word."""
    saved = {(each["arm"], each["n_labels"]): each["text"] for each in verdict["labels_saved"]}
    rows = []
    for at in verdict["labels"]:
        said = {c["arm"]: c for c in at["comparisons"]}
        for arm, band in at["arms"].items():
            cells = [at["n_labels"], arm, score(band["mean"]), span(band["interval"]), _runs(band)]
            if arm in said:
                cells += [*_difference(said[arm]), saved.get((arm, at["n_labels"]), ""), said[arm]["verdict"]]
            rows.append(cells + [""] * (10 - len(cells)))
    columns = ["Labels", "Arm", METRICS[verdict["metric"]], "95 % interval", "Seeds", "To scratch", "95 % interval"]
    columns += ["p" if _compared(verdict) < 2 else "p (Holm)", "Labels saved ×", "Verdict"]
    return Table(columns, rows, words=2)


def pairs(verdict: Mapping[str, Any]) -> Table | None:
    """The pairs of arms that were asked for; None where none were."""
    rows = [
        [at["n_labels"], f"{c['arm']} : {c['against']}", *_difference(c), c["verdict"]]
        for at in verdict["labels"]
        for c in at["pairs"]
    ]
    metric = METRICS[verdict["metric"]]
    columns = ("Labels", "Arms", f"Difference in {metric}", "95 % interval", "p (Holm)", "Verdict")
    return Table(columns, rows, "Two arms, on the same labels, seeds and test patients", words=2) if rows else None


def ranks(found: Mapping[str, Any]) -> Table:
    """Mean ranks, the best first."""
    rows = [[arm, f"{rank:.2f}"] for arm, rank in found["ranks"].items()]
    left = f"; not in all of them: {', '.join(found['left_out'])}" if found["left_out"] else ""
    return Table(("Arm", "Mean rank"), rows, f"Mean rank over {found['blocks']} label counts, 1 is best{left}")


def _difference(c: Mapping[str, Any]) -> list[str]:
    """Difference, its plain interval, its corrected p value (none of one seed, which knows no chance)."""
    p = probability(c["corrected"]["p"]).removeprefix("p").removeprefix(" = ").lstrip() if c["seeds"] > 1 else ""
    return [signed(c["difference"]), span(c["interval"], signed), p]


def _runs(band: Mapping[str, Any]) -> str:
    return f"{band['pretrainings']} × {band['seeds']}" if band["pretrainings"] > 1 else str(band["seeds"])


def _compared(verdict: Mapping[str, Any]) -> int:
    return max((c["compared"] for at in verdict["labels"] for c in at["comparisons"]), default=1)
