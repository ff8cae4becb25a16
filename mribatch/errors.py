"""The exceptions a caller may meet, and the exit code each one ends a command with. No logic.

    MribatchError                1   the root; catch this one to catch all
    ├── ConfigError              2   a flag or a setting that cannot be right
    ├── InputError               2   the scans or labels named are not there or do not fit together
    ├── ModelError               2   a model directory that is missing, incomplete or altered
    ├── StorageError             1   the storage did not do what was asked
    │   ├── StorageMissing       2   no such file, folder or bucket
    │   ├── StorageDenied        2   permissions do not allow it
    │   │   └── CredentialsRefused  2   no usable credentials: expired, unknown or missing; ends a run at once
    │   ├── StorageUnavailable   1   no answer, or server errors, after all retries
    │   └── StorageFull          1   no space left
    ├── ScanVanished             -   one scan is gone since it was listed (becomes a row)
    ├── ScanChanged              -   one scan was replaced since it was listed (becomes a row)
    ├── DecoderLost              -   the machine does not let scans be decoded (they fail, and are planned again)
    ├── OutputHeld               4   another run holds the output, or took it over
    └── RunFailed                1   a run that could not be completed or verified; a rerun goes on

Every message is one sentence or two: what was expected, what came, what to do.
"""

from typing import ClassVar

__all__ = [
    "ConfigError",
    "CredentialsRefused",
    "DecoderLost",
    "InputError",
    "ModelError",
    "MribatchError",
    "OutputHeld",
    "RunFailed",
    "ScanChanged",
    "ScanVanished",
    "StorageDenied",
    "StorageError",
    "StorageFull",
    "StorageMissing",
    "StorageUnavailable",
]


class MribatchError(Exception):
    """`detail` is the cause in a few words, without a path or a URI: what a failed scan's record holds."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "", *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class ConfigError(MribatchError):
    exit_code = 2


class InputError(MribatchError):
    exit_code = 2


class ModelError(MribatchError):
    exit_code = 2


class StorageError(MribatchError):
    pass


class StorageMissing(StorageError):
    exit_code = 2


class StorageDenied(StorageError):
    exit_code = 2


class CredentialsRefused(StorageDenied):
    pass


class StorageUnavailable(StorageError):
    pass


class StorageFull(StorageError):
    pass


class ScanVanished(MribatchError):
    pass


class ScanChanged(MribatchError):
    pass


class DecoderLost(MribatchError):
    pass


class OutputHeld(MribatchError):
    exit_code = 4


class RunFailed(MribatchError):
    pass
