"""DICOM bytes to frames of checked pixels; `reader` is the door."""
