"""One made DICOM file with its right answer, and the three ways to make one: scored, skipped and rejected."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.dicom_cases.reference import shown, stored_frames
from tests.unit.dicom_files import written

__all__ = ["CLEAN", "Case", "rejected", "scored", "skipped"]

CLEAN = "clean.dcm"

Edit = Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class Case:
    """The bytes of a file and what must come of them with the default selection."""

    data: bytes = field(repr=False)
    status: str
    reason: str = ""
    window: str | None = None  # header, lut or computed; of scored files
    twin: str | None = None  # the name of a case that must look the same
    frames: tuple[NDArray[np.uint8], ...] = field(default=(), repr=False)
    """The right pixels of each frame before resizing, (rows, columns)."""

    def answer(self) -> dict[str, Any]:
        """Return the answer without pixels, as it stands in expected.json."""
        names = ("status", "reason", "window", "twin")
        return {name: getattr(self, name) for name in names} | {"frames": len(self.frames)}


def scored(
    dataset: Dataset,
    data: bytes | None = None,
    *,
    twin: str | None = None,
    stored: NDArray[Any] | None = None,
    edit: Edit = bytes,
) -> Case:
    """Return a file whose frames are scored, with their right pixels.

    dataset: the header that the right pixels follow from. data: the file, if it is not the plain one of `dataset`.
    stored: the stored values, (rows, columns), if they are not the plain ones in `dataset`. edit: changes the file.
    """
    values = stored_frames(dataset) if stored is None else stored[np.newaxis]
    pictures = [shown(dataset, frame, number) for number, frame in enumerate(values)]
    (window,) = {window for _, window in pictures}
    return Case(
        data=edit(written(dataset, ExplicitVRLittleEndian) if data is None else data),
        status="ok",
        window=window,
        twin=twin,
        frames=tuple(pixels for pixels, _ in pictures),
    )


def skipped(reason: str, content: bytes | Dataset) -> Case:
    """Return a readable file that is not for the model."""
    return Case(data=_bytes(content), status="skipped", reason=reason)


def rejected(reason: str, content: bytes | Dataset) -> Case:
    """Return a file that is at fault itself."""
    return Case(data=_bytes(content), status="rejected", reason=reason)


def _bytes(content: bytes | Dataset) -> bytes:
    return content if isinstance(content, bytes) else written(content)
