"""The samples of one frame, as they were decoded or as they lie in a file that is not compressed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mribatch.scans.dicom.layout import Layout

__all__ = ["Samples", "raw_samples"]


@dataclass(frozen=True)
class Samples:
    """Values, (rows, columns) or (rows, columns, 3), before unused bits are removed."""

    values: NDArray[np.generic]
    bits: int | None = None  # where they differ from Bits Stored
    is_rgb: bool = False  # a codec turned YBR into RGB


def raw_samples(raw: bytes | memoryview, layout: Layout, *, is_little_endian: bool) -> Samples:
    """Read the bytes of one frame that is not compressed; there must be enough of them."""
    order = "<" if is_little_endian else ">"
    if layout.allocated == 1:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        return Samples(bits[: layout.frame_values].reshape(layout.rows, layout.columns))
    code = {"integer": "u", "float": "f", "double": "f"}[layout.kind]
    flat = np.frombuffer(raw, f"{order}{code}{layout.allocated // 8}")
    return Samples(_arranged(flat, layout))


def _arranged(flat: NDArray[np.generic], layout: Layout) -> NDArray[np.generic]:
    rows, columns, samples = layout.rows, layout.columns, layout.samples
    if samples == 1:
        return flat[: rows * columns].reshape(rows, columns)
    if layout.photometric == "YBR_FULL_422":
        return _from_422(flat[: rows * columns * 2], rows, columns)
    if layout.is_planar:
        return np.moveaxis(flat[: rows * columns * samples].reshape(samples, rows, columns), 0, 2)
    return flat[: rows * columns * samples].reshape(rows, columns, samples)


def _from_422(flat: NDArray[np.generic], rows: int, columns: int) -> NDArray[np.generic]:
    """Two pixels share their colour: Y1 Y2 Cb Cr."""
    pairs = flat.reshape(rows, columns // 2, 4)
    full = np.empty((rows, columns // 2, 2, 3), flat.dtype)
    full[..., 0] = pairs[..., :2]
    full[..., 1] = pairs[..., None, 2]
    full[..., 2] = pairs[..., None, 3]
    return full.reshape(rows, columns, 3)
