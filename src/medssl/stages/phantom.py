"""`medssl phantom`: write a set of generated patients as a user's folder would look."""

from dataclasses import dataclass
from pathlib import Path

from medssl.data.jobs import each
from medssl.data.phantom import MODALITIES, names_of, write_patient, write_table
from medssl.data.progress import progress
from medssl.errors import UserError, raise_all
from medssl.stages.limits import out_of_range
from medssl.stages.options.data import Phantom

SIZES = (32, 512)


@dataclass(frozen=True)
class Job:
    """One patient to write; plain values, so that it travels to a process."""

    patient: int
    options: Phantom

    def __call__(self) -> list[dict[str, str]]:
        o = self.options
        return write_patient(
            o.out, o.seed, self.patient, o.dims, o.size, _modalities(o), o.misregister_mm, o.missing
        )  # fmt: skip


def run(options: Phantom) -> Path:
    """Write OUT/images, OUT/masks and OUT/labels.csv; returns OUT. The same options give the same bytes."""
    _check(options)
    jobs = [Job(patient, options) for patient in range(options.patients)]
    rows = []
    # A few small patients are made sooner here than processes start.
    workers = 1 if options.patients * options.size**3 < 16 * 64**3 else 0
    with progress("phantoms", len(jobs)) as advance:
        for _, made in each(Job.__call__, jobs, workers=workers):
            if isinstance(made, Exception):
                raise made
            rows += made
            advance()
    write_table(options.out, rows)
    print(f"{len(rows)} scans of {options.patients} patients in {options.out}")
    return options.out


def _modalities(options: Phantom) -> tuple[str, ...]:
    return tuple(dict.fromkeys(options.modalities)) or MODALITIES[options.dims]


def _check(options: Phantom) -> None:
    out = options.out
    errors = out_of_range(options)
    known = MODALITIES[options.dims]
    unknown = [name for name in options.modalities if name not in known]
    if unknown:
        fix = f"choose among {', '.join(known)}"
        errors.append(UserError(f"--modalities {' '.join(unknown)} in {options.dims}D", fix=fix))
    if options.patients < 1:
        errors.append(UserError(f"--patients is {options.patients}", fix="give 1 or more"))
    if not SIZES[0] <= options.size <= SIZES[1]:
        errors.append(UserError(f"--size is {options.size}", fix=f"give {SIZES[0]} to {SIZES[1]}"))
    if out.exists() and not out.is_dir():
        errors.append(UserError("not a folder", out, "choose another folder"))
    raise_all(errors)
    about = (options.dims, _modalities(options), options.missing)
    mine = {name for p in range(options.patients) for name in names_of(options.seed, p, *about)}
    folders = [out / "images", out / "masks"]
    inside = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    # A labels.csv without images is somebody's own: it must not be written over.
    if inside - {"images", "masks", "labels.csv"} or inside == {"labels.csv"}:
        raise UserError("the folder holds other files", out, "choose an empty folder")
    others = [file for folder in folders if folder.is_dir() for file in folder.iterdir() if file.name not in mine]
    if any(not file.name.startswith(".") for file in others):
        raise UserError("the folder holds other scans", out, "choose an empty folder")
