"""Describe an unforeseen error in a few words that are safe to store: no path, no header text."""

import os
import traceback

__all__ = ["cause"]

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def cause(err: BaseException) -> str:
    """Return the error's type and the innermost line of this package in its traceback.

    For example "ValueError in stores/uris.py, line 104, size". The error's own text is omitted, because it may quote a
    path or a scan's header.
    """
    name = type(err).__name__
    if isinstance(err, OSError) and err.errno:
        name += f" ({os.strerror(err.errno)})"
    frames = [frame for frame in traceback.extract_tb(err.__traceback__) if frame.filename.startswith(_PACKAGE)]
    if not frames:
        return name
    innermost = frames[-1]
    return f"{name} in {innermost.filename.removeprefix(_PACKAGE)}, line {innermost.lineno}, {innermost.name}"
