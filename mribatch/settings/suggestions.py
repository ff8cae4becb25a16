"""Suggest the name that a mistyped one was probably meant to be."""

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ": did you mean X?" for the known name most like this one, ignoring case, or "" if none is close."""
    by_lower_case = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), by_lower_case, n=1)
    return f": did you mean {by_lower_case[close[0]]}?" if close else ""
