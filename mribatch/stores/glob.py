"""Match globs against the names below a folder, alike for every store. Pure: works on names, touches no files.

* matches any characters within a name, ? one of them, [a-z] one of a set and [!a-z] one outside it; the name ** matches
any number of folders, including none. Where a folder matches, everything below it does. A [ without its ] is literal.
"""

import re
from collections.abc import Iterable

__all__ = ["Exclusion", "Glob", "is_glob"]

_WILDCARD = re.compile(r"\*+|\?|\[!?+\]?+[^\]]*\]")  # a ] that comes first is a letter of the set


def is_glob(name: str) -> bool:
    """Return whether a name has a wildcard in it."""
    return _WILDCARD.search(name) is not None


class Glob:
    """A pattern of names, outermost first."""

    def __init__(self, names: list[str]) -> None:
        *folders, last = names
        above = "".join("(?:[^/]*/)*" if name == "**" else _name_pattern(name) + "/" for name in folders)
        below = ".+" if last == "**" else _name_pattern(last) + "(?:/.*)?"
        self._fits = re.compile(above + below, re.DOTALL)
        self._may_hold = re.compile(_folder_pattern(names), re.DOTALL)
        wildcard = _WILDCARD.search(names[0])
        self.head = names[0][: wildcard.start()] if wildcard else names[0]
        """The start of every path that matches."""

    def fits(self, path: str) -> bool:
        """Return whether a file or a folder above it matches. The path is relative to where the glob begins."""
        return self._fits.fullmatch(path) is not None

    def may_hold(self, path: str) -> bool:
        """Return whether this folder or something below it may match."""
        return self._may_hold.fullmatch(path) is not None


class Exclusion:
    """Globs of what a listing leaves out, relative to the folder where the listing begins."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._globs = {pattern: Glob(pattern.strip("/").split("/")) for pattern in patterns}
        self.unused = list(self._globs)
        """The patterns that have matched nothing so far."""

    def fits(self, path: str) -> bool:
        """Return whether a pattern matches a file or folder, or a folder above it. The path is as for `Glob.fits`."""
        fitting = [pattern for pattern, glob in self._globs.items() if glob.fits(path)]
        if fitting and self.unused:
            self.unused = [pattern for pattern in self.unused if pattern not in fitting]
        return bool(fitting)


def _folder_pattern(names: list[str]) -> str:
    """Return a regular expression for the folders that lead to a match, and for everything below a match."""
    name, *rest = names
    if name == "**":
        return ".*"
    return _name_pattern(name) + (f"(?:/(?:{_folder_pattern(rest)}))?" if rest else "(?:/.*)?")


def _name_pattern(name: str) -> str:
    position, pattern = 0, ""
    for match in _WILDCARD.finditer(name):
        wildcard = match[0]
        pattern += re.escape(name[position : match.start()])
        if wildcard.startswith("*"):
            pattern += "[^/]*"
        else:
            pattern += "[^/]" if wildcard == "?" else _set_pattern(wildcard[1:-1])
        position = match.end()
    return pattern + re.escape(name[position:])


def _set_pattern(letters: str) -> str:
    """Return a regular expression for a set of letters and ranges. A reversed range is empty, as in the shell."""
    is_negated = letters.startswith("!")
    rest, members = letters.removeprefix("!"), ""
    while rest:
        if len(rest) > 2 and rest[1] == "-":
            first, last, rest = rest[0], rest[2], rest[3:]
            members += f"{re.escape(first)}-{re.escape(last)}" if first <= last else ""
        else:
            members, rest = members + re.escape(rest[0]), rest[1:]
    if not members:
        return "[^/]" if is_negated else "(?!)"
    return f"(?!/)[{'^' if is_negated else ''}{members}]"
