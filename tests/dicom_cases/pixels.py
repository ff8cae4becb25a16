"""How stored values become grey: scaling, windows, padding, frames and what headers claim about them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.dicom_cases.case import CLEAN, Case, rejected, scored
from tests.unit.dicom_files import CANARY, clean, enhanced, group, merged, picture, slice_of

__all__ = ["PIXELS"]

_CENTER, _WIDTH = 2000, 4000  # the window of `clean`
_WINDOW = {"BitsStored": 12, "HighBit": 11, "WindowCenter": _CENTER, "WindowWidth": _WIDTH}
_NO_WINDOW = "no_window.dcm"
_ODD_SIDE = 51


def _signed(**changes: Any) -> Dataset:
    return slice_of(picture().astype(np.int16) - 1000, RescaleSlope=1, RescaleIntercept=1000, **changes)


def _twelve_signed_bits() -> Dataset:
    """12 signed bits in 16, the four above them empty."""
    values = ((picture().astype(np.int16) - 2048) & 0x0FFF).astype(np.uint16)
    return slice_of(values, PixelRepresentation=1, RescaleSlope=1, RescaleIntercept=2048, **_WINDOW)


def _overlaid() -> Dataset:
    """A chessboard in a bit above those stored."""
    chessboard = (np.indices(picture().shape).sum(0) % 2 << 14).astype(np.uint16)
    return slice_of(picture() | chessboard, **_WINDOW)


def _table(entries: NDArray[Any], bits: int = 16) -> Sequence:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries), 0, bits])
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


def _window_as_table() -> Sequence:
    """The clean picture's window, as a table of 16 bits."""
    line = (np.arange(4096) - (_CENTER - 0.5)) / (_WIDTH - 1) + 0.5
    return _table(np.rint(np.clip(line, 0, 1) * 65535))


def _raw_window(center: str, width: str) -> Dataset:
    """A window as sloppy software writes it, numbers or not."""
    dataset = clean()
    dataset["WindowCenter"]._value, dataset["WindowWidth"]._value = center, width
    return dataset


def _computed(dataset: Dataset) -> Case:
    return scored(dataset, twin=_NO_WINDOW)


def _padded() -> Dataset:
    y, x = np.mgrid[-1 : 1 : picture().shape[0] * 1j, -1 : 1 : picture().shape[1] * 1j]
    values = np.where(x**2 + y**2 > 0.9, -2000, picture().astype(np.int16) - 500)
    return slice_of(values.astype(np.int16), PixelPaddingValue=-2000)


def _group(center: float = _CENTER, width: float = _WIDTH, slope: float | None = None) -> Dataset:
    voi = group("FrameVOILUTSequence", WindowCenter=center, WindowWidth=width)
    if slope is None:
        return voi
    return merged(voi, group("PixelValueTransformationSequence", RescaleSlope=slope, RescaleIntercept=0))


def _of_frames(frames: list[NDArray[np.uint16]], groups: list[Dataset], **changes: Any) -> Dataset:
    shared = group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    return enhanced(np.stack(frames), groups, shared, **changes)


def _odd() -> Dataset:
    """An odd number of bytes, which a byte of padding makes even."""
    pixels = (picture(_ODD_SIDE) >> 4).astype(np.uint8)
    return slice_of(pixels, PixelData=pixels.tobytes() + b"\0", WindowCenter=125, WindowWidth=250)


def _claims_more(data: bytes) -> bytes:
    """Let the pixel element claim 2 GiB."""
    length = 2 * picture().size
    return data[: -length - 4] + (0x7FFFFFF0).to_bytes(4, "little") + data[-length:]


def _frames_as_text() -> Dataset:
    dataset = clean(NumberOfFrames=1)
    dataset["NumberOfFrames"]._value = f"{CANARY}^X"
    return dataset


PIXELS: Mapping[str, Callable[[], Case]] = {
    "enhanced_3_frames.dcm": lambda: scored(_of_frames([picture()] * 3, [_group()] * 3), twin=CLEAN),
    "enhanced_word_mosaic.dcm": lambda: scored(
        _of_frames([picture()] * 3, [_group()] * 3, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]), twin=CLEAN
    ),
    "enhanced_frame_scaling.dcm": lambda: scored(
        _of_frames([picture(), picture() // 2], [_group(slope=1), _group(slope=2)]), twin=CLEAN
    ),
    "enhanced_frame_windows.dcm": lambda: scored(
        _of_frames([picture(), picture()], [_group(), _group(2 * _CENTER, 2 * _WIDTH)])
    ),
    "three_frames_undeclared.dcm": lambda: scored(clean(PixelData=picture().tobytes() * 3), twin=CLEAN),
    "zero_frames.dcm": lambda: scored(clean(NumberOfFrames=0), twin=CLEAN),
    "two_billion_frames.dcm": lambda: rejected("too_large", clean(NumberOfFrames=2**31 - 1)),
    "frames_text.dcm": lambda: rejected("corrupt", _frames_as_text()),
    "claims_60000.dcm": lambda: rejected("too_large", clean(Rows=60_000, Columns=60_000)),
    "odd_length_padded.dcm": lambda: scored(_odd()),
    "odd_length_unpadded.dcm": lambda: scored(_odd(), edit=lambda data: data[:-1], twin="odd_length_padded.dcm"),
    "length_says_more.dcm": lambda: scored(clean(), edit=_claims_more, twin=CLEAN),
    "monochrome1.dcm": lambda: scored(
        slice_of(4095 - picture(), PhotometricInterpretation="MONOCHROME1", **_WINDOW | {"WindowCenter": 2096}),
        twin=CLEAN,
    ),
    "signed_rescaled.dcm": lambda: scored(_signed(WindowCenter=_CENTER, WindowWidth=_WIDTH), twin=CLEAN),
    "signed_12_bit_no_sign_extension.dcm": lambda: scored(_twelve_signed_bits(), twin=CLEAN),
    "overlay_in_unused_bits.dcm": lambda: scored(_overlaid(), twin=CLEAN),
    "slope_zero.dcm": lambda: scored(clean(RescaleSlope=0, RescaleIntercept=0), twin=CLEAN),
    "negative_slope.dcm": lambda: scored(
        slice_of(4095 - picture(), RescaleSlope=-1, RescaleIntercept=4095, **_WINDOW), twin=CLEAN
    ),
    "sigmoid.dcm": lambda: scored(clean(VOILUTFunction="SIGMOID")),
    "linear_exact.dcm": lambda: scored(clean(VOILUTFunction="LINEAR_EXACT"), twin=CLEAN),
    "voi_lut_table.dcm": lambda: scored(clean(VOILUTSequence=_window_as_table()), twin=CLEAN),
    "modality_lut_empty.dcm": lambda: scored(clean(ModalityLUTSequence=_table(np.zeros(0))), twin=CLEAN),
    "two_windows.dcm": lambda: scored(clean(WindowCenter=[_CENTER, 40], WindowWidth=[_WIDTH, 80]), twin=CLEAN),
    _NO_WINDOW: lambda: scored(clean(WindowCenter=None, WindowWidth=None)),
    "window_far_away.dcm": lambda: _computed(clean(WindowCenter=1_000_000, WindowWidth=10)),
    "window_width_zero.dcm": lambda: _computed(_raw_window("2000", "0")),
    "window_width_negative.dcm": lambda: _computed(_raw_window("2000", "-5")),
    "window_width_one.dcm": lambda: _computed(_raw_window("0", "1")),
    "window_text.dcm": lambda: _computed(_raw_window(f"{CANARY}^X", "4000")),
    "window_nan.dcm": lambda: _computed(_raw_window("2000", "NaN")),
    "padding.dcm": lambda: scored(_padded()),
}
