"""NIfTI-1 and -2: header and voxels straight from the bytes.

A header costs microseconds this way, and an affine that is not orthonormal (which ITK refuses) is no obstacle.
"""

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl.errors import UserError
from medssl.volume import Volume

TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 128: "3u1", 256: "i1", 512: "u2", 768: "u4"}
TYPES |= {1024: "i8", 1280: "u8", 2304: "4u1"}  # 128 is RGB, 2304 RGBA
COLOURS = (128, 2304)
MM = {1: 1000.0, 3: 0.001}  # xyzt_units: metre, micron; all else is taken as mm, as most programs do
CUT_SHORT = "copy the file again; it was cut short on the way"
DAMAGED = "copy the file again; it was cut short or damaged on the way"


@dataclass(frozen=True)
class Header:
    """What is needed of a header; ``shape`` without trailing axes of length 1.

    Everything is a plain number: of 100 000 files it is read in seconds, and most affines are never asked for.
    """

    shape: tuple[int, ...]
    kind: str
    offset: int
    slope: float
    intercept: float
    codes: tuple[int, ...]  # qform, sform
    pixdim: tuple[float, ...]
    geometry: tuple[float, ...]  # b, c, d, offsets of the quaternion; the three rows of the sform
    unit_mm: float

    @property
    def dtype(self) -> np.dtype:
        """Of one voxel; colour is a subarray of bytes."""
        return np.dtype(self.kind)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) voxel indices to RAS mm: the sform, else the qform, else the voxel sizes alone."""
        affine = np.eye(4)
        if self.codes[1] > 0:
            affine[:3] = np.reshape(self.geometry[6:18], (3, 4))
        elif self.codes[0] > 0:
            affine[:3] = _from_quaternion(self.geometry[:6], self.pixdim)
        else:
            affine[:3, :3] = np.diag(np.abs(self.pixdim[1:4]))
        affine[:3] *= self.unit_mm
        return affine


def read_header(path: Path | str) -> Header:
    """The header of ``path``; a UserError where it is none, or where the scan could not be used."""
    raw = _bytes(path, 544)
    for order in "<>":
        size = struct.unpack_from(f"{order}i", raw)[0] if len(raw) >= 348 else 0
        if size == 348 and raw[344:347] in (b"n+1", b"ni1"):
            return _checked(_parse_one(raw, order))
        if size == 540 and len(raw) >= 540 and raw[4:7] in (b"n+2", b"ni2"):
            return _checked(_parse_two(raw, order))
        if size == 348:
            fix = "convert it to NIfTI-1 (.nii.gz); Analyze files do not say which side is left"
            raise UserError("an Analyze 7.5 header, not NIfTI", fix=fix)
    what = "truncated NIfTI header" if len(raw) < 348 else "not a NIfTI file"
    raise UserError(what, fix="copy it again, or rename it to what it is")


def read_nifti(path: Path) -> Volume:
    """The scan with its values scaled, (C, X, Y, Z) and the affine of its header."""
    header = read_header(path)
    array = _voxels(path, header)
    if header.slope not in (0.0, 1.0) or (header.slope and header.intercept):
        array = array * np.float32(header.slope) + np.float32(header.intercept)
    x, y, z = (*header.shape, 1, 1)[:3]
    return Volume(array.reshape(-1, z, y, x).transpose(0, 3, 2, 1), header.affine)


def _voxels(path: Path, header: Header) -> np.ndarray:
    """(C · voxels) numbers, channels first for colour."""
    count = int(np.prod(header.shape))
    data = path.with_suffix(".img") if path.suffix == ".hdr" else path
    try:
        raw = _bytes(data, header.offset + count * header.dtype.itemsize, checked=True)
    except FileNotFoundError:
        raise UserError(f"its voxel file {data.name} is missing", fix="put both files side by side") from None
    have = (len(raw) - header.offset) // header.dtype.itemsize
    if have < count:
        raise UserError(f"truncated: {max(have, 0)} of {count} voxels", fix=CUT_SHORT)
    array = np.frombuffer(raw, header.dtype, count, header.offset)
    if array.ndim == 2:  # colour: (voxels, 3 or 4) bytes; the transparency is dropped
        return np.ascontiguousarray(array[:, :3].T).ravel()
    return array.astype(header.dtype.newbyteorder("="), copy=False)


def _bytes(path: Path | str, count: int, checked: bool = False) -> bytes:
    """The first ``count`` bytes, unpacked; fewer where the file ends before.

    ``checked``: a gzip stream is read to its end, where it says whether all before is what was written.
    """
    with open(path, "rb") as handle:  # noqa: PTH123 (a Path costs more than the header)
        if handle.peek(2)[:2] != b"\x1f\x8b":
            return handle.read(count)
        unpacker, parts, length, packed = zlib.decompressobj(31), [], 0, b""
        chunk, inside = min(max(count, 1024), 1 << 22), False  # a gzip member: a file may hold several
        try:
            while (length < count or (checked and inside)) and (packed := packed or handle.read(chunk)):
                if not inside and packed[:1] != b"\x1f":  # padding behind the last member
                    break
                part = unpacker.decompress(packed, count - length if length < count else chunk)
                parts += [part] if length < count else []
                length += len(part)
                packed, inside = unpacker.unconsumed_tail, not unpacker.eof
                if not inside:
                    packed, unpacker = unpacker.unused_data, zlib.decompressobj(31)
        except zlib.error as error:
            raise UserError(f"broken gzip stream: {error}", fix=DAMAGED) from None
        if checked and inside and length >= count:
            raise UserError("broken gzip stream: it has no end", fix=DAMAGED)
    return b"".join(parts)


def _parse_one(raw: bytes, order: str) -> Header:
    dim = struct.unpack_from(f"{order}8h", raw, 40)
    kind = struct.unpack_from(f"{order}h", raw, 70)[0]
    pixdim = struct.unpack_from(f"{order}8f", raw, 76)
    offset, slope, intercept = struct.unpack_from(f"{order}3f", raw, 108)
    codes = struct.unpack_from(f"{order}2h", raw, 252)
    rest = struct.unpack_from(f"{order}18f", raw, 256)
    inside = raw[344:347] == b"n+1"
    place = max(offset, 352.0) if inside and math.isfinite(offset) else 352.0 * inside
    return _header(order, dim, kind, pixdim, (place, slope, intercept), codes, rest, raw[123])


def _parse_two(raw: bytes, order: str) -> Header:
    kind = struct.unpack_from(f"{order}h", raw, 12)[0]
    dim = struct.unpack_from(f"{order}8q", raw, 16)
    pixdim = struct.unpack_from(f"{order}8d", raw, 104)
    offset = struct.unpack_from(f"{order}q", raw, 168)[0]
    slope, intercept = struct.unpack_from(f"{order}2d", raw, 176)
    codes = struct.unpack_from(f"{order}2i", raw, 344)
    rest = struct.unpack_from(f"{order}18d", raw, 352)
    units = struct.unpack_from(f"{order}i", raw, 500)[0]
    return _header(order, dim, kind, pixdim, (offset, slope, intercept), codes, rest, units)


def _header(
    order: str, dim: tuple, kind: int, pixdim: tuple, numbers: tuple, codes: tuple, rest: tuple, units: int
) -> Header:
    offset, slope, intercept = numbers
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise UserError(f"impossible shape {dim[1:8]} in the header", fix="write the file again from its source")
    if kind not in TYPES:
        raise UserError(f"voxel type {kind} is not supported", fix="convert it to 16-bit integers or 32-bit floats")
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        slope, intercept = 1.0, 0.0
    shape = dim[1 : dim[0] + 1]
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    name = TYPES[kind] if kind in COLOURS else order + TYPES[kind]
    return Header(shape, name, int(offset), slope, intercept, codes, pixdim, rest, MM.get(units & 7, 1.0))


def _from_quaternion(numbers: tuple, pixdim: tuple) -> np.ndarray:
    """Method 2 of the NIfTI-1 standard: (3, 4) from b, c, d and the offset."""
    b, c, d = numbers[:3]
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    scale = np.abs(pixdim[1:4]) * [1.0, 1.0, -1.0 if pixdim[0] < 0 else 1.0]
    return np.column_stack([rotation * scale, numbers[3:6]])


def _checked(header: Header) -> Header:
    if len(header.shape) > 3:
        text = "×".join(map(str, header.shape))
        fix = "save each time point, sequence or channel as a 3-D file of its own"
        raise UserError(f"a {len(header.shape)}-D image ({text}); medssl takes 2-D and 3-D", fix=fix)
    return header
