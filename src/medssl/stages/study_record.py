"""study.toml: what a study is, so that it can be extended but never silently mixed with another one."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from medssl import files
from medssl.data.remote import remote
from medssl.data.store import Store
from medssl.engine.machine import versions
from medssl.engine.record import FREE, value_in
from medssl.errors import UserError
from medssl.loading import find_weights, read_card, run_of
from medssl.report.facts import digest
from medssl.report.formats import StudyRecord, table
from medssl.stages.arm import Arm
from medssl.stages.recipe import Recipe
from medssl.stages.seen import read_seen, unseen_test

NAME = "study.toml"
# Where or how fast something runs, and what is told from finished runs: other values make no other study.
_FREE = FREE | {"jobs", "cluster", "device", "margin", "data", "out", "init", "threads", "precision"}
_FREE |= {"checkpoint_activations", "compile"}


def settle(recipe: Recipe, store: Store) -> None:
    """Write study.toml; refuse a command that would mix another study into the folder, listing what differs."""
    path, now = recipe.out / NAME, _record(recipe, store)
    if path.exists():
        before = table(path, StudyRecord)
        files.check_format(before, path)
        found = [*_shrunk(before, now), *_changed(before, now)]
        if found:
            fix = "repeat the old values, or choose another --out; seeds, label counts and arms may be added"
            raise UserError(f"the study was begun with other options: {'; '.join(found)}", recipe.out, fix)
    files.write_toml(path, now)


def _record(recipe: Recipe, store: Store) -> dict[str, Any]:
    names = ("task", "target", "n_labels", "seeds", "margin", "transductive", "seed")
    options = {name: getattr(recipe, name) for name in names}
    steps = next((arm.options.steps for arm in recipe.arms if arm.options), None)
    options |= {"arms": [arm.name for arm in recipe.arms], "pretrain_steps": steps}
    options |= {"finetune_steps": recipe.finetune.steps}
    path = str(recipe.data if remote(recipe.data) else recipe.data.resolve())
    return {
        "format": files.FORMAT,
        "options": {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()},
        "pretrain": {arm.name: _arm(arm) for arm in recipe.arms},
        "pretrainings": {arm.name: arm.pretrainings for arm in recipe.arms},
        "finetune": flat(recipe.finetune),
        "data": {
            "path": path,
            "hash": store.hash,
            "split": _split_hash(store),
        },
        "versions": versions(),
    }


def _arm(arm: Arm) -> dict[str, Any]:
    if arm.run is not None:
        return {"weights": hashlib.blake2b(find_weights(arm.run).read_bytes(), digest_size=8).hexdigest()}
    return {} if arm.options is None else {"method": arm.method} | flat(arm.options) | plain(arm.settings)


def flat(options: Any) -> dict[str, Any]:
    """Options and their groups as one table, without what may change between two calls."""
    table: dict[str, Any] = {}
    for f in fields(options):
        value = getattr(options, f.name)
        table |= flat(value) if is_dataclass(value) else {f.name: value}
    left_out = _FREE | {"n_labels", "subset_seed"}
    return {k: v for k, v in plain(table).items() if k not in left_out and v is not None}


def plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """Lists for tuples, as TOML and JSON give them back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in table.items()}


def _split_hash(store: Store) -> str:
    items = store.items
    return digest(f"{split} {image}" for split, image in zip(items["split"], items["hash"], strict=True))


def _shrunk(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Seeds, label counts and arms that the study has and the command leaves out."""
    found = []
    for arm, times in before.get("pretrainings", {}).items():
        if times > now["pretrainings"].get(arm, times):
            found.append(f"arm {arm} pretrain_seeds: {times} → {now['pretrainings'][arm]}")
    before, now = before["options"], now["options"]
    if now["seeds"] < before["seeds"]:
        found.append(f"seeds: {before['seeds']} → {now['seeds']}")
    for name in ("n_labels", "arms"):
        if not set(before[name]) <= set(now[name]):
            found.append(f"{name}: {_words(before[name])} → {_words(now[name])}")
    return found


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    free = {"seeds", "n_labels", "arms", "pretrain_steps", "finetune_steps", "margin"}
    pairs = [("", {k: v for k, v in t["options"].items() if k not in free}) for t in (before, now)]
    tables = [(pairs[0], pairs[1])]
    tables += [(("fine-tuning ", before["finetune"]), ("", now["finetune"]))]
    both = [arm for arm in before["pretrain"] if arm in now["pretrain"]]
    tables += [((f"arm {arm} ", before["pretrain"][arm]), ("", now["pretrain"][arm])) for arm in both]
    tables += [(("data ", _without(before.get("data", {}), "path")), ("", _without(now["data"], "path")))]
    found = []
    for (label, old), (_, new) in tables:
        for key in sorted({*old, *new}):
            was, now = value_in(old, key), value_in(new, key)
            if was != now:
                found.append(f"{label}{key}: {_words(was)} → {_words(now)}")
    return found


def _without(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in table.items() if k != key}


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


# Leakage -------------------------------------------------------------------------------------------------------------


def leak_checks(recipe: Recipe, inits: Collection[str], store: Store) -> list[dict[str, Any]]:
    """For every pre-trained arm: has its pre-training seen the images of test patients?"""
    checks = []
    for arm in recipe.arms:
        if arm.name not in inits or arm.scratch:
            continue
        if truth := _truth(arm):
            detail = f"{truth}: of all training patients, however few labels are compared"
            checks.append({"check": f"Truth in the pre-training of {arm.name}", "ok": False, "detail": detail})
        ok, detail = _seen(arm, recipe, store)
        checks.append({"check": f"Test images in the pre-training of {arm.name}", "ok": ok, "detail": detail})
    return checks


def _truth(arm: Arm) -> str:
    """Options by which labels or masks had a part in the pre-training of an arm; empty for none."""
    if arm.run is None:
        told, patience = arm.settings, arm.options and arm.options.patience
    else:
        card = read_card(find_weights(arm.run))
        told, patience = card.get("method_config", {}), card.get("patience", {}).get("probes")
    positives = told.get("positives", "subject")
    said = [f"positives={positives}"] if positives != "subject" else []
    return ", ".join(said + ([f"patience={patience}"] if patience else []))


def _seen(arm: Arm, recipe: Recipe, store: Store) -> tuple[bool | None, str]:
    if arm.run is None:  # pre-trained here, on the rows of this very split
        return (False, "all of them, transductive") if recipe.transductive else (True, "none, by the split")
    weights = find_weights(arm.run)
    folder = run_of(weights)
    return unseen_test(read_seen(folder) if folder else None, read_card(weights), store)
