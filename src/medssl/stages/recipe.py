"""What a study will do: the command line over the recipe over the defaults, checked before anything runs."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_type_hints

from medssl.config import ModelConfig, ModelOptions, OptimOptions, to_table
from medssl.errors import UserError, raise_all
from medssl.evaluate.verdict import BASELINE
from medssl.loading import find_weights, read_card
from medssl.methods import METHODS, resolve
from medssl.stages.arm import Arm, Run, first_seed
from medssl.stages.configure import optim_of
from medssl.stages.defaults import OPEN
from medssl.stages.judge import read_pairs
from medssl.stages.limits import out_of_range
from medssl.stages.options.study import DEFAULTS, Study
from medssl.stages.options.train import Finetune, LoopOptions, MethodOptim, Pretrain
from medssl.stages.recipe_check import read, wrong_keys, wrong_values
from medssl.value_types import fits, wrong_type

TABLES = ("pretrain", "finetune")
# Said once for all arms, at the top: arms that differ in these would not be compared for their pre-training.
SHARED = {"encoder", "width", "norm", "device", "seed", "transductive", "data", "out", "task", "target"}
# Options of a study that are keys of an arm, too.
_COUNTS = {"pretrain_steps": "steps", "pretrain_seeds": "pretrain_seeds", "batch": "batch"}
_BY_STUDY = SHARED | {"n_labels", "subset_seed", "init", "encoder_seed", "model", "optim", "loop", "predictions"}
_BY_STUDY |= {"explain"}  # which trains nothing


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A study with every question answered."""

    data: Path
    out: Path
    task: Literal["classify", "segment"]
    target: str | None
    n_labels: tuple[int | Literal["all"], ...]
    seeds: int
    margin: float
    transductive: bool
    jobs: int
    cluster: str | None
    device: str
    seed: int
    known: tuple[Path, ...]
    """Folders with the results of earlier studies."""
    compare: tuple[tuple[str, str], ...]
    """Pairs of arms to compare beside each with scratch."""
    arms: tuple[Arm, ...]
    finetune: Finetune
    """Of every run; labels, seed and where it begins are filled in by `job`."""

    def job(self, n_labels: int | None, seed: int, init: str, out: Path, pretraining: int = 1) -> Finetune:
        """A fine-tuning on subset ``seed``, from which all is drawn; but from scratch the encoder begins with the first
        weights of the arms' pre-training of that number."""
        model, first = replace(self.finetune.model, seed=seed), self.encoder_seed(pretraining)
        job = replace(self.finetune, out=out, init=init, n_labels=n_labels, subset_seed=seed, model=model)
        return replace(job, encoder_seed=first) if init == BASELINE else job

    def encoder_seed(self, pretraining: int) -> int:
        """The seed that the arms' pre-training of that number draws its first weights from."""
        return first_seed(self.seed, pretraining)

    @property
    def counts(self) -> list[int | None]:
        """Numbers of labelled patients, rising; None, which is all of them, comes last."""
        return [*sorted(n for n in self.n_labels if n != "all"), *([None] if "all" in self.n_labels else [])]

    def runs(self) -> Iterator[Run]:
        """Every fine-tuning: each pre-training of an arm with each seed.

        Seeds go first: an interrupted study compares all arms.
        """
        for seed, n, arm in product(range(self.seeds), self.counts, self.arms):
            for k in range(1, arm.pretrainings + 1):
                folder = self.out / "runs" / f"{arm.start(k)}-n{'all' if n is None else n}-s{seed}"
                yield Run(arm=arm, pretraining=k, n_labels=n, seed=seed, folder=folder)


def read_recipe(options: Study) -> Recipe:
    """Everything a study needs; all that is wrong with it is told at once."""
    where = options.config
    table = read(where) if where else {}
    given = _given(options)
    top = DEFAULTS | _top(table) | given
    pretrain, finetune, named = _tables(table, top, given)
    if named and "arms" not in table and "arms" not in given:
        top["arms"] = (BASELINE, *named)
    errors = [*wrong_keys(table, where, TABLES), *wrong_values(top, given)]
    if "data" not in top:
        errors.append(UserError("no data named", "--data", "give the folder that `medssl prepare` filled"))
    raise_all(errors)  # what follows relies on these
    arms, wrong = _arms(top, pretrain, named, where, given="arms" in given)
    tuned, more = _filled(Finetune, finetune, top, _place(where, "finetune"), task=top["task"], target=top["target"])
    raise_all([*wrong, *more])
    words, names = top["compare"], [arm.name for arm in arms]
    if "arms" in given and "compare" not in given:  # of a part of the recipe's arms, a part of its pairs
        words = [word for word in words if set(word.split(":")) <= set(names)]
    values = {f.name: top[f.name] for f in fields(Recipe) if f.name in top and f.name not in ("arms", "compare")}
    return Recipe(**values, out=options.out, arms=arms, finetune=tuned, compare=tuple(read_pairs(words, names)))


def _given(options: Study) -> dict[str, Any]:
    """What the command line says."""
    given = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("out", "config")}
    return {
        name: value for name, value in given.items() if value is not None and (name, value) != ("transductive", False)
    }


def _top(table: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's own keys; relative folders are meant from where the command runs, like on the command line."""
    top = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items() if k not in TABLES}
    if "data" in top:
        top["data"] = Path(str(top["data"])).expanduser()
    if isinstance(top.get("known"), tuple):
        top["known"] = tuple(Path(str(folder)).expanduser() for folder in top["known"])
    return top


def _tables(
    table: Mapping[str, Any], top: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
    """[pretrain], [finetune] and the tables [pretrain.ARM]; counts that the command line names win in all of them."""
    pretrain, finetune = (dict(table[name]) if isinstance(table.get(name), Mapping) else {} for name in TABLES)
    named = {name: dict(pretrain.pop(name)) for name in list(pretrain) if isinstance(pretrain[name], Mapping)}
    for part, steps in ((pretrain, "pretrain_steps"), (finetune, "finetune_steps")):
        wanted = top[steps] if steps in given else part.get("steps", top[steps])
        part |= {} if wanted is None else {"steps": wanted}  # nobody says: chosen when the scans are known
        part |= {"batch": top["batch"]} if "batch" in given else {}
    said = {key for option, key in _COUNTS.items() if option in given}
    named = {name: {k: v for k, v in own.items() if k not in said} for name, own in named.items()}
    return pretrain, finetune, named


# Arms ----------------------------------------------------------------------------------------------------------------


def _arms(
    top: Mapping[str, Any], shared: Mapping[str, Any], named: Mapping[str, Mapping], where: Path | None, *, given: bool
) -> tuple[tuple[Arm, ...], list[UserError]]:
    """Every arm that is named, and what is wrong; ``given``: the command line names them, not the recipe."""
    arms, errors, words = [], [], list(top["arms"])
    for word in words:
        name, equals, run = word.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            errors.append(UserError(f"'{name}' cannot name an arm", "--arms", "use letters, digits, - and _"))
        elif equals:
            arms.append(Arm(name=name, run=Path(run).expanduser()))
            errors += _unreadable(arms[-1])
        elif name == BASELINE:
            arms.append(Arm(name=name))
        else:
            arm, wrong = _pretrained(name, top, shared, named.get(name), where)
            errors += wrong
            arms += [arm] if arm else []
    names = [arm.start(k) for arm in arms for k in range(1, arm.pretrainings + 1)]
    errors += [
        UserError(f"arm '{n}' is named twice", "--arms", "name it once") for n in set(names) if names.count(n) > 1
    ]
    if BASELINE not in [word.partition("=")[0] for word in words]:
        errors.append(UserError("no arm 'scratch'", "--arms", "add it: the others are compared to it"))
    elif len(words) < 2:
        errors.append(UserError("nothing to compare to scratch", "--arms", "add a method, or NAME=RUN"))
    # A command line may take a part of the recipe; a recipe that contradicts itself is a slip.
    unused = [name for name in named if name not in names and not given]
    errors += [UserError(f"[pretrain.{n}] is no arm of the study", where, f"add {n} to arms") for n in unused]
    times = max([arm.pretrainings for arm in arms], default=1)
    return tuple(replace(arm, pretrainings=times) if arm.name == BASELINE else arm for arm in arms), errors


def _pretrained(
    name: str, top: Mapping[str, Any], shared: Mapping[str, Any], own: Mapping[str, Any] | None, where: Path | None
) -> tuple[Arm | None, list[UserError]]:
    own = dict(own or {})
    method, times = own.pop("method", name), own.pop("pretrain_seeds", top["pretrain_seeds"])
    if method not in METHODS:
        near = difflib.get_close_matches(str(method), METHODS, n=1)
        fix = f"did you mean '{near[0]}'?" if near else f"choose scratch, {', '.join(METHODS)}, or NAME=RUN"
        return None, [UserError(f"no method '{method}'", f"arm {name}", fix)]
    kind = resolve(method)[0]
    words = {f.name for f in fields(kind)} - {f.name for f in fields(ModelConfig)}
    place = _place(where, "pretrain")
    mine = {k: v for k, v in (dict(shared) | own).items() if k in words}
    rest = {k: v for k, v in (dict(shared) | own).items() if k not in words}
    options, errors = _filled(Pretrain, rest, top, place, words, method=method, transductive=top["transductive"])
    if options is not None:  # settled here, so that the record of the study says what its arms were trained by
        options = replace(options, optim=MethodOptim(**to_table(optim_of(options))))
    hints = get_type_hints(kind)
    errors += [wrong_type(k, v, hints[k], place) for k, v in mine.items() if not fits(v, hints[k])]
    if not fits(times, int) or times < 1:
        errors.append(UserError(f"pretrain_seeds is {times!r}", _place(where, f"pretrain.{name}"), "give 1 or more"))
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in mine.items()}
    arm = None if errors else Arm(name=name, method=method, options=options, settings=settings, pretrainings=times)
    return arm, errors


def _unreadable(arm: Arm) -> list[UserError]:
    assert arm.run is not None
    try:
        read_card(find_weights(arm.run))
    except UserError as error:
        return [UserError(f"arm '{arm.name}': {error.what}", error.where, error.fix)]
    return []


# Options of the stages -----------------------------------------------------------------------------------------------


def _filled(
    kind: type, table: Mapping[str, Any], top: Mapping[str, Any], place: str, others: Collection[str] = (), **own: Any
) -> tuple[Any, list[UserError]]:
    """``kind`` (Pretrain or Finetune) from a flat table: each key goes to the group of options that knows it."""
    groups = (ModelOptions, MethodOptim if kind is Pretrain else OptimOptions, LoopOptions)
    hints = {name: hint for group in (kind, *groups) for name, hint in get_type_hints(group).items()}
    known = set(hints) - _BY_STUDY - {"method"} - set(own)
    errors = []
    for key, value in table.items():
        if key in SHARED:
            errors.append(UserError(f"key '{key}' must hold for all arms", place, "move it to the top of the recipe"))
        elif key not in known:
            errors.append(UserError(f"unknown key '{key}'", place, f"known: {', '.join(sorted(known.union(others)))}"))
        elif not fits(value, hints[key]):
            errors.append(wrong_type(key, value, hints[key], place))
    if errors:
        return None, errors
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    values = {k: top[k] for k in ("encoder", "width", "norm", "seed", "device")} | values
    if top["batch"] is not None:
        values.setdefault("batch", top["batch"])
    usual: dict[str, Any] = {"batch": 0}  # chosen when the scans are known
    if kind is Finetune:  # where its own defaults differ from those of pre-training, they hold here too
        own_way = Finetune(task=top["task"], data=Path(), out=Path())
        usual = {name: getattr(own_way.loop, name) for name in ("batch", "workers")}
        usual |= {name: getattr(own_way.optim, name) for name in ("lr", "clip")}
    values = usual | values
    model, optim, loop = (group(**_part(values, group)) for group in groups)
    if wrong := out_of_range(optim, loop, open_to=OPEN if kind is Pretrain else ()):
        return None, [UserError(error.what, place, error.fix) for error in wrong]
    beside = {"data": top["data"], "out": Path(), "model": model, "optim": optim, "loop": loop}
    return kind(**beside | _part(values, kind) | own), []


def _part(values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {k: v for k, v in values.items() if k in names}


def _place(where: Path | None, name: str) -> str:
    return f"{where} [{name}]" if where else f"[{name}]"
