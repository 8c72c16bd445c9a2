"""The report of a study: the verdict first, then all that it rests on."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssl.report import facts, figures, formats, ledger, parts, run
from medssl.report import scores as tables
from medssl.report.blocks import Block, Card, Figure, Note, Page, Section, Table
from medssl.report.formats import table
from medssl.report.judged import Verdict
from medssl.report.ledger import Ledger
from medssl.wording import signed, span

_TONES = {"helped": "good", "harmed": "bad", "did not help": "none", "cannot tell": "open"}
_MANY = 9  # comparisons; more are a table, not cards and sentences


def page(study: Path) -> Page:
    """What the files of a study tell."""
    record, verdict = table(study / "study.toml", formats.StudyRecord), table(study / "verdict.json", Verdict)
    data, found = table(study / "data.json", formats.Data), ledger.read(study)
    results = found.rows
    _check_arms(verdict, study)
    arms = list(dict.fromkeys(arm for at in verdict["labels"] for arm in at["arms"]))
    colour = figures.colours(arms)
    pretrained = {arm: study / "pretrain" / arm for arm in arms if (study / "pretrain" / arm).is_dir()}
    metric = tables.METRICS[verdict["metric"]]
    sections = [_result(verdict, metric, colour), _scores(verdict, results, metric)]
    sections.append(_predictions(study, found))
    sections += _of_each(parts.rebuilt, pretrained, "Views and their reconstructions", "Reconstructions by")
    if pretrained:
        sections += parts.course(pretrained, colour)
    sections += _of_each(parts.embedding, pretrained, "Map of the embedding", "Embedding by")
    sections += [
        facts.section(data),
        facts.leakage([*data.get("checks", []), _same_test(results)]),
        Section("Configuration", _configuration(record)),
        parts.software(record),
    ]
    task = {"classify": "classification", "segment": "segmentation"}[verdict["task"]]
    return Page(
        "medssl study", f"{task}, {metric}", verdict["sentence"], sections,
        cards=_cards(verdict, metric), notes=_notes(verdict, data), figures=_keys(verdict, record, data),
        version=record.get("versions", {}).get("medssl", ""),
    )  # fmt: skip


def _of_each(part: Callable[[Path, str], Section], runs: Mapping[str, Path], title: str, by: str) -> list[Section]:
    """A part of each pre-training's report: a section an arm, or one section where there are many arms."""
    found = {arm: part(run, f"{by} {arm}" if len(runs) > 1 else title) for arm, run in runs.items()}
    if len(runs) < figures.FEW:
        return list(found.values())
    blocks = [block for arm, section in found.items() for block in (Note(f"{arm}:"), *section.blocks)]
    intro = next((section.intro for section in found.values() if section.intro), "")
    return [Section(title, blocks if any(section.blocks for section in found.values()) else [], intro)]


def _check_arms(verdict: Mapping[str, Any], study: Path) -> None:
    """Every arm that is spoken of has its scores."""
    told = [
        ({*at["arms"], *(c["arm"] for c in at["comparisons"])}, {*at["arms"]} & {*at["scores"]})
        for at in verdict["labels"]
    ]
    if not told or any(named - scored for named, scored in told):
        raise formats.damaged(study / "verdict.json", "an arm has no scores")


def _cards(verdict: Mapping[str, Any], metric: str) -> list[Card]:
    found = [(c["arm"], at["n_labels"], c) for at in verdict["labels"] for c in at["comparisons"]]
    if len(found) > _MANY:
        return []
    arms = list(dict.fromkeys(arm for arm, *_ in found))
    return [
        Card(
            c["verdict"],
            _TONES[c["verdict"]],
            f"{arm}, {n} labelled patients" if len(arms) > 1 else f"{n} labelled patients",
            f"{signed(c['difference'])} {metric}",
            f"95 %: {span(c['interval'], signed)}",
        )
        for arm, n, c in sorted(found, key=lambda entry: arms.index(entry[0]))
    ]


def _notes(verdict: Mapping[str, Any], data: Mapping[str, Any]) -> list[Note]:
    notes = [Note(text) for text in verdict["notes"]]
    if verdict.get("transductive"):
        text = "Transductive: pre-training saw the images of the test patients, though never their labels."
        notes.append(Note(f"{text} Scores on new patients may be lower.", "warning"))
    notes += [Note(text, "warning") for text in verdict.get("warnings", [])]
    if verdict.get("failed"):
        text = f"{len(verdict['failed'])} runs failed and are missing here: {', '.join(verdict['failed'])}."
        notes.append(Note(text, "warning"))
    for check in data.get("checks", []):
        if check["ok"] is not True and not verdict.get("transductive"):
            notes.append(Note(f"{check['check']}: {check['detail']}.", "warning"))
    return notes


def _keys(verdict: Mapping[str, Any], record: Mapping[str, Any], data: Mapping[str, Any]) -> list[tuple[str, str]]:
    options = record.get("options", {})
    keys = [(str(verdict["test_patients"]), "test patients"), (str(options.get("seeds", "")), "seeds an arm")]
    train = data.get("splits", {}).get("train", {}).get("patients")
    keys.append((str(train or ""), "training patients"))
    keys.append((str(options.get("pretrain_steps", "")), "pre-training steps"))
    keys.append((str(options.get("finetune_steps", "")), "fine-tuning steps"))
    return [(value, name) for value, name in keys if value]


def _result(verdict: Mapping[str, Any], metric: str, colour: Mapping[str, str]) -> Section:
    few = len({arm for at in verdict["labels"] for arm in at["arms"]}) <= figures.FEW
    bands = "the band is its 95 % interval (the notes say of what), each dot one run"
    caption = f"Mean over seeds; {bands if few else 'the intervals are in the table below'}."
    blocks: list[Block] = [Figure(figures.efficiency(verdict, metric, colour), caption, wide=True, full=not few)]
    if any(at["comparisons"] for at in verdict["labels"]):
        margin = f"{verdict['margin']:g}"
        several = any(c["compared"] > 1 for at in verdict["labels"] for c in at["comparisons"])
        grey = f"Grey: ±{margin}; an interval within it that holds zero is no help."
        rests = " The words rest on the thin intervals." if several else ""
        blocks.append(
            Figure(
                figures.differences(verdict, metric, colour),
                f"Same subsets, same test patients. {grey}{rests}",
                wide=True,
                full=not few,
            )
        )
    found = [c for at in verdict["labels"] for c in at["comparisons"]]
    sentences = [Note(c["sentence"]) for c in found if len(found) <= _MANY]
    return Section("Label efficiency", [*blocks, *sentences])


def _scores(verdict: Mapping[str, Any], results: Sequence[Mapping[str, Any]], metric: str) -> Section:
    blocks: list[Block] = [tables.scores(verdict), *_saving(verdict)]
    if pairs := tables.pairs(verdict):
        sentences = [Note(c["sentence"]) for at in verdict["labels"] for c in at["pairs"]]
        blocks += [pairs, *sentences[:_MANY]]
    if len(verdict["ranks"]["ranks"]) > 2:
        blocks.append(tables.ranks(verdict["ranks"]))
    if other := _other_metrics(results, metric):
        blocks.append(other)
    return Section("Scores", blocks, "On the test patients, which no run has learnt from.")


def _saving(verdict: Mapping[str, Any]) -> list[Block]:
    """What the label-saving factors in the table mean, and why they are unknown where they are."""
    known = [each for each in verdict["labels_saved"] if each["factor"] is not None]
    found = []
    if known:
        text = "Labels saved ×: with n labels the arm reaches what scratch reaches with so many times n, by scratch's"
        found.append(f"{text} curve between the counts, with its 95 % interval; ≥ and ≤ where that curve ends.")
    found += dict.fromkeys(
        f"Labels saved are unknown: {each['why']}." for each in verdict["labels_saved"] if each["why"]
    )
    return [Note(text) for text in found]


def _other_metrics(results: Sequence[Mapping[str, Any]], metric: str) -> Table | None:
    groups: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in results:
        for key, value in row.get("metrics", {}).items():
            if value is not None:
                groups[row["n_labels"], row["arm"]][key].append(value)
    keys = list(dict.fromkeys(k for found in groups.values() for k in found if k != metric.lower()))
    # Of several structures each has its own Dice here; of one it would only repeat the mean.
    structures = {k.partition(".")[2] for k in keys if "." in k}
    wanted = [k for k in keys if "." not in k or (len(structures) > 1 and k.startswith(metric.lower()))]
    keys = [k for k in wanted if k != "hd95_undefined"][:8]
    if not keys:
        return None
    rows = [
        [n, arm, *(_spread(found[k]) for k in keys)]
        for (n, arm), found in sorted(groups.items(), key=lambda group: group[0][0])
    ]
    return Table(
        ("Labels", "Arm", *map(run._metric, keys)), rows, "Other metrics, mean ± standard deviation over seeds", words=2
    )


def _spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation; one value has none."""
    if not values:
        return ""
    return f"{np.mean(values):.3g}" + (f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else "")


def _predictions(study: Path, found: Ledger) -> Section:
    """Test items as every arm sees them after learning from the fewest labels, where arms differ most."""
    title = "Predictions against truth"
    if not found.rows:
        return Section(title, [], "", "No run has finished.")
    fewest, seed = (min(row[name] for row in found.rows) for name in ("n_labels", "seed"))
    shown = [row for row in found.rows if (row["n_labels"], row["seed"]) == (fewest, seed) and "run" in row]
    section = run.predictions({row["arm"]: study / row["run"] for row in shown}, title)
    blocks = [*section.blocks, *confusions(found, fewest)]
    return Section(title, blocks, f"With {fewest} labelled patients, first seed.", section.missing)


def confusions(found: Ledger, n_labels: int) -> list[Block]:
    """Of classes that exclude each other: how often each arm names which, over all seeds."""
    tables: dict[str, np.ndarray] = {}
    names: list[str] = []
    for row in found.rows:
        frame = found.predictions.get(row.get("key", ""))
        if row["n_labels"] != n_labels or frame is None:
            continue
        names = [c.removeprefix("truth.") for c in frame.columns if c.startswith("truth.")]
        if not names:
            return []
        prob, truth = (frame.select(f"{side}.{name}" for name in names).to_numpy() for side in ("prob", "truth"))
        truth, prob = truth[known := np.isfinite(truth).all(1)], prob[known]
        if len(names) < 2 or len(names) > 8 or (truth.sum(1) != 1).any():
            return []
        counts = np.zeros((len(names), len(names)))
        np.add.at(counts, (truth.argmax(1), prob.argmax(1)), 1)
        tables[row["arm"]] = tables.get(row["arm"], 0) + counts
    share = {arm: counts / np.maximum(counts.sum(1, keepdims=True), 1) for arm, counts in tables.items()}
    rows = [
        [arm, name, *(f"{part:.0%}" for part in counted[i])]
        for arm, counted in share.items()
        for i, name in enumerate(names)
    ]
    caption = "What the test items of each class are called, over all seeds"
    return [Table(("Arm", "Truth", *(f"called {name}" for name in names)), rows, caption, words=2)]


def _same_test(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    hashes = {row.get("test_hash") for row in results}
    same = len(hashes) == 1 and None not in hashes
    detail = f"test images {str(next(iter(hashes)))[:16]}" if same else "their hashes differ"
    return {"check": f"All {len(results)} runs were tested on the same images", "ok": same, "detail": detail}


def _configuration(record: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [parts.configuration(record.get("options", {}), "Study")]
    for name in ("pretrain", "finetune"):
        if record.get(name):
            blocks.append(parts.configuration(record[name], name.replace("pre", "Pre-").replace("fine", "Fine-")))
    return blocks
