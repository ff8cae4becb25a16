"""What the settings of all commands share: checks, fingerprint, and their way back to flags and command lines."""

import dataclasses
import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from mribatch.errors import ConfigError
from mribatch.settings.types import check_types

__all__ = []


Uri = Annotated[str, tyro.conf.arg(metavar="URI")]


Uris = Annotated[tuple[str, ...], tyro.conf.arg(metavar="URI [URI …]")]


Globs = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="GLOB")]


MaybeUri = Annotated[str | None, tyro.conf.arg(metavar="URI")]


MaybeNumber = Annotated[int | None, tyro.conf.arg(metavar="N")]


RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all configs share."""

    requester_pays: bool = False
    """Pay for the requests to S3 buckets that bill their readers."""

    def __post_init__(self) -> None:
        """Check types; subclasses call this before they check ranges. Raises ConfigError."""
        check_types(self)
        for glob in getattr(self, "exclude", ()):
            outside = "://" in glob or glob.startswith("/") or ".." in glob.split("/")
            check(bool(glob.strip("/")) and not outside, f"--exclude is a glob relative to the input, got {glob!r}")

    def fingerprint(self) -> str:
        """The first 12 hex digits of the SHA-256 of all settings but who pays: equal settings, equal fingerprint."""
        settings = self.as_dict()
        del settings["requester_pays"]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """All settings, ready for JSON."""
        settings: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return settings

    def changed(self, *names: str) -> list[str]:
        """The flags, of some settings, whose value is not the default."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) != defaults[name]]

    def flags(self, *names: str) -> str:
        """The flags of some settings as the user's command calls them, for messages: "--batch-size or --workers"."""
        return " or ".join(filter(None, map(self._flag, names)))

    def _flag(self, name: str) -> str | None:
        assert name in {field.name for field in dataclasses.fields(self)}
        return "--" + name.replace("_", "-")

    def command(self, script: str) -> str:
        """The command line that gives these settings: what differs from the defaults."""
        words = ["python", script]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            flag = field.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            elif field.name == "exclude":
                words += [word for glob in value for word in (f"--{flag}", glob)]
            elif isinstance(value, tuple):
                words += [f"--{flag}", *map(str, value)]
            else:
                words += [f"--{flag}", str(value)]
        return shlex.join(words)


def check(right: bool, message: str) -> None:
    if not right:
        raise ConfigError(message)


def check_share(flag: str, value: float) -> None:
    check(0 <= value <= 1, f"{flag} is a share between 0 and 1, got {value}")
