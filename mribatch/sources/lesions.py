"""Read where the lesions are in labelled scans: a CSV with a box for each scan."""

import io
from collections import Counter

import pyarrow as pa
import pyarrow.csv

from mribatch.errors import InputError
from mribatch.sources.manifest import is_manifest
from mribatch.stores import uris

__all__ = ["BOX", "Box", "lesion_boxes"]

BOX = ("x0", "y0", "x1", "y1")
"""The columns of a box, in shares of the picture's width and height."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in shares of width and height."""


def lesion_boxes(uri: str, data: str) -> dict[str, Box]:
    """Return the boxes in a CSV with the columns scan, x0, y0, x1 and y1, by the URIs of the scans.

    data: the folder that the paths in `scan` start from, or a manifest in it. Raises InputError for a file that is not
    such a table and for a scan with two boxes, StorageMissing if there is none.
    """
    names_are_text = pyarrow.csv.ConvertOptions(column_types={"scan": pa.string()})  # 0010 is not 10
    try:
        table = pyarrow.csv.read_csv(io.BytesIO(uris.read(uri)), convert_options=names_are_text)
    except pa.ArrowInvalid as err:
        raise InputError(f"{uri} is not a CSV table: expected the columns scan, {', '.join(BOX)}") from err
    missing = [name for name in ("scan", *BOX) if name not in table.column_names]
    if missing:
        raise InputError(f"{uri} has no column {', '.join(missing)}: expected scan, {', '.join(BOX)}")
    names = Counter(table["scan"].to_pylist())
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise InputError(
            f"{uri} has several boxes for {len(twice):,} scans, the first is {twice[0]}: with one of its lesions painted "
            "out, a scan would still show the others; leave these scans out, or give one box around all lesions of each"
        )
    root = uris.absolute(uris.parent(data) if is_manifest(data) else data)
    return {uris.join(root, row["scan"]): _box(uri, row) for row in table.to_pylist()}


def _box(uri: str, row: dict[str, object]) -> Box:
    values = [row[name] for name in BOX]
    x0, y0, x1, y1 = (float(value) if isinstance(value, int | float) else -1.0 for value in values)
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise InputError(f"a box in {uri} is {values}: expected x0 < x1 and y0 < y1, all from 0 to 1")
    return x0, y0, x1, y1
