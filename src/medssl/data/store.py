"""The prepared scans: which there are, their voxels by box, and the way back to the files they came from."""

import hashlib
import json
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.data import arrays
from medssl.data.grid import Grid
from medssl.data.plan import Plan
from medssl.data.remote import remote
from medssl.errors import UserError
from medssl.files import read_json
from medssl.volume import Volume

if TYPE_CHECKING:
    import polars as pl  # never in a loader's workers: its threads do not survive a fork

    from medssl.data.resident import Resident

# Columns that a store is opened by; the rest of the tables is read when ``items`` are asked for.
FROM_INDEX = ["item", "patient", "modality"]
FROM_PREPARED = ["item", "stamp", "plan", "shape", "affine", "gain", "bias", "fill", "has_mask"]
OPEN_FILES = 256  # kept open by each process; each costs a mapping, not memory
SMALL_BYTES = 2**19  # an array up to this size is read once and kept whole, since opening it costs more than reading it
KEPT_BYTES = 2**28  # most that a process keeps so
REGISTERED = "registration.json"
Box = tuple[slice, ...]


class Store:
    """The folder that `medssl prepare` filled. Items go by row number of ``items`` or by id.

    ``items`` are the columns of the index (``shape``, ``spacing_mm``, ``path`` … of the file carry the prefix
    ``file_`` where prepare has its own) with, from prepare: shape, spacing_mm, affine (16 numbers: stored voxels to
    RAS mm), gain, bias (normalised = clip(stored · gain + bias, *plan.value_range)), fill, has_mask, mask_labels, box.
    """

    resident: "Resident | None" = None  # scans that a caller put in memory, whole

    def __init__(self, data: Path) -> None:
        self.remote = remote(data)
        self.data = Path(data) if self.remote is None else self.remote.tables()
        if not (self.data / "prepared.parquet").is_file():
            raise UserError("nothing prepared here", self.data, f"run `medssl prepare {data}` first")
        self.plan = Plan.read(self.data / "plan.toml")
        frame = self._table(FROM_INDEX, FROM_PREPARED)
        if frame.is_empty():
            raise UserError("no scan could be prepared", self.data, "see prepare_problems.csv")
        if set(frame["plan"].unique()) != {self.plan.hash}:
            raise UserError("plan.toml is not what the scans were prepared by", self.data, "run `medssl prepare` again")
        # Flat arrays, so that workers hold no Python object an item and pickling costs nothing.
        self.names = np.array(frame["item"].to_list(), "S")
        self.stamps = np.array(frame["stamp"].to_list(), "S")
        self.shapes = frame["shape"].list.to_array(self.plan.dims).to_numpy().astype(np.int32)
        self.gain = frame["gain"].to_numpy().astype(np.float32)
        self.bias = frame["bias"].to_numpy().astype(np.float32)
        self.fill = frame["fill"].to_numpy().astype(np.int32)
        self.headers = frame["affine"].list.to_array(16).to_numpy().astype(float).reshape(-1, 4, 4)
        self.affines = self._registered()
        self.has_mask = frame["has_mask"].to_numpy().astype(bool)
        self.patients = _ranks(frame["patient"])
        # Codes count through the sorted names; "" is the name of scans whose modality nobody told.
        modality = frame["modality"].fill_null("")
        self.modality_names, self.modalities = tuple(modality.unique().sort()), _ranks(modality)
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._kept: dict[str, np.ndarray] = {}
        self._room = KEPT_BYTES

    @cached_property
    def items(self) -> "pl.DataFrame":
        """One row a prepared scan, in the order of the index; read when first asked for."""
        frame = self._table()
        if not np.array_equal(np.array(frame["item"].to_list(), "S"), self.names):
            raise UserError("the tables were written anew since they were opened", self.data, "run the command again")
        return frame

    def _table(self, from_index: list[str] | None = None, from_prepared: list[str] | None = None) -> "pl.DataFrame":
        """The rows of both tables, or some of their columns."""
        from medssl.data.catalog import load_index
        from medssl.data.prepared import load_prepared

        prepared = load_prepared(self.data, from_prepared)
        index = load_index(self.data, from_index)
        twice = [c for c in index.columns if c in prepared.columns and c != "item"]
        index = index.rename({c: f"file_{c}" for c in twice})
        return index.join(prepared, on="item", how="inner", maintain_order="left")

    @cached_property
    def hash(self) -> str:
        """Of all scans' contents and the plan: what an encoder was trained on."""
        text = json.dumps([sorted(self.items["hash"].to_list()), self.plan.contract()], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        kept = {k: v for k, v in vars(self).items() if k not in ("items", "_rows")}
        return kept | {"_open": OrderedDict(), "_kept": {}, "_room": KEPT_BYTES}

    def read(self, item: int | str, box: Box | None = None) -> np.ndarray:
        """Stored values (C, *spatial) of the dtype of the plan; ``box`` has a slice a spatial axis."""
        held = None if self.resident is None else self.resident[self.row(item)]
        if held is not None:
            return held[(slice(None), *(box or ()))].copy()
        return self._cut(self._name(item), slice(None) if box is None else (slice(None), *box))

    def bytes(self, rows: Sequence[int]) -> int:
        """Memory that the whole scans ``rows`` would take, unpacked."""
        voxels = self.shapes[np.unique(np.asarray(rows, np.int64))].astype(np.int64).prod(axis=1).sum()
        return int(voxels) * self.plan.channels * np.dtype(self.plan.dtype).itemsize

    def read_mask(self, item: int | str, box: Box | None = None) -> np.ndarray:
        """Labels (*spatial), 0 background."""
        name = self._name(item)
        if not self.has_mask[self.row(item)]:
            raise UserError("has no mask", name, "leave it out of what needs masks")
        return self._cut(name + ".mask", slice(None) if box is None else box)

    def normalised(self, item: int | str, box: Box | None = None) -> np.ndarray:
        """Float32 (C, *spatial) in ``plan.value_range``."""
        row = self.row(item)
        values = self.read(item, box) * self.gain[row] + self.bias[row]
        return np.clip(values, *self.plan.value_range, dtype=np.float32)

    def points(self, item: int | str) -> np.ndarray:
        """(n, 1 + dims) int: label (0: foreground of the image) and voxel, a sample of each for drawing crops."""
        name = self._name(item)
        key = name + ".points"
        if key not in self._kept:
            array = self._array(name)
            with self._whole(name):
                about = arrays.about(array, self.data / "store" / name)
                return self._keep(key, arrays.unpack(about["points"], 1 + self.plan.dims))
        return self._kept[key]

    def place_back(self, item: int | str, labels: np.ndarray) -> Volume:
        """Labels (*spatial) on the stored grid as a Volume (1, …) on the grid of the file, by nearest neighbour."""
        row = self.items.row(self.row(item), named=True)
        if tuple(labels.shape) != tuple(row["shape"]):
            raise UserError(f"labels have shape {labels.shape}", row["item"], f"the stored scan has {row['shape']}")
        return Grid.of(json.loads(row["grid"])).back(labels)

    def _registered(self) -> np.ndarray:
        """(n, 4, 4) stored voxels to RAS mm, ``headers`` corrected by what `medssl prepare --register` found."""
        path = self.data / REGISTERED
        known = read_json(path)["items"] if path.is_file() else {}
        affines = self.headers.copy()
        for row, told in ((self._rows[item], told) for item, told in known.items() if item in self._rows):
            now = [self._stamp(row), self._stamp(self._rows.get(told["to"]))]
            if told["stamps"] == now:  # of the scans as they are now
                affines[row] = np.reshape(told["correction"], (4, 4)) @ affines[row]
        return affines

    def _stamp(self, row: int | None) -> str | None:
        return None if row is None else self.stamps[row].decode()

    def row(self, item: int | str) -> int:
        """Row number of an item id; row numbers pass through."""
        if isinstance(item, str):
            if item not in self._rows:
                raise UserError(f"no item '{item}'", self.data, "see prepared.parquet for the ids there are")
            return self._rows[item]
        return int(item)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name.decode(): row for row, name in enumerate(self.names)}

    def _name(self, item: int | str) -> str:
        return item if isinstance(item, str) else self.names[item].decode()

    def _cut(self, name: str, index: Any) -> np.ndarray:
        if name not in self._kept:
            array = self._array(name)
            with self._whole(name):
                if np.prod(array.shape) * array.dtype.itemsize > min(SMALL_BYTES, self._room):
                    return array[index]
                self._keep(name, array[:])
        return self._kept[name][index].copy()

    @contextmanager
    def _whole(self, name: str) -> Iterator[None]:
        """Bytes that changed on the disk since `medssl prepare` wrote them are told as that."""
        try:
            yield
        except (RuntimeError, ValueError, KeyError, zlib.error):
            path = self.data / "store" / name
            fix = "delete its files and run `medssl prepare` again"
            raise UserError("the prepared scan is damaged", path, fix) from None

    def _keep(self, key: str, array: np.ndarray) -> np.ndarray:
        if array.nbytes <= self._room:
            self._kept[key] = array
            self._room -= array.nbytes
        return array

    def _array(self, name: str) -> Any:
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        if self.remote is not None:
            self.remote.array(name, self.stamps[self.row(name.removesuffix(".mask"))].decode())
        with self._whole(name):
            array = arrays.load(self.data / "store" / name)
        if array is None:
            raise UserError("the prepared scan is gone", self.data / "store" / name, "run `medssl prepare` again")
        self._open[name] = array
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)
        return array


def _ranks(values: "pl.Series") -> np.ndarray:
    """(n,) int64: which of the sorted different values each one is."""
    return values.rank("dense").to_numpy().astype(np.int64) - 1
