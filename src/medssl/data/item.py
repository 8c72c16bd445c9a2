"""What a header tells about one scan, before its voxels are read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from medssl.errors import UserError


@dataclass
class Item:
    """One series or image. Paths are relative to the folder of scans, with forward slashes.

    ``files`` are in slice order; ``frames`` (same length, or one file for all) are set for multi-frame DICOM.
    ``member`` is the row in an .npz. Ids are as in the header, or empty.
    """

    reader: str
    files: list[str]
    frames: list[int] | None = None
    member: int | None = None
    patient: str = ""
    study: str = ""
    series: str = ""
    modality: str = ""
    split: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The file a person would name: the only or the first one."""
        return self.files[0]

    @property
    def place(self) -> tuple[str, int, int]:
        """Where it comes in the index; the order depends on names only, never on a salt or on who read it first."""
        return self.path, self.member or 0, self.frames[0] if self.frames else 0

    def row(self) -> dict[str, Any]:
        """As a row, with the names of the index's columns."""
        return asdict(self) | {"path": self.path}


def place_of(row: Mapping[str, Any]) -> str:
    """What a person would call the scan of a row: its file, with the number of the row in an .npz."""
    return row["path"] if row["member"] is None else f"{row['path']}[{row['member']}]"


@dataclass(frozen=True)
class Fault:
    """A row of problems.csv: something in the input that is not used."""

    file: str
    what: str
    how_to_fix: str = ""

    @classmethod
    def of(cls, error: UserError, file: str) -> "Fault":
        """A reader's error about ``file``."""
        return cls(file, " ".join(error.what.split()), error.fix or "")
