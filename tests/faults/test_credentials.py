"""Expired and refused credentials, wrong regions, closed scans: each message names the cause and the remedy."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mribatch.cluster import decoding
from mribatch.errors import ConfigError, CredentialsRefused, StorageDenied
from mribatch.scans.limits import ImageSpec
from mribatch.sources.listing import list_scans
from mribatch.stores import access, uris
from tests.conftest import write_scans
from tests.faults.conftest import Behind
from tests.faults.odd_stores import Refusal, Refuses, denies, expired

# Credentials and permissions


def write_credentials(path: Path, key: str) -> None:
    path.write_text(f"[night]\naws_access_key_id = {key}\naws_secret_access_key = hidden\naws_session_token = t\n")


@pytest.fixture
def profile(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:  # noqa: ARG001 - sets what this unsets
    """Use the profile `night` and return its credentials file."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "night")
    write_credentials(tmp_path / "credentials", "AKIAOLDOLD1234")
    return tmp_path / "credentials"


@pytest.mark.usefixtures("profile")
def test_refused_credentials_are_named_by_their_last_characters_and_source_never_by_the_secret(
    bucket: str, behind: Behind
) -> None:
    behind(expired(), plain=True)
    source, now = r"shared-credentials-file, profile night", f"{datetime.now(UTC):%Y-%m-%d}"
    words = rf"ExpiredToken.*access key …1234 \({source}\) on .*refused at {now}.*renew them"
    with pytest.raises(CredentialsRefused, match=words) as caught:
        uris.read(f"{bucket}/x")
    assert "AKIA" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_credentials_are_read_again_after_their_file_was_rewritten(bucket: str, behind: Behind, profile: Path) -> None:
    uris.put(f"{bucket}/x", b"data")
    store = expired(lambda asked: asked.access_key == "AKIAOLDOLD1234")
    behind(store, plain=True)
    store.on = False
    assert uris.read(f"{bucket}/x") == b"data"
    store.on = True
    with pytest.raises(CredentialsRefused):
        uris.read(f"{bucket}/x")
    write_credentials(profile, "AKIANEWNEW5678")
    assert uris.read(f"{bucket}/x") == b"data"
    refused = store.refused
    uris.put(f"{bucket}/y", b"data")
    assert store.refused == refused, "the old credentials are not used again"


@pytest.mark.usefixtures("s3_server")
def test_refused_credentials_are_named_with_their_expiration_if_known(
    bucket: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    end = datetime.now(UTC) - timedelta(minutes=5)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", end.isoformat())
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    with pytest.raises(CredentialsRefused, match=rf"\(env\).*which expired at {end:%Y-%m-%d %H:%M:%S} UTC: renew them"):
        uris.read(f"{bucket}/x")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "InvalidAccessKeyId", "renew them"),
        (403, "SignatureDoesNotMatch", "check AWS_SECRET_ACCESS_KEY"),
        (403, "RequestTimeTooSkewed", "set the clock"),
        (400, "TokenRefreshRequired", "renew them"),
        (401, "Unauthorized", "renew them"),
    ],
)
def test_refused_credentials_end_a_block_of_scans_whatever_the_error_code(
    bucket: str, behind: Behind, status: int, code: str, words: str
) -> None:
    write_scans(bucket, {"glioma": 1})
    table = list_scans([bucket])
    behind(Refuses(Refusal(status, code)), plain=True)
    with pytest.raises(CredentialsRefused, match=f"{code}.*{words}"):
        decoding.decode_table(table, spec=ImageSpec(side_px=32))


def test_a_redirect_names_the_region_and_the_variable_to_set(bucket: str, behind: Behind) -> None:
    for refusal in (
        Refusal(301, "PermanentRedirect", {"x-amz-bucket-region": "eu-central-1"}),
        Refusal(400, "AuthorizationHeaderMalformed", {"x-amz-bucket-region": "eu-central-1"}),
    ):
        behind(Refuses(refusal), plain=True)
        with pytest.raises(ConfigError, match=r"in region eu-central-1.*set AWS_DEFAULT_REGION=eu-central-1"):
            uris.read(f"{bucket}/x")


# Closed scans, and everything closed


@pytest.fixture
def no_denials_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the denials that this process has met."""
    monkeypatch.setattr(decoding, "denials", access.Access())


@pytest.mark.usefixtures("no_denials_yet")
def test_scans_of_a_closed_folder_among_good_ones_fail_with_the_cause(bucket: str, behind: Behind) -> None:
    write_scans(bucket, {"closed": 40, "good": 4})
    table = list_scans([bucket])
    behind(denies(lambda asked: "/closed/" in asked.path), plain=True)
    rows = decoding.decode_table(table, spec=ImageSpec(side_px=32), among=access.witnesses(table)).to_pylist()
    assert {(row["status"], row["detail"]) for row in rows if "/closed/" in row["scan_uri"]} == {
        ("failed", "access denied (AccessDenied)")
    }
    assert [row["status"] for row in rows if "/good/" in row["scan_uri"]] == ["ok"] * 4
    again = table.slice(0, 40)  # only the closed ones are left for the next run
    rows = decoding.decode_table(again, spec=ImageSpec(side_px=32), among=access.witnesses(table)).to_pylist()
    assert {row["status"] for row in rows} == {"failed"}


@pytest.mark.usefixtures("no_denials_yet")
def test_a_run_ends_when_every_scan_is_closed(bucket: str, behind: Behind) -> None:
    write_scans(bucket, {"glioma": 40})
    table = list_scans([bucket])
    store = denies(lambda _: True)
    behind(store, plain=True)
    with pytest.raises(StorageDenied, match=r"AccessDenied.*last 8 scans were denied, and so were 16"):
        decoding.decode_table(table, spec=ImageSpec(side_px=32), among=access.witnesses(table))
    assert store.refused == 8 + 16


@pytest.mark.usefixtures("no_denials_yet")
def test_a_run_ends_when_every_scan_on_disk_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scans(tmp_path, {"glioma": 10})
    table = list_scans([str(tmp_path)])

    def closed(uri: str, version: str) -> bytes:
        raise StorageDenied(f"no permission for {uri}, {version}", detail="permission denied")

    monkeypatch.setattr(uris, "read_version", closed)  # tests may run as root, who may read any file
    with pytest.raises(StorageDenied, match="last 8 scans"):
        decoding.decode_table(table, spec=ImageSpec(side_px=32), among=access.witnesses(table))
