"""Globs over the names below a folder, the same for every store. Pure: knows names and slashes, no files.

* fits any characters within a name, ? one of them, [a-z] one of a set and [!a-z] one outside it; the name ** fits any
  number of folders, also none. Where a folder fits, everything below it does. A [ without its ] is an ordinary letter.
"""

import re
from collections.abc import Iterable

__all__ = ["Exclusion", "Glob", "is_glob"]

_WORD = re.compile(r"\*+|\?|\[!?+\]?+[^\]]*\]")  # a ] that comes first is a letter of the set


def is_glob(name: str) -> bool:
    return _WORD.search(name) is not None


class Glob:
    """A pattern of names, outermost first."""

    def __init__(self, names: list[str]) -> None:
        self._fits = re.compile(_whole(names), re.DOTALL)
        self._may_hold = re.compile(_start_of(names), re.DOTALL)
        word = _WORD.search(names[0])
        self.head = names[0][: word.start()] if word else names[0]
        """How every path that fits begins."""

    def fits(self, path: str) -> bool:
        """Does a file fit, or a folder above it? The path is relative to the folder where the glob begins."""
        return self._fits.fullmatch(path) is not None

    def may_hold(self, path: str) -> bool:
        """May something in or below this folder fit?"""
        return self._may_hold.fullmatch(path) is not None


class Exclusion:
    """Globs of what a listing leaves out, relative to the folder where it begins."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._globs = {pattern: Glob(pattern.strip("/").split("/")) for pattern in patterns}
        self.unused = list(self._globs)
        """The patterns that nothing has fitted so far."""

    def fits(self, path: str) -> bool:
        """Is a file or folder, or a folder above it, to be left out? The path is relative to where the listing begins."""
        fitting = [pattern for pattern, glob in self._globs.items() if glob.fits(path)]
        if fitting and self.unused:
            self.unused = [pattern for pattern in self.unused if pattern not in fitting]
        return bool(fitting)


def _whole(names: list[str]) -> str:
    *folders, last = names
    above = "".join("(?:[^/]*/)*" if name == "**" else _name(name) + "/" for name in folders)
    return above + (".+" if last == "**" else _name(last) + "(?:/.*)?")


def _start_of(names: list[str]) -> str:
    """A pattern for the folders on the way to what fits, and for all below what fits."""
    name, *rest = names
    if name == "**":
        return ".*"
    return _name(name) + (f"(?:/(?:{_start_of(rest)}))?" if rest else "(?:/.*)?")


def _name(name: str) -> str:
    at, found = 0, ""
    for word in _WORD.finditer(name):
        found += re.escape(name[at : word.start()]) + _word(word[0])
        at = word.end()
    return found + re.escape(name[at:])


def _word(word: str) -> str:
    if word.startswith("*"):
        return "[^/]*"
    return "[^/]" if word == "?" else _set(word[1:-1])


def _set(letters: str) -> str:
    """A set of letters and ranges; a range that runs backwards is empty, as in the shell."""
    outside = letters.startswith("!")
    rest, found = letters.removeprefix("!"), ""
    while rest:
        if len(rest) > 2 and rest[1] == "-":
            first, last, rest = rest[0], rest[2], rest[3:]
            found += f"{re.escape(first)}-{re.escape(last)}" if first <= last else ""
        else:
            found, rest = found + re.escape(rest[0]), rest[1:]
    if not found:
        return "[^/]" if outside else "(?!)"
    return f"(?!/)[{'^' if outside else ''}{found}]"
