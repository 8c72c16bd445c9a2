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

    def row(self, item: Item, table: Table | None) -> dict[str, Any]:
        """All columns that need no voxels; ``labels`` apart. Ids of the item are as wanted already."""
        told = self._told(item, table)
        labels = {k: v for k, v in told.items() if k not in COLUMNS and k != "#"}
        patient, warnings = self._patient(item, told)
        modality = told.get("modality") or item.modality or self.modality or ""
        modality = modality.strip().upper()
        return item.row() | {
            "item": hashed("/".join(map(str, item.place)), self.salt),
            "patient": patient,
            "study": self._id(told["study_id"]) if "study_id" in told else item.study,
            "modality": OTHER_NAMES.get(modality, modality),
            "mask_path": told.get("mask_path"),
            "text": told.get("text"),
            "labels": item.labels | labels,
            "given": told.get("split"),
            "kept": item.split,
            "warnings": [*item.warnings, *warnings],
        }

    def _told(self, item: Item, table: Table | None) -> dict[str, str]:
        if table is None:
            return {}
        told = table.row(item.files, "")
        return told or {self._id(name): row for name, row in table.by_patient.items()}.get(item.patient, {})

    def _patient(self, item: Item, told: dict[str, str]) -> tuple[str, list[str]]:
        if told.get("patient_id"):
            return self._id(told["patient_id"]), []
        if self.patient_regex:
            found = re.search(self.patient_regex, item.path)
            if found:
                return self._id(found[1] if found.re.groups and found[1] else found[0]), []
        if item.patient:
            return item.patient, []
        if item.study:
            return item.study, ["no patient id: its study is taken as a patient"]
        return self._id(f"{item.path}/{item.member}" if item.member is not None else item.path), [
            "no patient id: taken as its own patient"
        ]

    def _id(self, text: str) -> str:
        return text if self.keep_ids else hashed(text, self.salt)


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
