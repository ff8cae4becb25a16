"""Translate storage errors of the operating system and of boto to the errors of this package."""

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
    "AccountProblem",
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidPayer",
    "InvalidSecurity",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingSecurityHeader",
    "NotSignedUp",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnauthorizedAccess",
    "UnrecognizedClientException",
}
_MISSING = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}
_FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioStorageQuotaExceeded"}  # Ceph, MinIO
_BUSY = {
    "BadDigest",
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
}
_BUSY_STATUS = (429, 500, 502, 503, 504)
_OTHER_REGION = {"IllegalLocationConstraintException", "PermanentRedirect", "TemporaryRedirect"}
_OTHER_REGION_STATUS = (301, 302, 307, 308)
_MALFORMED = {"400", "AuthorizationHeaderMalformed"}  # signed for another region, if the response names one
_S3 = {"DeleteObject", "GetObject", "HeadObject", "ListObjectsV2", "PutObject"}  # the others fetch credentials

_REMEDIES = {  # for codes that renewed credentials do not fix
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
    urllib3.exceptions.HTTPError,  # boto lets it through when it reads the body of an error response
)
_PASSING_TLS = ("EOF", "reset", "timed out")  # in an SSLError: a broken connection and not a wrong setting


@contextmanager
def local_faults(uri: str) -> Iterator[None]:
    """Translate OSError to StorageMissing, StorageDenied, StorageFull or StorageError."""
    try:
        yield
    except FileNotFoundError as err:
        raise StorageMissing(f"no file or folder at {uri}: check the path", detail="no such file") from err
    except (NotADirectoryError, FileExistsError) as err:
        file = _nearest(os.fsdecode(err.filename) if err.filename else uri, os.path.isfile) or uri
        raise StorageMissing(
            f"expected a folder at {file}, but it is a file: give another path, or move the file",
            detail="its folder is a file",
        ) from err
    except IsADirectoryError as err:
        raise StorageMissing(
            f"expected a file at {uri}, but it is a folder: check the path", detail="it is a folder"
        ) from err
    except OSError as err:
        raise _os_error(err, uri) from err


@contextmanager
def s3_faults(uri: str, endpoint: str, who: Callable[[], str] = lambda: "the credentials in use") -> Iterator[None]:
    """Translate boto's errors to StorageError and its subclasses, and to ConfigError for settings that cannot work.

    `who` describes the credentials in use, without the secret.
    """
    try:
        yield
    except boto.ClientError as err:
        raise _response_error(err, uri, who) from err
    except _NO_CREDENTIALS as err:
        raise CredentialsRefused(
            f"no usable credentials for {uri} on {os.uname().nodename} ({_one_line(err)}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile or a role",
            detail="no usable credentials",
        ) from err
    except boto.SSLError as err:
        raise _tls_error(err, uri, endpoint) from err
    except _NO_ANSWER as err:
        raise _no_answer(err, uri, endpoint) from err
    except RuntimeError as err:
        if not is_about_credentials(err):
            raise
        raise _refused("expired", uri, who) from err
    except (boto.BotoCoreError, ValueError) as err:
        settings = "the URI, AWS_ENDPOINT_URL_S3, AWS_MAX_ATTEMPTS and the AWS profile"
        raise ConfigError(f"{uri} cannot be used as it is set up ({_one_line(err)}): check {settings}") from err


def may_pass(err: Exception) -> bool:
    """Return whether an error of S3, or of the connection to it, may be temporary."""
    if isinstance(err, boto.ClientError):
        return code_of(err) in _BUSY or status_of(err) in _BUSY_STATUS
    if isinstance(err, boto.SSLError):
        return any(words in str(err) for words in _PASSING_TLS)
    return isinstance(err, _NO_ANSWER)


def is_about_credentials(err: Exception) -> bool:
    """Return whether the credentials themselves are refused, whatever they are used for."""
    if isinstance(err, boto.ClientError):
        unknown = code_of(err) == "AuthorizationHeaderMalformed" and not _region_of(err)
        return code_of(err) in _CREDENTIALS or status_of(err) == 401 or err.operation_name not in _S3 or unknown
    if isinstance(err, RuntimeError):
        return "expired" in str(err)  # from botocore, when renewed credentials have already expired
    return isinstance(err, _NO_CREDENTIALS)


def code_of(err: boto.ClientError) -> str:
    """Return the error code of a response, or an empty string."""
    return str(err.response.get("Error", {}).get("Code", ""))


def status_of(err: boto.ClientError) -> int:
    """Return the HTTP status of a response, or 0."""
    return int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _os_error(err: OSError, uri: str) -> MribatchError:
    detail = (err.strerror or type(err).__name__).lower()
    if err.errno in (errno.EACCES, errno.EPERM):
        return StorageDenied(f"no permission for {uri}: check its owner and mode", detail=detail)
    if err.errno == errno.EROFS:
        return StorageDenied(f"{uri} is on a disk that is mounted read-only: give another path", detail=detail)
    if err.errno == errno.EDQUOT:
        return StorageFull(f"the disk quota for {uri} is used up: free some space and run the command again")
    if err.errno == errno.ENOSPC:
        return StorageFull(f"no space left for {uri} on {_disk_of(uri)}: free some space and run the command again")
    return StorageError(f"{uri} could not be used ({err.strerror or err}): check the disk and the path", detail=detail)


def _response_error(err: boto.ClientError, uri: str, who: Callable[[], str]) -> MribatchError:
    code, status = code_of(err) or str(status_of(err)), status_of(err)
    if code in _BUSY or status in _BUSY_STATUS:
        return StorageUnavailable(
            f"{uri}: the storage answered {code} after all retries; run the command again when it has recovered, "
            "and check AWS_ENDPOINT_URL_S3 if it is not Amazon S3",
            detail=f"the storage answered {code} after all retries",
        )
    if is_about_credentials(err):
        return _refused(code, uri, who)
    if code in _OTHER_REGION or status in _OTHER_REGION_STATUS or (code in _MALFORMED and _region_of(err)):
        return _other_region(err, uri)
    if code in _MISSING:
        missing = "bucket" if code == "NoSuchBucket" else "object or bucket"
        return StorageMissing(f"no {missing} for {uri}: check the name", detail=f"no {missing}")
    if code in _FULL or status == 507:
        return StorageFull(f"no space left for {uri} ({code}): free some space and run the command again")
    if code == "InvalidObjectState":
        return StorageError(
            f"{uri} is in an archive storage class ({code}): restore it before it can be read",
            detail=f"in an archive storage class, must be restored first ({code})",
        )
    if code in _DENIED or status == 403:
        return StorageDenied(
            f"access to {uri} was refused ({code}): check the policies of the bucket and of {who()}, and "
            "--requester-pays for a bucket that bills its readers",
            detail=f"access denied ({code})",
        )
    detail = f"the storage refused the request ({code})"
    return StorageError(f"{uri}: {detail}; check the URI and its settings", detail=detail)


def _refused(code: str, uri: str, who: Callable[[], str]) -> CredentialsRefused:
    remedy = _REMEDIES.get(code, "renew them")
    return CredentialsRefused(
        f"the storage refused the credentials for {uri} ({code}), {who()}: {remedy} and run the command again; it "
        "resumes where it stopped",
        detail=f"credentials refused ({code})",
    )


def _other_region(err: boto.ClientError, uri: str) -> ConfigError:
    region, endpoint = _region_of(err), str(err.response.get("Error", {}).get("Endpoint", ""))
    where = f"in region {region}" if region else "in another region"
    remedy = f"set AWS_DEFAULT_REGION={region}" if region else "set AWS_DEFAULT_REGION to it"
    hint = f" (the storage names {endpoint})" if endpoint else ""
    return ConfigError(
        f"{uri} is {where}, and the request went to another one ({code_of(err)}): {remedy}, and leave "
        f"AWS_ENDPOINT_URL_S3 unset or set it to that region's endpoint{hint}"
    )


def _region_of(err: boto.ClientError) -> str:
    """Return the region that a response names. AWS names it in other refusals too, so check the code first."""
    headers = err.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("x-amz-bucket-region") or err.response.get("Error", {}).get("Region", ""))


def _tls_error(err: boto.SSLError, uri: str, endpoint: str) -> MribatchError:
    if may_pass(err):
        return _no_answer(err, uri, endpoint)
    return ConfigError(
        f"no secure connection to {endpoint} for {uri} ({_one_line(err)}): for a private certificate authority set "
        "AWS_CA_BUNDLE to its certificate file, on every node; otherwise check AWS_ENDPOINT_URL_S3"
    )


def _no_answer(err: Exception, uri: str, endpoint: str) -> StorageUnavailable:
    return StorageUnavailable(
        f"no answer for {uri} from {endpoint} after all retries ({type(err).__name__}): "
        "check AWS_ENDPOINT_URL_S3 and the network, then run the command again",
        detail=f"no answer from the storage after all retries ({type(err).__name__})",
    )


def _one_line(err: Exception) -> str:
    return " ".join(str(err).split()).rstrip(".")


def _nearest(path: str, test: Callable[[str], bool]) -> str:
    """Return the path or the nearest folder above it that passes a test, or an empty string."""
    while path not in ("", "/") and not test(path):
        path = os.path.dirname(path)
    return path if test(path) else ""


def _disk_of(uri: str) -> str:
    """Describe the mount point of a path, which need not exist, and the free space on it."""
    mount = _nearest(uri, os.path.ismount)
    try:
        return f"the disk at {mount} ({shutil.disk_usage(mount).free >> 20} MiB free)"
    except OSError:
        return "its disk"
