"""Elements of a header are what pydicom reads, in every encoding and whatever stands between the plain ones."""

import io

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mribatch.scans.dicom.header import read_header
from tests.unit.dicom_files import clean, read, written


def with_everything() -> Dataset:
    """A slice with a character set, empty values, private elements, and sequences with and without a length."""
    dataset = clean(SpecificCharacterSet="ISO_IR 192", PatientComments="", AcquisitionNumber=None)
    for name, is_open in (("ReferencedImageSequence", True), ("ReferencedStudySequence", False)):
        item = Dataset()
        item.ReferencedSOPInstanceUID = "1.2.3"
        item.is_undefined_length_sequence_item = is_open
        setattr(dataset, name, Sequence([item]))
        dataset[name].is_undefined_length = is_open
    block = dataset.private_block(0x0029, "A CREATOR", create=True)
    block.add_new(0x10, "OB", bytes(range(256)) * 300)
    block.add_new(0x11, "UN", b"")
    block.add_new(0x12, "DS", "1.5")
    return dataset


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_elements_are_those_that_pydicom_reads(syntax: str) -> None:
    data = written(with_everything(), syntax)
    elements = read_header(data).elements
    expected = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    tags = list(expected.keys())
    assert list(elements.raw) == [int(tag) for tag in tags]
    for raw in map(expected.get_item, tags):
        if isinstance(raw, RawDataElement):
            assert elements.content(int(raw.tag)) == (raw.value or b"")
            assert elements.raw[int(raw.tag)].VR == raw.VR
    for name in ("ReferencedImageSequence", "ReferencedStudySequence"):
        (item,) = elements.items(pydicom.datadict.tag_for_keyword(name) or 0)
        assert item.text(0x00081155) == "1.2.3"
    assert elements.private(0x0029, "A CREATOR", 0x10) == 0x00291010


def test_a_damaged_character_set_is_no_reason_to_reject_a_picture() -> None:
    data = written(clean(SpecificCharacterSet="ISO_IR 192"))
    damaged = data.replace(b"\x08\x00\x05\x00CS", b"\x08\x00\x05\x00UL")
    assert damaged != data
    assert read(damaged).outcome == "ok"
