"""Foreign storage errors, from the operating system and from boto, into ours. Nothing else."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)

from mribatch.errors import (
    StorageDenied,
    StorageError,
    StorageFull,
    StorageMissing,
    StorageUnavailable,
)

__all__ = ["code_of", "local_faults", "s3_faults"]

_DENIED = {
    "403", "AccessDenied", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken",
    "SignatureDoesNotMatch", "UnauthorizedAccess",
}  # fmt: skip
_MISSING = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}


@contextmanager
def local_faults(uri: str) -> Iterator[None]:
    """Translate OSError. Raises StorageMissing, StorageDenied, StorageFull or StorageError."""
    try:
        yield
    except FileNotFoundError as err:
        raise StorageMissing(f"no file or folder at {uri}: check the path") from err
    except PermissionError as err:
        raise StorageDenied(f"no permission for {uri}: check its owner and mode") from err
    except (NotADirectoryError, FileExistsError) as err:
        raise StorageMissing(f"expected a folder on the way to {uri}, but a part of that path is a file") from err
    except IsADirectoryError as err:
        raise StorageMissing(f"expected a file at {uri}, but it is a folder") from err
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left for {uri}: {_free(uri)}free some and run the command again") from err
        raise StorageError(f"{uri} could not be used: {err.strerror or err}") from err


@contextmanager
def s3_faults(uri: str, endpoint: str) -> Iterator[None]:
    """Translate boto's errors. Raises StorageMissing, StorageDenied, StorageUnavailable or StorageError."""
    try:
        yield
    except ClientError as err:
        raise _of_answer(err, uri) from err
    except (NoCredentialsError, PartialCredentialsError, TokenRetrievalError) as err:
        raise StorageDenied(
            f"no usable credentials for {uri}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
        ) from err
    except BotoCoreError as err:
        raise StorageUnavailable(
            f"no answer for {uri} from {endpoint} after all retries ({type(err).__name__}): "
            "check AWS_ENDPOINT_URL_S3 and the network, then run the command again"
        ) from err


def code_of(err: ClientError) -> str:
    return str(err.response.get("Error", {}).get("Code", ""))


def _of_answer(err: ClientError, uri: str) -> StorageError:
    code = code_of(err)
    if code in _MISSING:
        what = "bucket" if code == "NoSuchBucket" else "object or bucket"
        return StorageMissing(f"no {what} for {uri}: check the name")
    if code in _DENIED:
        return StorageDenied(f"access to {uri} was refused ({code}): check the credentials and the bucket's policy")
    status = err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or code in ("SlowDown", "RequestTimeout"):
        return StorageUnavailable(
            f"{uri}: the storage answered {code} after all retries; run the command again when it is well"
        )
    return StorageError(f"{uri}: the storage refused the request ({code or status}); check the URI and its settings")


def _free(uri: str) -> str:
    folder = uri
    while folder not in ("", "/"):
        folder = folder.rpartition("/")[0] or "/"
        try:
            return f"{shutil.disk_usage(folder).free >> 20} MiB are free in {folder}; "
        except OSError:
            continue
    return ""
