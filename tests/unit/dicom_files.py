"""Small DICOM files that the tests make: one picture in every encoding, with a canary in each text of the header."""

import io
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.dicom.reader import DicomFrame, DicomObject, read_dicom
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.limits import ImageSpec

SIDE = 64
CANARY, CANARY_DATE, CANARY_NUMBER = "ZZQCANARY", "19010203", "77553311"
SPEC = ImageSpec(side_px=32)
COMPRESSED = (
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    JPEGExtended12Bit,
    JPEGBaseline8Bit,
)
LOSSLESS = COMPRESSED[:5]
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_TEXTS = (
    *("PatientName", "PatientComments", "InstitutionName", "ReferringPhysicianName", "StationName", "ImageComments"),
    *("StudyDescription", "OperatorsName", "DeviceSerialNumber", "SoftwareVersions", "AccessionNumber", "Occupation"),
)


def picture(side: int = SIDE, depth: int = 4095) -> NDArray[np.uint16]:
    """A head on black: noise, a bright disk with stripes, no symmetry. (side, side), 0 to `depth` at most."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    stripes = 0.5 + 0.3 * np.sin(9 * x + 4 * y)
    noise = np.random.default_rng(3).normal(0, 0.02, x.shape)
    return (np.clip(stripes * (x**2 + y**2 < 0.8) + np.abs(noise), 0, 1) * depth).astype(np.uint16)


def header(**changes: Any) -> Dataset:
    """The header of a T1 slice without pixels. A change to None removes an element."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = MRImageStorage, "MR"
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM"]
    dataset.SeriesDescription, dataset.ProtocolName = f"t1 {CANARY}", f"t1 {CANARY}"
    dataset.PatientID = CANARY_NUMBER
    dataset.ScanningSequence, dataset.SequenceVariant = "GR", "SP"
    dataset.EchoTime, dataset.RepetitionTime = 3, 500
    for name in _TEXTS:
        setattr(dataset, name, CANARY)
    for name in ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(dataset, name, CANARY_DATE)
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10, -20, 42.5]
    _change(dataset, changes)
    return dataset


def slice_of(pixels: NDArray[Any], **changes: Any) -> Dataset:
    """A T1 slice with grey or colour pixels; (rows, columns), (rows, columns, 3) or (frames, rows, columns)."""
    dataset = header()
    is_colour = pixels.shape[-1] == 3
    frames = pixels.shape[0] if pixels.ndim == 3 + is_colour else 0
    dataset.Rows, dataset.Columns = pixels.shape[-2 - is_colour], pixels.shape[-1 - is_colour]
    dataset.SamplesPerPixel = 3 if is_colour else 1
    dataset.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        dataset.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if frames:
        dataset.NumberOfFrames = frames
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    _change(dataset, changes)
    return dataset


def clean(**changes: Any) -> Dataset:
    """The picture in 12 of 16 bits, with a window."""
    changes = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2000, "WindowWidth": 4000} | changes
    return slice_of(picture(), **changes)


def enhanced(
    pixels: NDArray[np.uint16], groups: list[Dataset], shared: Dataset | None = None, **changes: Any
) -> Dataset:
    """An enhanced object with functional groups per frame."""
    dataset = slice_of(pixels, SOPClassUID=EnhancedMRImageStorage, BitsStored=12, HighBit=11, **changes)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.SharedFunctionalGroupsSequence = Sequence([shared or Dataset()])
    return dataset


def stack(frames: int, side: int = SIDE) -> Dataset:
    """An enhanced object whose frames differ."""
    pixels = np.stack([np.roll(picture(side), number, axis=1) for number in range(frames)])
    return enhanced(pixels, [Dataset() for _ in range(frames)], WindowCenter=2000, WindowWidth=4000)


def twins(pixels: NDArray[np.uint8]) -> dict[str, Dataset]:
    """One 8-bit grey picture as it is stored in four other ways. Its window shows each value as it is."""
    grey = pixels.astype(np.uint16)
    window = {"WindowCenter": 128, "WindowWidth": 256}
    slopes = [group("PixelValueTransformationSequence", RescaleSlope=s, RescaleIntercept=0) for s in (1, 0.25)]
    return {
        "monochrome1": slice_of(255 - grey, PhotometricInterpretation="MONOCHROME1", **window),
        "negative-slope": slice_of(255 - grey, RescaleSlope=-1, RescaleIntercept=255, **window),
        "signed": slice_of(grey.astype(np.int16) - 128, WindowCenter=0, WindowWidth=256),
        "slope-per-frame": enhanced(np.stack([grey, grey * 4]), slopes, **window),
    }


def group(name: str, **values: Any) -> Dataset:
    """A functional group with one item."""
    item, outer = Dataset(), Dataset()
    for key, value in values.items():
        setattr(item, key, value)
    setattr(outer, name, Sequence([item]))
    return outer


def merged(*groups: Dataset) -> Dataset:
    outer = Dataset()
    for part in groups:
        outer.update(part)
    return outer


def written(dataset: Dataset, syntax: str = ExplicitVRLittleEndian, *, has_preamble: bool = True) -> bytes:
    """The bytes of a file in a transfer syntax that does not compress pixels, or whose pixels are encapsulated."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", MRImageStorage)
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["mribatch"])
    meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian and dataset.get("BitsAllocated") == 16:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    data = io.BytesIO()
    dataset.file_meta = meta
    dcmwrite(
        data,
        dataset,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=has_preamble,
    )
    return data.getvalue()


def coded(pixels: NDArray[Any], syntax: str) -> bytes:
    """One frame in the codec of a transfer syntax. 12 bits, but 8 for baseline JPEG."""
    if syntax == RLELossless:
        return _rle(pixels)
    if syntax == JPEGLosslessSV1:
        bits = 8 if pixels.dtype == np.uint8 else 16
        return imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=bits)
    if syntax == JPEGLSLossless:
        return imagecodecs.jpegls_encode(pixels)
    if syntax == JPEG2000Lossless:
        return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True)
    if syntax == HTJ2KLossless:
        return imagecodecs.htj2k_encode(pixels, reversible=True)
    if syntax == JPEGExtended12Bit:
        return imagecodecs.jpeg8_encode(pixels, level=100, bitspersample=12)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=98)
    return data.getvalue()


def compressed(syntax: str, frames: list[bytes] | None = None, **changes: Any) -> bytes:
    """The clean picture in a compressed transfer syntax, or frames that are compressed already."""
    dataset = clean(**changes)
    if syntax == JPEGBaseline8Bit:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.WindowCenter, dataset.WindowWidth = 125, 250
    if frames is None:
        frames = [coded(as_coded(syntax), syntax)]
    dataset.PixelData = encapsulate(frames, has_bot=False)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return written(dataset, syntax)


def as_coded(syntax: str) -> NDArray[Any]:
    """The picture as a codec gets it."""
    return (picture() >> 4).astype(np.uint8) if syntax == JPEGBaseline8Bit else picture()


@dataclass
class Read:
    """What came out of a file."""

    scan: DicomObject
    frames: list[DicomFrame] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """Status and reason of the file, or of its frame where it has one."""
        only = self.frames[0] if len(self.frames) == 1 else self.scan
        return f"{only.status} {only.reason or ''}".strip()

    @property
    def pixels(self) -> NDArray[np.uint8]:
        assert len(self.frames) == 1, self.outcome
        pixels = self.frames[0].pixels
        assert pixels is not None, self.outcome
        return pixels


def read(data: bytes | Dataset, selection: Selection | None = None, identifiers: Identifiers | None = None) -> Read:
    """Read a file whole."""
    data = data if isinstance(data, bytes) else written(data)
    scan = read_dicom(data, SPEC, selection or Selection(), identifiers or Identifiers())
    return Read(scan, list(scan.frames))


def difference(pixels: NDArray[np.uint8], reference: NDArray[Any]) -> int:
    """The largest difference of two pictures, in grey levels."""
    assert pixels.shape == reference.shape
    return int(np.abs(pixels.astype(int) - np.asarray(reference).astype(int)).max())


def _change(dataset: Dataset, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if value is None:
            dataset.pop(name, None)
        else:
            setattr(dataset, name, value)


def _rle(pixels: NDArray[Any]) -> bytes:
    """Byte planes, the high ones first, each packed (PS3.5, annex G)."""
    samples = pixels.reshape(pixels.shape[0], pixels.shape[1], -1)
    planes = []
    for sample in range(samples.shape[2]):
        values = np.ascontiguousarray(samples[:, :, sample])
        octets = values.view(np.uint8).reshape(*values.shape, values.dtype.itemsize)
        planes += [
            imagecodecs.packbits_encode(octets[:, :, byte].tobytes()) for byte in reversed(range(octets.shape[2]))
        ]
    planes = [plane + bytes(len(plane) % 2) for plane in planes]
    offsets = np.cumsum([64, *(len(plane) for plane in planes)])[:-1]
    table = np.zeros(16, "<u4")
    table[0], table[1 : 1 + len(planes)] = len(planes), offsets
    return table.tobytes() + b"".join(planes)
