"""Foreign storage errors, from the operating system and from boto, into ours. Nothing else."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3.exceptions
from botocore import exceptions as boto

from mribatch.errors import (
    ConfigError,
    MribatchError,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageMissing,
    StorageUnavailable,
)

__all__ = ["code_of", "local_faults", "may_pass", "s3_faults"]

_DENIED = {
    "403", "AccessDenied", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken",
    "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired", "UnauthorizedAccess",
}  # fmt: skip
_MISSING = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}
_FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioStorageQuotaExceeded"}  # Ceph, MinIO
_BUSY = {
    "BadDigest", "ConditionalRequestConflict", "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable",
    "SlowDown", "Throttling", "ThrottlingException",
}  # fmt: skip
_BUSY_STATUS = (429, 500, 502, 503, 504)

_NO_CREDENTIALS = (
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.SSOError,
    boto.TokenRetrievalError,
)
_NO_ANSWER = (
    boto.ChecksumError,
    boto.ConnectionError,
    boto.FlexibleChecksumError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.MetadataRetrievalError,
    urllib3.exceptions.HTTPError,  # boto reads the bodies of error answers unguarded
)


@contextmanager
def local_faults(uri: str) -> Iterator[None]:
    """Translate OSError. Raises StorageMissing, StorageDenied, StorageFull or StorageError."""
    try:
        yield
    except FileNotFoundError as err:
        raise StorageMissing(f"no file or folder at {uri}: check the path") from err
    except (NotADirectoryError, FileExistsError) as err:
        raise StorageMissing(
            f"expected a folder at {_file_on_the_way(err, uri)}, but it is a file: give another path, or move the file"
        ) from err
    except IsADirectoryError as err:
        raise StorageMissing(f"expected a file at {uri}, but it is a folder: check the path") from err
    except OSError as err:
        raise _of_errno(err, uri) from err


@contextmanager
def s3_faults(uri: str, endpoint: str) -> Iterator[None]:
    """Translate boto's errors. Raises StorageError and its kin, ConfigError for settings that boto cannot use."""
    try:
        yield
    except boto.ClientError as err:
        raise _of_answer(err, uri) from err
    except _NO_CREDENTIALS as err:
        raise StorageDenied(f"no usable credentials for {uri} ({_said(err)}): set AWS_ACCESS_KEY_ID and "
                            "AWS_SECRET_ACCESS_KEY, a profile or a role") from err  # fmt: skip
    except _NO_ANSWER as err:
        raise StorageUnavailable(
            f"no answer for {uri} from {endpoint} after all retries ({type(err).__name__}): "
            "check AWS_ENDPOINT_URL_S3 and the network, then run the command again"
        ) from err
    except (boto.BotoCoreError, ValueError) as err:
        raise ConfigError(f"{uri} cannot be used as it is set up ({_said(err)}): check the URI, AWS_ENDPOINT_URL_S3, "
                          "AWS_MAX_ATTEMPTS and the AWS profile") from err  # fmt: skip


def may_pass(err: Exception) -> bool:
    """Is this an error of S3, or of the way to it, that asking again may mend?"""
    if isinstance(err, boto.ClientError):
        return code_of(err) in _BUSY or _status_of(err) in _BUSY_STATUS
    return isinstance(err, _NO_ANSWER) and not isinstance(err, boto.SSLError)


def code_of(err: boto.ClientError) -> str:
    return str(err.response.get("Error", {}).get("Code", ""))


def _of_errno(err: OSError, uri: str) -> MribatchError:
    if err.errno in (errno.EACCES, errno.EPERM):
        return StorageDenied(f"no permission for {uri}: check its owner and mode")
    if err.errno == errno.EROFS:
        return StorageDenied(f"{uri} is on a disk that is mounted read-only: give another path")
    if err.errno == errno.EDQUOT:
        return StorageFull(f"the disk quota for {uri} is used up: free some space and run the command again")
    if err.errno == errno.ENOSPC:
        return StorageFull(f"no space left for {uri} on {_disk_of(uri)}: free some and run the command again")
    return StorageError(f"{uri} could not be used ({err.strerror or err}): check the disk and the path")


def _of_answer(err: boto.ClientError, uri: str) -> StorageError:
    code = code_of(err)
    status = _status_of(err)
    if code in _MISSING:
        what = "bucket" if code == "NoSuchBucket" else "object or bucket"
        return StorageMissing(f"no {what} for {uri}: check the name")
    if code in _FULL or status == 507:
        return StorageFull(f"no space left for {uri} ({code}): free some and run the command again")
    if code in _DENIED or (status in (401, 403) and code != "InvalidObjectState"):  # that one lies in an archive class
        return StorageDenied(f"access to {uri} was refused ({code}): check the credentials and the bucket's policy")
    if code in _BUSY or status in _BUSY_STATUS:
        return StorageUnavailable(
            f"{uri}: the storage answered {code} after all retries; run the command again when it is well, "
            "and check AWS_ENDPOINT_URL_S3 if it is not meant to be S3"
        )
    return StorageError(f"{uri}: the storage refused the request ({code or status}); check the URI and its settings")


def _status_of(err: boto.ClientError) -> int:
    return int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _said(err: Exception) -> str:
    return " ".join(str(err).split()).rstrip(".")


def _file_on_the_way(err: OSError, uri: str) -> str:
    """The part of a path that was to be a folder and is a file."""
    at = os.fsdecode(err.filename) if err.filename else uri
    while at not in ("", "/") and not os.path.isfile(at):
        at = os.path.dirname(at)
    return at if at not in ("", "/") else uri


def _disk_of(uri: str) -> str:
    """The mount point that a path is or would be on, and what is free there."""
    at = uri
    while at not in ("", "/") and not os.path.ismount(at):
        at = os.path.dirname(at)
    try:
        return f"the disk at {at} ({shutil.disk_usage(at).free >> 20} MiB free)"
    except OSError:
        return "its disk"
