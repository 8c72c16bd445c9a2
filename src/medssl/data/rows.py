"""Rows of the index: what headers, the table and the options say of each item, put together."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from medssl.data.ids import hashed
from medssl.data.item import Item
from medssl.data.table import COLUMNS, Table

OTHER_NAMES = {"MRI": "MR", "PET": "PT", "XR": "DX", "X-RAY": "DX", "XRAY": "DX", "CXR": "DX", "ULTRASOUND": "US"}
LIKELY_TARGETS = ("label", "labels", "class", "target", "diagnosis")
MOST_CLASSES = 20


@dataclass(frozen=True)
class Naming:
    """Who an item belongs to, and what it is where its header is silent."""

    salt: bytes
    keep_ids: bool = False
    patient_regex: str | None = None
    modality: str | None = None

    def rows(self, items: list[Item], table: Table | None) -> list[dict[str, Any]]:
        """Rows of all columns that need no voxels. Ids of the items are as wanted (hashed or not) already."""
        by_patient = {self.identify(name): row for name, row in table.by_patient.items()} if table else {}
        return [self._row(item, table.row(item.files) if table else {}, by_patient) for item in items]

    def _row(self, item: Item, told: dict[str, str], by_patient: dict[str, dict[str, str]]) -> dict[str, Any]:
        patient, warnings = self._patient(item, told)
        told = told or by_patient.get(patient, {})
        modality = (told.get("modality") or item.modality or self.modality or "").strip().upper()
        return item.row() | {
            "item": hashed("/".join(map(str, item.place)), self.salt),
            "patient": patient,
            "study": self.identify(told["study_id"]) if "study_id" in told else item.study,
            "modality": _known_name(modality),
            "mask_path": told.get("mask_path"),
            "text": told.get("text"),
            "labels": item.labels | {k: v for k, v in told.items() if k not in COLUMNS and k != "#"},
            "given": told.get("split"),
            "kept": item.split,
            "warnings": [*item.warnings, *warnings],
        }

    def _patient(self, item: Item, told: dict[str, str]) -> tuple[str, list[str]]:
        if told.get("patient_id"):
            return self.identify(told["patient_id"]), []
        found = re.search(self.patient_regex, item.path) if self.patient_regex else None
        if found:
            return self.identify((found[1] if found.re.groups else None) or found[0]), []
        if item.patient:
            return item.patient, []
        if item.study:
            return item.study, ["no patient id: its study is taken as a patient"]
        own = item.path if item.member is None else f"{item.path}[{item.member}]"
        return self.identify(own), ["no patient id: taken as its own patient"]

    def identify(self, text: str) -> str:
        """An id as it stands in the index."""
        return text if self.keep_ids else hashed(text, self.salt)


def _known_name(modality: str) -> str:
    """DICOM's word for a modality, and what a person adds to it: MRI-T1 becomes MR-T1."""
    word, hyphen, rest = modality.partition("-")
    return OTHER_NAMES.get(modality) or OTHER_NAMES.get(word, word) + hyphen + rest


def stratum_column(rows: list[dict[str, Any]], wanted: str | None) -> str | None:
    """The label that is spread evenly over the splits: the wanted one, or the first with few classes."""
    if wanted is not None:
        return wanted
    names = dict.fromkeys(name for row in rows for name in row["labels"])
    for name in sorted(names, key=lambda n: n.lower() not in LIKELY_TARGETS):
        classes = Counter(row["labels"].get(name) for row in rows)
        classes.pop(None, None)
        if 2 <= len(classes) <= MOST_CLASSES and min(classes.values()) >= 3:
            return name
    return None
