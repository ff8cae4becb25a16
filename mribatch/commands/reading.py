"""Turn settings into a reading: what is selected of DICOM files, and the secret of their identifiers."""

import logging
import os
import secrets
import stat
from contextlib import suppress

from mribatch.errors import ConfigError
from mribatch.scans.dicom.identity import Identifiers
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.reading import Reading
from mribatch.settings.score import ScoreConfig
from mribatch.stores import uris

__all__ = ["identifier_secret", "reading_of", "selection_of"]

log = logging.getLogger("mribatch.reading")

_SECRET_BYTES = 32
_LEAST_BYTES = 16


def reading_of(config: ScoreConfig) -> Reading:
    """Return the reading of some settings. Makes the file of the identifiers' secret if it does not exist.

    If no file is named and none can be made in the user's folder, a warning says that the columns stay empty. Raises
    ConfigError if a file that is named cannot be used.
    """
    return Reading(selection=selection_of(config), identifiers=_identifiers(config), digests_pixels=False)


def _identifiers(config: ScoreConfig) -> Identifiers:
    if config.identifiers != "keyed":
        return Identifiers(mode=config.identifiers)
    try:
        secret = identifier_secret(config.identifier_key, config.output)
    except ConfigError as err:
        if config.identifier_key is not None:
            raise
        log.warning("warning: the columns with identifiers of DICOM files stay empty: %s", err)
        return Identifiers(mode="none")
    return Identifiers(mode="keyed", secret=secret)


def selection_of(config: ScoreConfig) -> Selection:
    """Return which DICOM objects some settings select."""
    return Selection(
        select=config.select,
        series_match=config.series_match,
        series_skip=config.series_skip,
        window=config.window,
        max_frames=config.max_frames,
    )


def identifier_secret(file: str | None, output: str) -> bytes:
    """Return the content of a key file, by default one in the user's configuration folder. Make it if it is missing.

    Raises ConfigError for a file inside the output, on S3, too short, or that cannot be read or made.
    """
    place = os.path.abspath(os.path.expanduser(_default_place() if file is None else file))
    if file is not None and uris.is_s3(file):
        raise ConfigError(f"--identifier-key must be a file of this machine, got {file}: copy it here")
    if not uris.is_s3(output) and _is_inside(place, uris.absolute(output)):
        raise ConfigError(f"--identifier-key {place} is inside the output, which others read: give a file elsewhere")
    try:
        if not os.path.exists(place):
            _make(place)
        with open(place, "rb") as lines:
            secret = lines.read().strip()
        _check_mode(place)
    except OSError as err:
        raise ConfigError(
            f"the key file {place} cannot be read or made ({os.strerror(err.errno or 0)}): give another one with "
            "--identifier-key, or leave the columns of identifiers empty with --identifiers none"
        ) from err
    if len(secret) < _LEAST_BYTES:
        raise ConfigError(f"the key file {place} has less than {_LEAST_BYTES} bytes: remove it, and a new one is made")
    return secret


def _default_place() -> str:
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(folder, "mribatch", "identifier-key")


def _is_inside(place: str, folder: str) -> bool:
    real, root = os.path.realpath(place), os.path.realpath(folder)
    return os.path.commonpath([real, root]) == root


def _make(place: str) -> None:
    """Create a key file that only its owner can read. It appears complete; of two processes, one wins."""
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    draft = f"{place}.{os.getpid()}.tmp"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(_SECRET_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        with suppress(FileExistsError):
            os.link(draft, place)
            log.info("made %s, the secret of the columns with identifiers: keep a copy", place)
    finally:
        os.unlink(draft)


def _check_mode(place: str) -> None:
    if os.stat(place).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("warning: others can read the key file %s: run chmod 600 on it", place)
