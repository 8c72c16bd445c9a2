"""Walk the folder of scans and read headers: what could be a scan, and what could not."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medssl.data.item import Fault
from medssl.data.nifti import read_header
from medssl.data.readers import reader_of
from medssl.errors import UserError

HEADERS_A_JOB = 64
MAGIC = {
    b"\x89PNG\r\n\x1a\n": "a PNG",
    b"\xff\xd8\xff": "a JPEG",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"%PDF": "a PDF",
    b"\x89HDF": "an HDF5 file",
}
KNOWN = "NIfTI, NRRD, MHA, DICOM, PNG, JPEG, TIFF, MedMNIST .npz"


@dataclass(frozen=True)
class Found:
    """A file: its path relative to the scans, and what tells whether it has changed."""

    path: str
    size: int
    modified: int

    @property
    def key(self) -> str:
        """Equal for an unchanged file."""
        return f"{self.path}|{self.size}|{self.modified}"


def walk(scans: Path, without: Sequence[Path] = ()) -> tuple[list[Found], list[Fault]]:
    """All files under ``scans`` in the order of their names; hidden ones and folders that cannot be read as faults.

    Links are followed, each folder once. ``without`` are files and folders that are not scans (the output).
    """
    left_out = {os.path.realpath(path) for path in without}
    found: list[Found] = []
    faults: list[Fault] = []
    seen: set[str] = set()
    todo = [(str(scans), "")]
    while todo:
        folder, name = todo.pop()
        real = os.path.realpath(folder)
        if real in seen or real in left_out:
            continue
        seen.add(real)
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            faults.append(Fault(name or ".", f"folder not readable: {error.strerror}", "allow reading it (chmod +rx)"))
            continue
        for entry in entries:
            path = f"{name}/{entry.name}" if name else entry.name
            if not _is_utf8(entry.name):
                shown = path.encode(errors="backslashreplace").decode()
                faults.append(Fault(shown, "a name that is not UTF-8, so not read", "rename it"))
            elif entry.name.startswith(".") or entry.name == "__MACOSX":
                faults.append(Fault(path, "hidden, so not read", "rename it if it is a scan"))
            elif _is_folder(entry):
                todo.append((entry.path, path))
            # Only a link lies elsewhere than its name says; asking for each of 100 000 files would be half the walk.
            elif (os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{entry.name}") not in left_out:
                _add(entry, path, found, faults)
    return sorted(found, key=lambda f: f.path), faults


def _is_utf8(name: str) -> bool:
    """False for bytes of another encoding, which Python keeps as surrogates that no table can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say; ``_add`` tells what is wrong with it
        return False


def _add(entry: os.DirEntry, path: str, found: list[Found], faults: list[Fault]) -> None:
    try:
        about = entry.stat()
    except OSError as error:
        faults.append(Fault(path, f"not readable: {error.strerror}", "mend the link, or remove it"))
        return
    if not entry.is_file():
        faults.append(Fault(path, "not a plain file", "nothing to do"))
    else:
        found.append(Found(path, about.st_size, about.st_mtime_ns))


def chunks(paths: Sequence[str], scans: Path) -> list[tuple[str, list[str]]]:
    """Jobs for ``read_headers``: headers take microseconds to milliseconds, too little for a job each."""
    return [(str(scans), list(paths[i : i + HEADERS_A_JOB])) for i in range(0, len(paths), HEADERS_A_JOB)]


def read_headers(job: tuple[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Per file, plain values: "items", DICOM "slices", or its "fault" [what, fix]."""
    root, paths = Path(job[0]), job[1]
    return {path: _header(root, path) for path in paths}


def _header(root: Path, path: str) -> dict[str, Any]:
    try:
        return _read(root, path)
    except UserError as error:
        empty = (root / path).stat().st_size == 0
        return {"fault": ["an empty file", "copy it again"] if empty else [error.what, error.fix or ""]}
    except PermissionError:
        return {"fault": ["no permission to read", "allow reading it (chmod +r)"]}
    except (OSError, MemoryError) as error:
        return {"fault": [f"not readable: {error}", "check the disk, or copy the file again"]}
    except Exception as error:  # a library's error about odd bytes must not stop the other files
        return {"fault": [f"not readable: {type(error).__name__}: {error}", "export it again"]}


def _read(root: Path, path: str) -> dict[str, Any]:
    kind = reader_of(path)
    if kind == "nifti":  # first and without a Path: a folder may hold 100 000 of them
        read_header(f"{root}/{path}")
        return {"items": [{"reader": kind, "files": [path]}]}
    full = root / path
    kind = kind or _by_content(full)
    if kind == "dicom":
        from medssl.data.dicom.headers import read_slices

        _refuse_other_formats(full)
        return {"slices": [asdict(one) for one in read_slices(full, path)]}
    if kind == "npz":
        from medssl.data.npz import npz_items

        return {"items": [asdict(item) for item in npz_items(full, path)]}
    if kind == "itk":
        from medssl.data.itk import check_grid

        check_grid(full)
    else:
        from medssl.data.pictures import check_picture

        check_picture(full)
    return {"items": [{"reader": kind, "files": [path]}]}


def _by_content(path: Path) -> str:
    """DICOM often has no ending, or an odd one; of other files, tell what they are."""
    if _is_part10(path):
        return "dicom"
    with path.open("rb") as handle:
        head = handle.read(8)
    # Without preamble a data set begins with group 2 or 8, little or big endian.
    if head[:4] in (
        b"\x08\x00\x00\x00",
        b"\x08\x00\x05\x00",
        b"\x08\x00\x08\x00",
        b"\x08\x00\x01\x00",
        b"\x02\x00\x00\x00",
    ):
        return "dicom"
    if path.suffix.lower() == ".img" and path.with_suffix(".hdr").exists():
        raise UserError(f"the voxels of {path.with_suffix('.hdr').name}", fix="nothing to do")
    if path.suffix.lower() in (".raw", ".zraw") and any(path.with_suffix(e).exists() for e in (".mhd", ".nhdr")):
        raise UserError("the voxels of the header beside it", fix="nothing to do")
    what = next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")
    archive = "archive" in what
    fix = "unpack it" if archive else f"nothing to do, or convert it to one of {KNOWN}"
    raise UserError(f"{what or 'no scan'}: not a format that medssl reads", fix=fix)


def _is_part10(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def _refuse_other_formats(path: Path) -> None:
    with path.open("rb") as handle:
        head = handle.read(512)
    what = next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")
    if not what and head[128:132] != b"DICM" and all(9 <= byte < 127 for byte in head):
        what = "text"
    if what:
        raise UserError(f"{what}, named as DICOM", fix="rename it to what it is, or replace it by the image")
