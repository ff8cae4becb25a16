"""Make an archive of small DICOM files, most of them of kinds that a model is not for, and slices with their JPEG twins."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, EnhancedSRStorage, ExplicitVRLittleEndian, MRImageStorage

__all__ = ["make_archive", "make_twins"]

_SIDE_PX, _SLICE_PX = 64, 256
_FOLDER_FILES = 1000
_INSTANCE = "1.2.826.0.1.3680043.8.498."
_NUMBER = "9" * 12  # in the templates, for the number of a file
_PRIVATE_ELEMENTS, _PRIVATE_BYTES = 80, 4096  # headers of scanners have 100 to 250 elements
_SKIPPED: dict[str, dict[str, Any]] = {
    "functional": {"ImageType": ["ORIGINAL", "PRIMARY", "FMRI", "NONE"]},
    "diffusion": {"DiffusionBValue": 1000.0},
    "localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "map": {"ImageType": ["DERIVED", "PRIMARY", "ADC"]},
    "phase": {"ImageType": ["ORIGINAL", "PRIMARY", "P", "NONE"]},
    "not_mr": {"SOPClassUID": CTImageStorage, "Modality": "CT"},
    "no_pixels": {"SOPClassUID": EnhancedSRStorage, "Modality": "SR", "PixelData": None, "Rows": None, "Columns": None},
}


def make_archive(folder: Path, files: int, *, skipped: int) -> None:
    """Write DICOM files, so many of which are skipped by their headers; the others are T1 slices."""
    pixels = _head(_SIDE_PX, np.random.default_rng(0))
    templates = [_written(_slice(pixels, **changes)) for changes in _SKIPPED.values()]
    scored = _written(_slice(pixels))
    for number in range(files):
        is_skipped = number * skipped // files != (number + 1) * skipped // files
        template = templates[number % len(templates)] if is_skipped else scored
        place = folder / f"{number // _FOLDER_FILES:04d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:07d}.dcm").write_bytes(template.replace(_NUMBER.encode(), f"{number + 1:012d}".encode()))


def make_twins(folder: Path, count: int) -> None:
    """Write slices twice, of equal grey levels: into `dicom/` with 12 bits, and into `jpeg/`."""
    rng = np.random.default_rng(1)
    for name in ("dicom", "jpeg"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        pixels = _head(_SLICE_PX, rng)
        data = _written(_slice(pixels)).replace(_NUMBER.encode(), f"{number + 1:012d}".encode())
        (folder / "dicom" / f"{number:05d}.dcm").write_bytes(data)
        Image.fromarray((pixels >> 4).astype(np.uint8)).save(folder / "jpeg" / f"{number:05d}.jpg", quality=90)


def _head(side_px: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return a disk of stripes with noise, (side, side), 12 bits."""
    y, x = np.mgrid[-1 : 1 : side_px * 1j, -1 : 1 : side_px * 1j]
    stripes = 0.5 + 0.3 * np.sin(rng.uniform(3, 12) * x + rng.uniform(3, 12) * y)
    grey = stripes * (x**2 + y**2 < 0.8) + np.abs(rng.normal(0, 0.02, x.shape))
    pixels: NDArray[np.uint16] = (np.clip(grey, 0, 1) * 4095).astype(np.uint16)
    return pixels


def _slice(pixels: NDArray[np.uint16], **changes: Any) -> Dataset:
    """Return a T1 slice with a header of usual length. A change to None removes an element."""
    dataset = Dataset()
    values = {
        "SOPClassUID": MRImageStorage,
        "Modality": "MR",
        "Manufacturer": "SIEMENS",
        "SOPInstanceUID": _INSTANCE + _NUMBER,
        "StudyInstanceUID": _INSTANCE + "2",
        "SeriesInstanceUID": _INSTANCE + "3",
        "PatientID": "BENCHMARK",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM"],
        "SeriesDescription": "t1",
        "ScanningSequence": "GR",
        "EchoTime": 3,
        "RepetitionTime": 500,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [-10, -20, 42.5],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "WindowCenter": 2048,
        "WindowWidth": 4096,
        "PixelData": pixels.tobytes(),
    }
    for name, value in (values | changes).items():
        if value is not None:
            setattr(dataset, name, value)
    block = dataset.private_block(0x0051, "BENCHMARK", create=True)
    for number in range(_PRIVATE_ELEMENTS):
        block.add_new(number, "LO", f"value {number}")
    block.add_new(_PRIVATE_ELEMENTS, "OB", bytes(_PRIVATE_BYTES))
    return dataset


def _written(dataset: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    data = io.BytesIO()
    dcmwrite(data, dataset, enforce_file_format=True)
    return data.getvalue()
