"""`medssl evaluate`: what a run of several modalities has learnt, on test patients that it never saw."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medssl import files
from medssl.data.catalog import LABEL, label_names
from medssl.data.pairing import subjects
from medssl.data.store import Store
from medssl.engine.machine import choose
from medssl.errors import UserError, raise_all
from medssl.evaluate.features import embed
from medssl.evaluate.joint_space import joint
from medssl.evaluate.retrieval import KS, Samples, retrieval, unit
from medssl.evaluate.zeroshot import class_vectors, probabilities, prompts_of, scores
from medssl.loading import check_preprocessing
from medssl.report.page import write_run_report
from medssl.stages.limits import out_of_range
from medssl.stages.options.evaluate import Evaluate
from medssl.stages.seen import read_seen, unseen_test
from medssl.stages.towers import load_towers

TEXT = "text"
Table = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """A run's towers, and the test scans of a data set in their space."""

    method: Any
    reader: Any
    store: Store
    rows: list[int]
    device: torch.device
    batch: int

    def images(self, modality: str) -> tuple[np.ndarray, list[int]]:
        """Vectors (n, d) of the test scans of a modality, each pooled over the whole scan, and their rows."""
        store, space = self.store, self.method.space
        rows = [row for row in self.rows if store.modality_names[store.modalities[row]] == modality]
        if not rows:
            return np.empty((0, space.out)), rows
        code = self.method.kinds.names.index(modality)
        size = self.method.config.size
        features = embed(space.pyramids[code], store, rows, patch=size, batch=self.batch, device=self.device)
        with torch.inference_mode():
            z = space.heads[code](torch.from_numpy(features).to(self.device))
        return unit(z.float().cpu().numpy()), rows

    def texts(self, said: list[str]) -> np.ndarray:
        """Vectors (n, d) of texts."""
        tokens, _ = self.reader.encode(said)
        with torch.inference_mode():
            parts = [self.method.space.embed(TEXT, part.to(self.device)) for part in tokens.split(64)]
        return unit(torch.cat(parts).float().cpu().numpy())


def run(options: Evaluate) -> Path:
    """Write retrieval.json and joint.npz, or zeroshot.json, and print the table; returns the JSON's path."""
    raise_all(out_of_range(options))
    method, card, reader = load_towers(options.run)
    store = Store(options.data)
    check_preprocessing(store.plan, card["preprocessing"], options.run, "the encoders expect")
    device = torch.device(choose(options.device).device)
    rows = [row for row, split in enumerate(store.items["split"]) if split == "test"]
    if not rows:
        raise UserError("no scan is in the test split", options.data, "index again with other --fractions")
    space = Space(method.to(device), reader, store, rows, device, options.batch)
    about = {
        "format": files.FORMAT,
        "method": card["method"],
        "steps": card["steps"],
        "same_data": card["data_hash"] == store.hash,
        "transductive": unseen_test(read_seen(options.run), card, store)[0] is False,
    }
    out = options.out or options.run
    path = (_retrieval if options.kind == "retrieval" else _zeroshot)(space, options, out, about)
    if (out / "run.toml").is_file():
        write_run_report(out)
    return path


# Retrieval -----------------------------------------------------------------------------------------------------------


def _retrieval(space: Space, options: Evaluate, out: Path, about: Table) -> Path:
    parts = _parts(space, subjects(space.store, options.pair_by))
    if len(parts) < 2:
        known = ", ".join(parts) or "none"
        fix = "evaluate on data that holds two of the run's modalities"
        raise UserError(f"the test patients have one modality of the run only ({known})", options.data, fix)
    found = [
        {"query": a, "gallery": b, **retrieval(parts[a], parts[b], options.seed)}
        for a in parts
        for b in parts
        if a != b
    ]
    if not any(one["queries"] for one in found):
        raise UserError("no test subject has two modalities", options.data, "name the column that pairs by --pair-by")
    table = about | {"directions": found, "joint": joint(parts, options.seed)}
    files.write_json(out / "retrieval.json", table)
    _write_joint(out / "joint.npz", parts)
    _tell_retrieval(table)
    return out / "retrieval.json"


def _parts(space: Space, subject: np.ndarray) -> dict[str, Samples]:
    """What there is of each modality, reports last; a report that several scans of a subject carry counts once."""
    store, parts = space.store, {}
    for modality in space.method.kinds.names:
        z, rows = space.images(modality)
        if rows:
            parts[modality] = Samples(z, subject[rows], store.patients[rows])
    if space.reader is not None:
        said = {(int(subject[row]), text): row for row in space.rows if (text := store.items["text"][row])}
        if said:
            rows = list(said.values())
            z = space.texts([text for _, text in said])
            parts[TEXT] = Samples(z, subject[rows], store.patients[rows])
    return parts


def _write_joint(path: Path, parts: dict[str, Samples]) -> None:
    """Vectors, modality and subject of each sample, for the report's picture; subjects are numbers, no ids."""
    kind = np.concatenate([np.full(len(part.z), name) for name, part in parts.items()])
    z = np.concatenate([part.z for part in parts.values()]).astype(np.float32)
    who = np.concatenate([part.subject for part in parts.values()])
    with files.atomic(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, z=z, modality=kind, subject=np.unique(who, return_inverse=True)[1])


def _tell_retrieval(table: Table) -> None:
    print(f"{'query → gallery':<24}{'queries':>8}" + "".join(f"{f'R@{k} (chance)':>22}" for k in KS) + "   median rank")
    for one in table["directions"]:
        name = f"{one['query']} → {one['gallery']}"
        if not one["queries"]:
            print(f"{name:<24}{0:>8}  no pair")
            continue
        cells = "".join(f"{_percent(one[f'r@{k}'], 22)}" for k in KS)
        rank = one["median_rank"]
        print(f"{name:<24}{one['queries']:>8}{cells}   {rank['value']:.1f} of {one['candidates']:.0f}")
    for pair in table["joint"]["pairs"]:
        cosine = f", cosine of true pairs {pair['pair_cosine']:.2f}" if "pair_cosine" in pair else ""
        print(f"{' and '.join(pair['modalities'])}: modality gap {pair['gap']:.2f}{cosine}")
    if table["joint"]["separability"] is not None:
        chance = table["joint"]["separability_chance"]
        print(f"a linear classifier tells modalities apart: {table['joint']['separability']:.2f} (chance {chance:.2f})")


def _percent(score: Table, width: int) -> str:
    low, high = score["interval"]
    ends = f" [{100 * low:.0f}–{100 * high:.0f}]" if low is not None and high is not None else ""
    return f"{100 * score['value']:.0f} %{ends} ({100 * score['chance']:.0f})".rjust(width)


# Zero-shot -----------------------------------------------------------------------------------------------------------


def _zeroshot(space: Space, options: Evaluate, out: Path, about: Table) -> Path:
    if space.reader is None:
        raise UserError("the run has no text tower", options.run, "pre-train with --text tokens")
    column = f"{LABEL}{options.target}"
    if options.target is None or column not in space.store.items.columns:
        known = label_names(space.store.items)
        fix = f"--target takes one of {', '.join(known) or '(no label in this data)'}"
        raise UserError(f"no label '{options.target}'", options.data, fix)
    values = space.store.items[column].to_list()
    present = sorted({values[row] for row in space.rows if values[row] is not None})
    prompts = _prompts(options, present)
    vectors = class_vectors([space.texts(said) for said in prompts.values()])
    names, found = list(prompts), {}
    for modality in space.method.kinds.names:
        z, rows = space.images(modality)
        kept = [i for i, row in enumerate(rows) if values[row] in prompts]
        if kept:
            truth = np.array([names.index(values[rows[i]]) for i in kept])
            patient = space.store.patients[[rows[i] for i in kept]]
            tau = float(space.method.temperature(1.0))
            found[modality] = scores(probabilities(z[kept], vectors, tau), truth, patient, options.seed)
    if not found:
        raise UserError(f"no test scan has one of the classes {', '.join(names)}", options.data, "correct --prompts")
    files.write_json(out / "zeroshot.json", about | {"target": options.target, "prompts": prompts, "modalities": found})
    for modality, score in found.items():
        auc, accuracy = score["auc"], score["balanced_accuracy"]
        value = "undefined" if auc["value"] is None else f"{auc['value']:.3f} (chance 0.5)"
        words = f"balanced accuracy {accuracy['value']:.3f} (chance {accuracy['chance']:.2f})"
        print(f"{modality}: {score['scans']} scans of {score['patients']} patients, AUC {value}, {words}")
    return out / "zeroshot.json"


def _prompts(options: Evaluate, present: list[str]) -> dict[str, list[str]]:
    """Texts of each class: those of the file, or the names of the classes in a few templates."""
    if options.prompts is None:
        return prompts_of(present)
    table = files.read_toml(options.prompts)
    bad = [k for k, v in table.items() if not (isinstance(v, list) and v and all(isinstance(t, str) and t for t in v))]
    if bad or len(table) < 2:
        what = f"class '{bad[0]}' is no list of texts" if bad else "fewer than two classes"
        raise UserError(what, options.prompts, 'write a line a class: "liver" = ["a lesion in the liver", …]')
    return table
