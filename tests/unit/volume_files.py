"""NIfTI files and archives made for tests, with NiBabel and the standard library."""

import io
import tarfile
import zipfile
from collections.abc import Mapping

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

__all__ = ["BRAIN", "TO_MM", "as_tar", "as_zip", "brain", "nifti", "reoriented"]

TO_MM = np.array([[4.0, 0, 0, -90], [0, 4.0, 0, -110], [0, 0, 8.0, -60], [0, 0, 0, 1]])
"""Voxels to mm to the right, front and top, of `brain`: thick axial slices."""


def brain(slices: int = 12) -> NDArray[np.int16]:
    """Return (44, 52, slices) int16 whose sides differ: bright in front, dark on the right, blank at both ends."""
    right, front, up = np.meshgrid(np.arange(44), np.arange(52), np.arange(slices), indexing="ij")
    values = 100 + 12 * front - 4 * right + 9 * up + 400 * ((right - 12) ** 2 + (front - 38) ** 2 < 30)
    values[:, :, [0, -1]] = 0
    return values.astype(np.int16)


BRAIN = brain()


def nifti(
    values: NDArray[np.generic] = BRAIN, to_mm: NDArray[np.float64] = TO_MM, *, version: int = 1, **header: object
) -> bytes:
    """Return a NIfTI file; header: fields to set, whether they make sense or not."""
    image = (Nifti1Image if version == 1 else Nifti2Image)(values, to_mm)
    data, kind = image.to_bytes(), type(image.header)
    block = kind(data[: kind.template_dtype.itemsize], check=False)
    for name, value in header.items():
        block[name] = value
    return bytes(block.binaryblock + data[len(block.binaryblock) :])


def reoriented(codes: str) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return `BRAIN` with its voxels in another order, such as "LPS" or "SAR", and the matrix of that order."""
    turn = ornt_transform(io_orientation(TO_MM), axcodes2ornt(tuple(codes)))
    image = Nifti1Image(BRAIN, TO_MM).as_reoriented(turn)
    assert np.allclose(image.affine, TO_MM @ inv_ornt_aff(turn, BRAIN.shape))
    return np.asarray(image.dataobj), image.affine


def as_zip(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip with these members."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return data.getvalue()


def as_tar(members: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    """Return a tar, by default in gzip, with these members."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as file:  # type: ignore[call-overload]  # any mode to write
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return data.getvalue()
