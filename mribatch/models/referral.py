"""Store the arrays of a referral in a model directory, and load them; no pickles."""

import io

import numpy as np

from mribatch.errors import InputError, ModelError
from mribatch.models import directory
from mribatch.models.format import Model
from mribatch.statistics.referral import Detector, detector

__all__ = ["packed", "stored_detector"]


def packed(fitted: Detector) -> bytes:
    """Return the arrays of a detector as the bytes of an .npz file; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **fitted.arrays())
    return buffer.getvalue()


def stored_detector(model: Model) -> Detector:
    """Return the detector of a model that has one. Raises ModelError for a file that is missing, altered or no such array."""
    data = directory.read_file(model, "referral")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return detector(dict(arrays))
    except (ValueError, OSError, InputError) as err:
        raise ModelError(
            f"{model.facts['referral']['file']} in {model.uri} cannot be read ({err}): calibrate the model again with "
            "`mribatch calibrate`"
        ) from err
