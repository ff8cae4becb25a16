"""Say which series and which study each row belongs to, from its keys, its container and its path."""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mribatch.predictions.files import file_uris
from mribatch.scans.formats import NIFTI
from mribatch.schema import Status

__all__ = ["ENTITIES", "MEMBERSHIP", "entities", "ranks", "with_series"]

MEMBERSHIP = ("scan_uri", "container", "frames", "status", "format", "series_key", "study_key", "patient_key")
"""The columns that `with_series` needs."""

ENTITIES = ("subject", "session", "acquisition", "run", "suffix")
"""What a path in a BIDS data set says, and, of the first two, the name of a zip of UK Biobank."""

_NAME = r"sub-(?P<again>[0-9A-Za-z]+)(?P<more>(?:_[a-z]+-[0-9A-Za-z+]+)*)_(?P<suffix>[0-9A-Za-z]+)\.nii(?:\.gz)?"
_BIDS = (
    r"^(?P<folder>(?:.*[/!])?sub-(?P<subject>[0-9A-Za-z]+)(?:/ses-(?P<session>[0-9A-Za-z]+))?)/(?:[a-z]+/)?"
    + _NAME
    + "$"
)
"""The path of a volume in a BIDS data set: the folder of the session, its entities, and the name of the file."""

_KEYS = {"acquisition": "acq", "run": "run"}  # as they are written there

_UK_BIOBANK = r"(?:^|/)(?P<subject>[0-9]{7})_[0-9]{5}_(?P<session>[0-9]+)_[0-9]+\.(?i:zip)$"
"""A participant, a field, a visit and an array index."""


def with_series(rows: pa.Table, patients: Mapping[str, str] | None = None) -> pa.Table:
    """Return rows with series_key and study_key filled in where they are null and the row belongs to a series or study.

    A volume, or a file of several frames, without a key is a series of its own, named by its scan_uri. Its study is the
    session of a BIDS data set, or else the archive, the patient, or the volume itself. Single pictures without keys are
    in no series. Their study is their archive if they are scored, or else their patient; without either they are in none.

    patients: the patient_key of files, by their URIs; it counts before the rows' own.
    """
    is_volume = pc.or_(pc.equal(rows["format"], NIFTI).fill_null(False), pc.greater(rows["frames"], 1).fill_null(False))
    null = pa.scalar(None, pa.string())
    volume = pc.if_else(is_volume, rows["scan_uri"], null)
    archive = pc.if_else(pc.or_(is_volume, pc.equal(rows["status"], Status.OK)), rows["container"], null)
    patient = rows["patient_key"]
    if patients:
        patient = pc.coalesce(_by_value(file_uris(rows), lambda uris: _known(uris, patients)), patient)
    columns = {
        "series_key": pc.coalesce(rows["series_key"], volume),
        "study_key": pc.coalesce(rows["study_key"], _by_value(volume, _session), archive, patient, volume),
        "patient_key": patient,
    }
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    return rows


def entities(uris: pa.Array, containers: pa.Array) -> dict[str, pa.Array]:
    """Return the ENTITIES of scans, by their URIs and those of their archives. Null where there are none."""
    bids = pc.extract_regex(uris, _BIDS)
    more = _group(bids, "more")
    known = {name: _group(bids, name) for name in ("subject", "session", "suffix")}
    known |= {
        name: _group(pc.extract_regex(more, rf"_{key}-(?P<value>[0-9A-Za-z+]+)"), "value")
        for name, key in _KEYS.items()
    }
    is_bids = pc.equal(known["subject"], _group(bids, "again")).fill_null(False)
    zips = pc.extract_regex(containers, _UK_BIOBANK)
    null = pa.scalar(None, pa.string())
    return {
        name: pc.coalesce(
            pc.if_else(is_bids, known[name], null),
            _group(zips, name) if name in ("subject", "session") else null,
        )
        for name in ENTITIES
    }


def ranks(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return numbers from 0 that are ordered as the values are, equal for equal ones; -1 for null."""
    encoded = column.combine_chunks().dictionary_encode()
    place = np.empty(len(encoded.dictionary) + 1, np.int64)
    place[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(encoded.dictionary))
    place[-1] = -1
    index = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    return np.asarray(place[index.astype(np.int64)], np.int64)


def _known(uris: pa.Array, patients: Mapping[str, str]) -> pa.Array:
    return pa.array([patients.get(uri) for uri in uris.to_pylist()], pa.string())


def _session(uris: pa.Array) -> pa.Array:
    bids = pc.extract_regex(uris, _BIDS)
    is_bids = pc.equal(_group(bids, "subject"), _group(bids, "again")).fill_null(False)
    return pc.if_else(is_bids, _group(bids, "folder"), pa.scalar(None, pa.string()))


def _group(matches: pa.Array, name: str) -> pa.Array:
    """Return a group of matches, null where it matches nothing."""
    values = pc.struct_field(matches, name)
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def _by_value(column: pa.ChunkedArray, function: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return what a function gives for the distinct values of a column, row by row."""
    encoded = column.combine_chunks().dictionary_encode()
    return function(encoded.dictionary).take(encoded.indices)
