"""The exceptions that callers may meet, each with the exit code of a command that it ends.

    MribatchError                1   the root; catch this one to catch all
    ├── ConfigError              2   an invalid flag or setting
    ├── InputError               2   scans or labels that are missing or inconsistent
    ├── ModelError               2   a model directory that is missing, incomplete or altered
    ├── StorageError             1   a storage request failed
    │   ├── StorageMissing       2   no such file, folder or bucket
    │   ├── StorageDenied        2   permission denied
    │   │   └── CredentialsRefused  2   expired, unknown or missing credentials; ends a run at once
    │   ├── StorageUnavailable   1   no answer, or server errors, after all retries
    │   └── StorageFull          1   no space left
    ├── ScanVanished             -   a scan was deleted after it was listed (becomes a row)
    ├── ScanChanged              -   a scan was replaced after it was listed (becomes a row)
    ├── DecoderLost              -   the machine cannot start a decoder (its scans fail and are planned again)
    ├── OutputHeld               4   another run holds the output or has taken it over
    └── RunFailed                1   a run could not be completed or verified; a rerun resumes it

A message takes one or two sentences: what was expected, what was found, what to do.
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
    """The root of all errors of this package.

    `detail` is the cause in a few words, without a path or a URI. It is written to the record of a failed scan.
    """

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
