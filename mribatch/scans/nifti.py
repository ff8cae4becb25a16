"""Read a NIfTI volume as slices across the plane in which it was acquired, the way radiologists look at them.

NiBabel reads the header: its layout, byte order, types, and quaternion. What the header claims is checked here before
anything is taken from the data, and no text of it is read.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from mribatch.scans.dicom.levels import levels_of
from mribatch.scans.dicom.selection import ANATOMICAL
from mribatch.scans.dicom.windows import COLOUR, COMPUTED, computed_shades
from mribatch.scans.formats import RejectionError
from mribatch.scans.limits import MIN_SIDE_PX, ImageSpec, check_memory, check_size
from mribatch.schema import Reason

__all__ = ["Volume", "read_volume"]

_NIFTI2_MAGIC = b"n+2\0"
_TYPES = frozenset({2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280})  # integers and floats of 8 to 64 bits
_COLOURS = {128: 3, 2304: 4}  # RGB and RGBA, by their bytes
_LABELS = frozenset({1002, 1003})  # intents
_TIME_SERIES = 2001
_NUMBERS = frozenset({*range(2, 25), 1001, *range(1004, 1012), 2003, 2004, 2005})  # statistics, vectors, colours
_ANISOTROPIC = 1.5  # by so much the voxels of thick slices are longer than wide
_LEAST_VOLUME = 1e-3  # of the parallelepiped of three unit vectors; less is no orientation
_LEAST_MM, _MOST_MM = 1e-6, 1e6  # of a voxel, a scan's place being no further off either
_SORTED_BYTES = 64  # a pixel takes while its slice becomes 8 bits
_PIECE_VALUES = 1 << 20

_SAGITTAL, _CORONAL, _AXIAL = range(3)  # the world's axis across the slice: right, front, up
_PLANES = ("sagittal", "coronal", "axial")
_ROWS_AND_COLUMNS = ((2, 1), (2, 0), (1, 0))  # the world's axes down and across a picture, by plane
_TO_DICOM = np.array([-1.0, -1.0, 1.0])  # DICOM counts to the left and to the back


@dataclass(frozen=True, kw_only=True)
class Volume:
    """The slices of a NIfTI file."""

    kind: str
    detail: str | None  # what had to be guessed
    plane: str
    values: NDArray[Any]  # as shown: (volumes, slices, rows, columns), or (…, channels) for colour
    slope: float
    intercept: float
    origin_mm: float  # of the first slice along its normal
    step_mm: float

    @property
    def frame_count(self) -> int:
        return prod(self.values.shape[:2])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a slice in pixels."""
        return self.values.shape[3], self.values.shape[2]

    def slice_mm(self, frame: int) -> float:
        """Return where a slice lies along its normal, as DICOM counts."""
        return round(self.origin_mm + frame % int(self.values.shape[1]) * self.step_mm, 3)

    def shown(self, frame: int) -> tuple[NDArray[np.uint8], str] | None:
        """Return the pixels of a slice and the name of their window; None where they are all alike."""
        stored = self.values[divmod(frame, self.values.shape[1])]
        if stored.ndim == 3:
            pixels = np.ascontiguousarray(stored[..., :3])
            return None if (pixels == pixels[0, 0]).all() else (pixels, COLOUR)
        levels = levels_of(stored, None)
        with np.errstate(all="ignore"):  # of what is not finite, and is not shown
            values = levels.values * self.slope + self.intercept
        levels = type(levels)(values, levels.counts, levels.shown & np.isfinite(values), levels.index)
        if levels.is_constant:
            return None
        return np.ascontiguousarray(levels.paint(computed_shades(levels))), COMPUTED


def read_volume(data: bytes, spec: ImageSpec, max_frames: int) -> Volume:
    """Read the header of a NIfTI file and what it says of the data. Raises RejectionError, whatever the bytes."""
    header = _header(data)
    sizes = _sizes(header)
    stored = _stored(data, header, sizes)
    to_mm = _to_mm(header)
    volume = _cut(stored, header, sizes, to_mm)
    if volume.frame_count > max_frames:
        raise RejectionError(Reason.TOO_LARGE, f"{volume.frame_count} slices exceed the cap of {max_frames}")
    check_size(*volume.size, spec)
    check_memory(len(data), prod(volume.size) * _SORTED_BYTES, spec)
    return volume


def _header(data: bytes) -> Any:
    kind = Nifti2Header if data.startswith(_NIFTI2_MAGIC, 4) else Nifti1Header
    size = kind.template_dtype.itemsize
    if len(data) < size:
        raise RejectionError(Reason.TRUNCATED, "the NIfTI file ends within its header")
    return kind(data[:size], check=False)  # type: ignore[no-untyped-call]  # NiBabel has types for some of it


def _sizes(header: Any) -> tuple[int, ...]:
    """Return the sizes along the seven axes."""
    used, *sizes = (int(size) for size in header["dim"])
    if not 1 <= used <= 7 or min(sizes[:used]) < 1:
        raise RejectionError(Reason.CORRUPT, "the NIfTI header claims a volume without voxels")
    return tuple(size if axis < used else 1 for axis, size in enumerate(sizes))


def _stored(data: bytes, header: Any, sizes: tuple[int, ...]) -> NDArray[Any]:
    """Return the values in the order of the file, as a view of its bytes. Raises RejectionError if some are missing."""
    code = int(header["datatype"])
    if code not in _TYPES and code not in _COLOURS:
        raise RejectionError(Reason.UNSUPPORTED_FORMAT, "the NIfTI file has voxels of a type not read here")
    channels = _COLOURS.get(code, 1)
    dtype = np.dtype(np.uint8) if code in _COLOURS else header.get_data_dtype()
    offset, count = _offset(header), prod(sizes) * channels
    if offset + count * dtype.itemsize > len(data):
        claimed = offset + count * dtype.itemsize
        raise RejectionError(Reason.TRUNCATED, f"the NIfTI header claims {claimed} bytes, the file has {len(data)}")
    return np.frombuffer(data, dtype, count, offset)


def _offset(header: Any) -> int:
    """Return where the values begin; software that leaves it 0 writes them after the header."""
    offset, least = float(header["vox_offset"]), int(header.single_vox_offset)
    if not np.isfinite(offset) or offset < 0:
        raise RejectionError(Reason.CORRUPT, "the NIfTI header claims a place outside the file for its voxels")
    return max(int(offset), least)


def _scaling(header: Any) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    return slope, intercept if np.isfinite(intercept) else 0.0


def _kind(header: Any, stored: NDArray[Any], sizes: tuple[int, ...]) -> str:
    """Return what a volume is, by its intent, its type and its size, else by its values."""
    intent = int(header["intent_code"])
    if intent in _LABELS:
        return Reason.SEGMENTATION
    if intent in _NUMBERS or int(header["datatype"]) in _COLOURS or prod(sizes[4:]) > 1:
        return Reason.MAP
    if intent == _TIME_SERIES or sizes[3] > 1:
        return Reason.FUNCTIONAL
    return Reason.SEGMENTATION if _is_two_valued(stored) else ANATOMICAL


def _is_two_valued(stored: NDArray[Any]) -> bool:
    known: set[float] = set()
    for start in range(0, stored.size, _PIECE_VALUES):
        piece = stored[start : start + _PIECE_VALUES]
        piece = piece[np.isfinite(piece)] if piece.dtype.kind == "f" else piece
        if piece.size:
            low, high = piece.min(), piece.max()
            known |= {low.item(), high.item()}
            if len(known) > 2 or ((piece != low) & (piece != high)).any():
                return False
    return len(known) == 2


# Orientation


def _to_mm(header: Any) -> NDArray[np.float64] | None:
    """Return the matrix from voxels to mm to the right, front and top, by the sform or else the qform; None if neither."""
    for read in (header.get_sform, header.get_qform):
        try:
            matrix, _ = read(coded=True)
        except Exception:  # NiBabel raises errors of several kinds for numbers that are no rotation
            continue
        if matrix is not None and _is_orientation(np.asarray(matrix, np.float64)):
            return np.asarray(matrix, np.float64)
    return None


def _is_orientation(matrix: NDArray[np.float64]) -> bool:
    if not (np.abs(matrix) <= _MOST_MM).all():
        return False
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    return bool(_is_possible(lengths).all() and abs(np.linalg.det(matrix[:3, :3] / lengths)) > _LEAST_VOLUME)


def _as_they_lie(header: Any) -> NDArray[np.float64]:
    """Return a matrix of voxel sizes: NIfTI's method 1, for files without an orientation."""
    lengths = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    return np.diag([*np.where(_is_possible(lengths), lengths, 1.0), 1.0])


def _is_possible(lengths_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which voxels may be so long. NiBabel has no orientation for lengths whose squares are zero or infinite."""
    return np.asarray((lengths_mm >= _LEAST_MM) & (lengths_mm <= _MOST_MM), np.bool_)


def _cut(stored: NDArray[Any], header: Any, sizes: tuple[int, ...], oriented: NDArray[np.float64] | None) -> Volume:
    to_mm = _as_they_lie(header) if oriented is None else oriented
    orientation = io_orientation(to_mm)  # type: ignore[no-untyped-call]  # as above
    axis_of = {int(world): axis for axis, (world, _) in enumerate(orientation)}  # the voxels' axis, by the world's
    plane = _plane(np.linalg.norm(to_mm[:3, :3], axis=0), sizes[:3], axis_of)
    axes = [axis_of[world] for world in (plane, *_ROWS_AND_COLUMNS[plane])]
    is_turned = [
        (orientation[axis][1] > 0) == is_falling for axis, is_falling in zip(axes, _falling(plane), strict=True)
    ]
    origin_mm, step_mm = _along_normal(to_mm, sizes, axes, is_turned)
    slope, intercept = _scaling(header)
    return Volume(
        kind=_kind(header, stored, sizes),
        detail=None if oriented is not None else "the header has no orientation: right, front and top are guessed",
        plane=_PLANES[plane],
        values=_as_shown(stored, sizes, axes, is_turned),
        slope=slope,
        intercept=intercept,
        origin_mm=origin_mm,
        step_mm=step_mm,
    )


def _falling(plane: int) -> tuple[bool, bool, bool]:
    """Return whether slices, rows and columns count against the world's axis: to the back, down, and left or back."""
    return plane == _CORONAL, True, True


def _plane(lengths: NDArray[np.float64], sizes: tuple[int, ...], axis_of: dict[int, int]) -> int:
    """Return the plane that was acquired: across the longest voxels; axial where they are about as long as wide."""
    world_of = {axis: world for world, axis in axis_of.items()}
    fewest = int(np.argmin(sizes))
    longest = int(np.argmax(lengths))
    is_thick = lengths[longest] >= _ANISOTROPIC * np.sort(lengths)[-2]
    across = longest if is_thick else axis_of[_AXIAL]
    is_too_narrow = min(size for axis, size in enumerate(sizes) if axis != across) < MIN_SIDE_PX
    return world_of[fewest if is_too_narrow else across]


def _as_shown(stored: NDArray[Any], sizes: tuple[int, ...], axes: list[int], is_turned: list[bool]) -> NDArray[Any]:
    """Return the values as (volumes, slices, rows, columns[, channels]), without a copy."""
    channels = stored.size // prod(sizes)
    shape = (channels, *sizes[:3], prod(sizes[3:]))
    values = stored.reshape(shape, order="F").transpose(4, *(axis + 1 for axis in axes), 0)
    turns = [slice(None, None, -1 if turn else 1) for turn in is_turned]
    values = values[(slice(None), *turns)]
    return values if channels > 1 else values[..., 0]


def _along_normal(
    to_mm: NDArray[np.float64], sizes: tuple[int, ...], axes: list[int], is_turned: list[bool]
) -> tuple[float, float]:
    """Return where the first slice lies along the normal in mm, as DICOM counts, and the step to the next one."""
    signs = np.where(is_turned, -1.0, 1.0)
    step, down, across = (_TO_DICOM * to_mm[:3, axis] * sign for axis, sign in zip(axes, signs, strict=True))
    corner = np.zeros(3)
    for axis, turn in zip(axes, is_turned, strict=True):
        corner[axis] = sizes[axis] - 1 if turn else 0
    normal = np.cross(across, down)
    normal /= np.linalg.norm(normal)
    place = _TO_DICOM * (to_mm[:3, :3] @ corner + to_mm[:3, 3])
    return float(normal @ place), float(normal @ step)
