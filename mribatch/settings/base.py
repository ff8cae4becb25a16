"""What the settings of all commands share: checks, fingerprint, and their way back to flags and command lines."""

import dataclasses
import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Annotated, Any

from mribatch.errors import ConfigError
from mribatch.settings.flags import Flag, flag_of
from mribatch.settings.types import check_types

__all__ = ["BATCH_SCANS", "RUN_NAME", "Settings", "check", "check_range"]

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CHANGE_NO_RESULT = ("requester_pays", "require_acceptance", "engine")
BATCH_SCANS = 65_536  # the largest batch; more is a mistake


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that every command has."""

    requester_pays: Annotated[bool, Flag("Storage")] = False
    """Pay the request costs of S3 buckets that bill the reader (requester pays)."""

    def __post_init__(self) -> None:
        """Check types; subclasses call this before they check ranges. Raises ConfigError."""
        check_types(self)
        for glob in getattr(self, "exclude", ()):
            outside = "://" in glob or glob.startswith("/") or ".." in glob.split("/")
            check(bool(glob.strip("/")) and not outside, f"--exclude is a glob relative to the input, got {glob!r}")
        for name, value in vars(self).items():
            is_empty = "" in value if isinstance(value, tuple) else value == ""
            check(not is_empty, f"{flag_of(name)} is empty: give a value, or leave it out (is a variable not set?)")

    def fingerprint(self) -> str:
        """Return the first 12 hex digits of the SHA-256 of all settings that can change a result: the same for equal ones."""
        settings = {name: value for name, value in self.as_dict().items() if name not in _CHANGE_NO_RESULT}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """Return all settings, ready for JSON."""
        settings: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return settings

    def changed(self, *names: str) -> list[str]:
        """Return the flags of those of these settings that differ from their default."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return [flag_of(name) for name in names if getattr(self, name) != defaults[name]]

    def flags(self, *names: str) -> str:
        """Return the flags of some settings as the user's command calls them: "--batch-size or --workers"."""
        return " or ".join(filter(None, map(self._flag, names)))

    def _flag(self, name: str) -> str | None:
        assert name in {field.name for field in dataclasses.fields(self)}
        return flag_of(name)

    def command(self, script: str) -> str:
        """Return the command line that gives these settings, without those that have their default."""
        words = ["python", script]
        for field in dataclasses.fields(self):
            value, flag = getattr(self, field.name), flag_of(field.name)
            if value == field.default:
                continue
            if isinstance(value, bool):
                words.append(flag if value else f"--no-{flag[2:]}")
            elif field.name == "exclude":
                words += [word for glob in value for word in (flag, glob)]
            elif isinstance(value, tuple):
                words += [flag, *map(str, value)]
            else:
                words += [flag, str(value)]
        return shlex.join(words)


def check(holds: bool, message: str) -> None:
    """Raise ConfigError with this message unless the condition holds."""
    if not holds:
        raise ConfigError(message)


def check_range(
    settings: Settings,
    name: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raise ConfigError for a setting outside these limits, naming its flag. A setting that is None passes."""
    value = getattr(settings, name)
    limits = [("at least", least, ge), ("above", above, gt), ("at most", most, le), ("below", below, lt)]
    stated = [(words, limit, holds) for words, limit, holds in limits if limit is not None]
    fits = value is None or all(holds(value, limit) for _, limit, holds in stated)
    expected = " and ".join(f"{words} {limit}" for words, limit, _ in stated)
    check(fits, f"{settings.flags(name) or flag_of(name)} must be {expected}, got {value}")
