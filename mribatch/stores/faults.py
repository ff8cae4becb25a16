"""Foreign storage errors, from the operating system and from boto, into ours. Nothing else."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import urllib3.exceptions
from botocore import exceptions as boto

from mribatch.errors import (
    ConfigError,
    CredentialsRefused,
    MribatchError,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageMissing,
    StorageUnavailable,
)

__all__ = ["code_of", "is_about_credentials", "local_faults", "may_pass", "s3_faults", "status_of"]

_DENIED = {"403", "AccessDenied", "AllAccessDisabled"}
_CREDENTIALS = {
    "AccountProblem", "AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId",
    "InvalidPayer", "InvalidSecurity", "InvalidToken", "MissingAuthenticationToken", "MissingSecurityHeader", "NotSignedUp",
    "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired", "UnauthorizedAccess",
    "UnrecognizedClientException",
}  # fmt: skip
_MISSING = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}
_FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioStorageQuotaExceeded"}  # Ceph, MinIO
_BUSY = {
    "BadDigest", "ConditionalRequestConflict", "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable",
    "SlowDown", "Throttling", "ThrottlingException",
}  # fmt: skip
_BUSY_STATUS = (429, 500, 502, 503, 504)
_ELSEWHERE = {"IllegalLocationConstraintException", "PermanentRedirect", "TemporaryRedirect"}
_ELSEWHERE_STATUS = (301, 302, 307, 308)
_MALFORMED = {"400", "AuthorizationHeaderMalformed"}  # where the answer names a region: signed for another one
_S3 = {"DeleteObject", "GetObject", "HeadObject", "ListObjectsV2", "PutObject"}  # others are asked for credentials

_REMEDIES = {  # for codes that renewed credentials do not mend
    "RequestTimeTooSkewed": "set the clock of that machine",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY, and any gateway that rewrites requests",
}

_NO_CREDENTIALS = (
    boto.CredentialRetrievalError,
    boto.LoginError,
    boto.NoAuthTokenError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.RefreshWithMFAUnsupportedError,
    boto.SSOError,
    boto.TokenRetrievalError,
    boto.UnknownCredentialError,
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
_PASSING_TLS = ("EOF", "reset", "timed out")  # of an SSLError: the way to the storage broke; all others are settings


@contextmanager
def local_faults(uri: str) -> Iterator[None]:
    """Translate OSError. Raises StorageMissing, StorageDenied, StorageFull or StorageError."""
    try:
        yield
    except FileNotFoundError as err:
        raise StorageMissing(f"no file or folder at {uri}: check the path", detail="no such file") from err
    except (NotADirectoryError, FileExistsError) as err:
        raise StorageMissing(
            f"expected a folder at {_file_on_the_way(err, uri)}, but it is a file: give another path, or move the file",
            detail="a file is in the place of its folder",
        ) from err
    except IsADirectoryError as err:
        raise StorageMissing(
            f"expected a file at {uri}, but it is a folder: check the path", detail="a folder is in its place"
        ) from err
    except OSError as err:
        raise _of_errno(err, uri) from err


@contextmanager
def s3_faults(uri: str, endpoint: str, who: Callable[[], str] = lambda: "the credentials in use") -> Iterator[None]:
    """Translate boto's errors. `who` describes the credentials in use, without the secret.

    Raises StorageError and its kin, and ConfigError for settings that cannot work.
    """
    try:
        yield
    except boto.ClientError as err:
        raise _of_answer(err, uri, who) from err
    except _NO_CREDENTIALS as err:
        raise CredentialsRefused(
            f"no usable credentials for {uri} on {os.uname().nodename} ({_said(err)}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile or a role",
            detail="no usable credentials",
        ) from err
    except boto.SSLError as err:
        raise _of_tls(err, uri, endpoint) from err
    except _NO_ANSWER as err:
        raise _no_answer(err, uri, endpoint) from err
    except RuntimeError as err:
        if not is_about_credentials(err):
            raise
        raise _refused("expired", uri, who) from err
    except (boto.BotoCoreError, ValueError) as err:
        raise ConfigError(f"{uri} cannot be used as it is set up ({_said(err)}): check the URI, AWS_ENDPOINT_URL_S3, "
                          "AWS_MAX_ATTEMPTS and the AWS profile") from err  # fmt: skip


def may_pass(err: Exception) -> bool:
    """Is this an error of S3, or of the way to it, that asking again may mend?"""
    if isinstance(err, boto.ClientError):
        return code_of(err) in _BUSY or status_of(err) in _BUSY_STATUS
    if isinstance(err, boto.SSLError):
        return any(words in str(err) for words in _PASSING_TLS)
    return isinstance(err, _NO_ANSWER)


def is_about_credentials(err: Exception) -> bool:
    """Does an error mean that the credentials themselves are refused, whatever they are used for?"""
    if isinstance(err, boto.ClientError):
        unknown = code_of(err) == "AuthorizationHeaderMalformed" and not _region_of(err)
        return code_of(err) in _CREDENTIALS or status_of(err) == 401 or err.operation_name not in _S3 or unknown
    if isinstance(err, RuntimeError):
        return "expired" in str(err)  # botocore's, where the renewed credentials are out of date themselves
    return isinstance(err, _NO_CREDENTIALS)


def code_of(err: boto.ClientError) -> str:
    return str(err.response.get("Error", {}).get("Code", ""))


def status_of(err: boto.ClientError) -> int:
    return int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _of_errno(err: OSError, uri: str) -> MribatchError:
    detail = (err.strerror or type(err).__name__).lower()
    if err.errno in (errno.EACCES, errno.EPERM):
        return StorageDenied(f"no permission for {uri}: check its owner and mode", detail=detail)
    if err.errno == errno.EROFS:
        return StorageDenied(f"{uri} is on a disk that is mounted read-only: give another path", detail=detail)
    if err.errno == errno.EDQUOT:
        return StorageFull(f"the disk quota for {uri} is used up: free some space and run the command again")
    if err.errno == errno.ENOSPC:
        return StorageFull(f"no space left for {uri} on {_disk_of(uri)}: free some and run the command again")
    return StorageError(f"{uri} could not be used ({err.strerror or err}): check the disk and the path", detail=detail)


def _of_answer(err: boto.ClientError, uri: str, who: Callable[[], str]) -> MribatchError:
    code, status = code_of(err) or str(status_of(err)), status_of(err)
    if code in _BUSY or status in _BUSY_STATUS:
        return StorageUnavailable(
            f"{uri}: the storage answered {code} after all retries; run the command again when it is well, "
            "and check AWS_ENDPOINT_URL_S3 if it is not meant to be S3",
            detail=f"the storage answered {code} after all retries",
        )
    if is_about_credentials(err):
        return _refused(code, uri, who)
    if code in _ELSEWHERE or status in _ELSEWHERE_STATUS or (code in _MALFORMED and _region_of(err)):
        return _elsewhere(err, uri)
    if code in _MISSING:
        what = "bucket" if code == "NoSuchBucket" else "object or bucket"
        return StorageMissing(f"no {what} for {uri}: check the name", detail=f"no {what}")
    if code in _FULL or status == 507:
        return StorageFull(f"no space left for {uri} ({code}): free some and run the command again")
    if code == "InvalidObjectState":
        return StorageError(f"{uri} is in an archive class that must be restored before it can be read ({code})",
                            detail=f"in an archive class, to be restored first ({code})")  # fmt: skip
    if code in _DENIED or status == 403:
        return StorageDenied(
            f"access to {uri} was refused ({code}): check the policies of the bucket and of {who()}, and "
            "--requester-pays for a bucket that bills its readers",
            detail=f"access denied ({code})",
        )
    return StorageError(f"{uri}: the storage refused the request ({code}); check the URI and its settings",
                        detail=f"the storage refused the request ({code})")  # fmt: skip


def _refused(code: str, uri: str, who: Callable[[], str]) -> CredentialsRefused:
    remedy = _REMEDIES.get(code, "renew them")
    return CredentialsRefused(
        f"the storage refused the credentials for {uri} ({code}), {who()}: {remedy} and run the command again, it resumes "
        "where it was",
        detail=f"credentials refused ({code})",
    )


def _elsewhere(err: boto.ClientError, uri: str) -> ConfigError:
    region, endpoint = _region_of(err), str(err.response.get("Error", {}).get("Endpoint", ""))
    where = f"in region {region}" if region else "in another region"
    remedy = f"set AWS_DEFAULT_REGION={region}" if region else "set AWS_DEFAULT_REGION to it"
    hint = f" (the storage names {endpoint})" if endpoint else ""
    return ConfigError(f"{uri} is {where}, and the request went to another one ({code_of(err)}): {remedy}, and leave "
                       f"AWS_ENDPOINT_URL_S3 unset or make it that region's{hint}")  # fmt: skip


def _region_of(err: boto.ClientError) -> str:
    """The region that an answer names. AWS names it in other refusals, too, so it proves nothing without the code."""
    headers = err.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("x-amz-bucket-region") or err.response.get("Error", {}).get("Region", ""))


def _of_tls(err: boto.SSLError, uri: str, endpoint: str) -> MribatchError:
    if may_pass(err):
        return _no_answer(err, uri, endpoint)
    return ConfigError(f"no safe connection to {endpoint} for {uri} ({_said(err)}): for a private certificate authority set "
                       "AWS_CA_BUNDLE to its certificate file, on every node; else check AWS_ENDPOINT_URL_S3")  # fmt: skip


def _no_answer(err: Exception, uri: str, endpoint: str) -> StorageUnavailable:
    return StorageUnavailable(
        f"no answer for {uri} from {endpoint} after all retries ({type(err).__name__}): "
        "check AWS_ENDPOINT_URL_S3 and the network, then run the command again",
        detail=f"no answer from the storage after all retries ({type(err).__name__})",
    )


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
