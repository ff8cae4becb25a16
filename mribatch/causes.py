"""The cause of an unforeseen error in a few words that are fit for a record: no path, no header text."""

import os
import traceback

__all__ = ["cause"]

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def cause(err: BaseException) -> str:
    """Return the error's type and the innermost line of this package that it passed, such as
    "ValueError in stores/uris.py, line 104, size".

    The error's own text is left out: it may quote a path or a scan's header.
    """
    what = type(err).__name__
    if isinstance(err, OSError) and err.errno:
        what += f" ({os.strerror(err.errno)})"
    frames = [frame for frame in traceback.extract_tb(err.__traceback__) if frame.filename.startswith(_PACKAGE)]
    if not frames:
        return what
    return f"{what} in {frames[-1].filename.removeprefix(_PACKAGE)}, line {frames[-1].lineno}, {frames[-1].name}"
