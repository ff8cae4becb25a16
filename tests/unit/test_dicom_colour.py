"""Colour of every kind becomes RGB of 8 bits."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from mribatch.scans.dicom.selection import Selection
from tests.unit.dicom_files import coded, compressed, difference, picture, read, slice_of

ALL = Selection(select="all")


def colours() -> NDArray[np.uint8]:
    grey = (picture() >> 4).astype(np.uint8)
    return np.dstack([grey, grey[::-1], 255 - grey])


def test_rgb_stays_rgb_and_its_window_is_colour() -> None:
    result = read(slice_of(colours()), ALL)
    assert result.frames[0].window == "colour"
    assert difference(result.pixels, colours()) == 0


def test_planes_are_put_together() -> None:
    dataset = slice_of(colours(), PlanarConfiguration=1)
    dataset.PixelData = np.moveaxis(colours(), 2, 0).tobytes()
    assert difference(read(dataset, ALL).pixels, colours()) == 0


@pytest.mark.parametrize(("dtype", "factor"), [(np.uint16, 257), (np.uint32, 16843009)])
def test_deep_colour_keeps_its_high_byte(dtype: Any, factor: int) -> None:
    assert difference(read(slice_of(colours().astype(dtype) * dtype(factor)), ALL).pixels, colours()) == 0


def test_ybr_becomes_rgb() -> None:
    ybr = np.asarray(Image.fromarray(colours()).convert("YCbCr"))
    peer = convert_color_space(ybr, "YBR_FULL", "RGB")
    assert difference(read(slice_of(ybr, PhotometricInterpretation="YBR_FULL"), ALL).pixels, peer) <= 2


def test_ybr_whose_pixels_share_colour_becomes_rgb() -> None:
    smooth = np.repeat(colours()[:, ::2], 2, axis=1)
    ybr = np.asarray(Image.fromarray(smooth).convert("YCbCr"))
    shared = np.dstack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]])
    dataset = slice_of(ybr, PhotometricInterpretation="YBR_FULL_422")
    dataset.PixelData = shared.tobytes()
    wide = ybr.copy()
    wide[:, 1::2, 1:] = wide[:, ::2, 1:]
    assert difference(read(dataset, ALL).pixels, convert_color_space(wide, "YBR_FULL", "RGB")) <= 2


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_looked_up(bits: int) -> None:
    indices = (picture() >> 4).astype(np.uint8)
    dataset = slice_of(indices, PhotometricInterpretation="PALETTE COLOR")
    ramp = np.arange(256)
    for number, (name, entries) in enumerate((("Red", ramp), ("Green", 255 - ramp), ("Blue", ramp // 2))):
        dataset.add_new(0x00281101 + number, "US", [256, 0, bits])
        stored = entries.astype(np.uint8) if bits == 8 else (entries * 257).astype("<u2")
        setattr(dataset, f"{name}PaletteColorLookupTableData", stored.tobytes())
    peer = apply_color_lut(indices, dataset)
    peer = peer if bits == 8 else peer >> 8
    assert difference(read(dataset, ALL).pixels, peer) == 0


def test_a_segmented_palette_is_expanded() -> None:
    indices = (picture() >> 4).astype(np.uint8)
    dataset = slice_of(indices, PhotometricInterpretation="PALETTE COLOR")
    segments = np.array([0, 1, 0, 1, 255, 65535], "<u2")  # one entry of 0, then a line to 65535
    for number, name in enumerate(("Red", "Green", "Blue")):
        dataset.add_new(0x00281101 + number, "US", [256, 0, 16])
        setattr(dataset, f"Segmented{name}PaletteColorLookupTableData", segments.tobytes())
    pixels = read(dataset, ALL).pixels
    assert difference(pixels, np.dstack([indices] * 3)) <= 1


def test_a_palette_without_a_table_is_corrupt() -> None:
    dataset = slice_of((picture() >> 4).astype(np.uint8), PhotometricInterpretation="PALETTE COLOR")
    assert read(dataset, ALL).outcome == "rejected corrupt"


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "RGB"])
def test_jpeg_colour_is_what_its_own_markers_say(photometric: str) -> None:
    changes = {"SamplesPerPixel": 3, "PhotometricInterpretation": photometric, "PlanarConfiguration": 0}
    data = compressed(JPEGBaseline8Bit, [coded(colours(), JPEGBaseline8Bit)], **changes)
    assert np.abs(read(data, ALL).pixels.astype(int) - colours()).mean() < 6


def test_colour_in_runs_is_put_together() -> None:
    changes = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    data = compressed(RLELossless, [coded(colours(), RLELossless)], BitsAllocated=8, BitsStored=8, HighBit=7, **changes)
    assert difference(read(data, ALL).pixels, colours()) == 0


def test_colours_of_a_retired_kind_are_not_read() -> None:
    assert read(slice_of(colours(), PhotometricInterpretation="HSV"), ALL).outcome == "rejected unsupported_format"
