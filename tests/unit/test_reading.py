"""A reading: which rows depend on which settings, and the secret of identifiers."""

import os
import stat
from pathlib import Path

import pyarrow as pa
import pytest
from pydicom.uid import JPEG2000Lossless

from mribatch import schema
from mribatch.commands.reading import identifier_secret, reading_of
from mribatch.errors import ConfigError
from mribatch.predictions.files import is_done, outcomes
from mribatch.scans import reading as reading_module
from mribatch.scans.decode import decode, frames
from mribatch.scans.dicom.selection import Selection
from mribatch.scans.reading import ONE_FRAME, Reading
from mribatch.schema import Reason, Status
from mribatch.settings.score import ScoreConfig
from tests.frames import only
from tests.unit.dicom_files import SPEC, clean, coded, compressed, picture, slice_of, written

DAMAGED = coded(picture(), JPEG2000Lossless)[:2000] + b"\xff\xd9"
FUNCTIONAL = ["ORIGINAL", "PRIMARY", "FMRI", "NONE"]


def config(output: Path, **settings: object) -> ScoreConfig:
    return ScoreConfig(model="m", input=("scans",), output=str(output), **settings)  # type: ignore[arg-type]


def reading(**selection: object) -> Reading:
    return Reading(selection=Selection(**selection))  # type: ignore[arg-type]


def is_done_under(row: dict[str, str | None], then: Reading) -> bool:
    table = pa.table({name: pa.array([row.get(name)], pa.string()) for name in ("reason", "reading")})
    done: list[bool] = is_done(table, then.digests).to_pylist()
    return done[0]


def row_of(data: bytes, under: Reading) -> dict[str, str | None]:
    frame = only(decode(data, SPEC, under))
    return {"reason": frame.reason, "reading": frame.reading}


def test_a_picture_depends_on_no_setting() -> None:
    row = row_of(b"\xff\xd8\xff cut", reading())
    assert row["reading"] is None
    assert is_done_under(row, reading(select="all", window="computed"))


def test_a_skipped_file_is_done_until_another_selection_asks_for_it() -> None:
    row = row_of(written(clean(ImageType=FUNCTIONAL)), reading())
    assert row["reason"] == "functional"
    assert is_done_under(row, reading(window="computed", max_frames=7))
    assert not is_done_under(row, reading(select="mr"))
    assert not is_done_under(row, reading(series_match="t1"))


def test_a_scored_file_is_done_until_another_window_is_asked_for() -> None:
    row = row_of(written(clean()), reading())
    assert is_done_under(row, reading(select="all", max_frames=7))
    assert not is_done_under(row, reading(window="computed"))


def test_a_damaged_frame_is_done_until_another_window_is_asked_for() -> None:
    row = row_of(compressed(JPEG2000Lossless, [DAMAGED]), reading())
    assert row["reason"] == Reason.CORRUPT
    assert is_done_under(row, reading(select="all"))
    assert not is_done_under(row, reading(window="computed"))


@pytest.mark.parametrize("outcome", ["opened", "damaged", "skipped", "rejected"])
def test_a_raised_version_of_an_outcome_plans_its_rows_alone(outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "opened": row_of(written(clean()), reading()),
        "damaged": row_of(compressed(JPEG2000Lossless, [DAMAGED]), reading()),
        "skipped": row_of(written(clean(ImageType=FUNCTIONAL)), reading()),
        "rejected": row_of(written(clean())[:-2000], reading()),
    }
    monkeypatch.setitem(reading_module._VERSIONS, outcome, 99)
    assert [name for name, row in rows.items() if not is_done_under(row, reading())] == [outcome]


def test_what_is_scored_and_skipped_in_outputs_of_today_is_done() -> None:
    """Change these digests only with pixels or kinds: all such files of all outputs are then read again."""
    assert reading().of_opened == "634fccbf69bf"
    assert reading().of_volumes == "7711fe97c981"
    assert reading().of_skipped == "e295f9b34586"
    assert reading().of_unknown == "9856191ed568"


def test_a_file_of_too_many_frames_is_done_until_more_are_allowed() -> None:
    frames = slice_of(picture()[None].repeat(3, 0), BitsStored=12, HighBit=11)
    row = row_of(written(frames), ONE_FRAME)
    assert row["reason"] == Reason.TOO_LARGE
    assert is_done_under(row, ONE_FRAME)
    assert not is_done_under(row, reading())


@pytest.mark.parametrize("reason", ["unsupported_format", "not_an_image"])
def test_a_file_of_a_format_that_an_older_version_did_not_know_is_read_again_once(reason: str) -> None:
    assert not is_done_under({"reason": reason, "reading": None}, reading())
    row = row_of(b"GIF89a  ", reading())
    assert row["reason"] == "unsupported_format"
    assert is_done_under(row, reading(select="all"))


@pytest.mark.parametrize("reason", [None, "truncated", "vanished", "timed_out"])
def test_all_other_rows_of_an_older_version_stay(reason: str | None) -> None:
    assert is_done_under({"reason": reason, "reading": None}, reading())


def test_frames_are_decoded_one_at_a_time() -> None:
    data = slice_of(picture()[None].repeat(3, 0), BitsStored=12, HighBit=11)
    first = next(frames(written(data), SPEC))
    assert (first.frame, first.frames, first.format, first.kind) == (0, 3, "DICOM", "anatomical")
    assert (first.width_px, first.height_px, first.plane, first.slice_mm) == (64, 64, "axial", 42.5)
    assert first.pixels is not None
    assert first.pixels.shape == (32, 32, 3)


def test_a_file_is_ok_if_a_frame_is_and_counts_once() -> None:
    statuses = {"a": ("skipped", "ok", "rejected"), "b": ("skipped", "rejected"), "c": ("skipped", "skipped")}
    rows = [
        {"scan_uri": uri, "scan_version": "1", "frame": number, "status": status}
        for uri, frames in statuses.items()
        for number, status in enumerate(frames)
    ]
    table = outcomes(pa.Table.from_pylist(rows))
    assert dict(zip(table["scan_uri"].to_pylist(), table["status"].to_pylist(), strict=True)) == {
        "a": Status.OK,
        "b": Status.REJECTED,
        "c": Status.SKIPPED,
    }


def test_parts_of_the_first_version_are_read_with_nulls() -> None:
    old = pa.table({"scan_uri": ["a"], "scan_version": ["1"], "frame": pa.array([0], pa.int32()), "status": ["ok"]})
    assert schema.upgraded(old, ["scan_uri", "kind"]).to_pylist() == [{"scan_uri": "a", "kind": None}]
    with pytest.raises(KeyError, match="run_id"):
        schema.upgraded(old)


# The secret of identifiers


def test_the_key_file_is_made_once_for_its_owner_only_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "key"
    made = reading_of(config(tmp_path / "out", identifier_key=str(file)))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == ["key"]
    assert reading_of(config(tmp_path / "out", identifier_key=str(file))) == made
    assert file.read_text().strip() not in repr(made)
    keyed = only(decode(written(clean()), SPEC, made))
    assert keyed.patient_key is not None
    assert len(keyed.patient_key) == 32
    assert keyed.pixels_sha256 is None, "no row of a prediction has it, and it takes longer than to resize the scan"


def test_no_key_file_is_made_for_identifiers_that_need_none(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for mode in ("plain", "none"):
        assert (
            reading_of(config(tmp_path / "out", identifiers=mode, identifier_key=str(file))).identifiers.secret == b""
        )
    assert not file.exists()


def test_a_key_file_that_cannot_be_used_is_refused_with_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short = tmp_path / "short"
    short.write_text("abc\n")
    for place, words in (
        (str(short), "less than 16 bytes"),
        (str(tmp_path / "out" / "key"), "inside the output"),
        ("s3://bucket/key", "a file of this machine"),
        (str(short / "below"), "--identifiers none"),
        (str(tmp_path), "Is a directory"),
    ):
        with pytest.raises(ConfigError, match=words):
            identifier_secret(place, str(tmp_path / "out"))
    assert f"file {tmp_path}:" not in caplog.text, "chmod 600 on a folder would lock its owner out"


def test_without_a_folder_for_the_default_key_file_the_columns_stay_empty_and_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert reading_of(config(tmp_path / "out")).identifiers.mode == "none"
    assert "stay empty" in caplog.text
    with pytest.raises(ConfigError, match="--identifier-key"):
        reading_of(config(tmp_path / "out", identifier_key=str(tmp_path / "file" / "key")))


def test_a_key_file_that_others_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "key"
    file.write_text("0123456789abcdef0123\n")
    file.chmod(0o644)
    assert identifier_secret(str(file), str(tmp_path / "out")) == b"0123456789abcdef0123"
    assert "chmod 600" in caplog.text


def test_a_pattern_that_is_no_regular_expression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--series-skip must be a regular expression, got '\('"):
        config(tmp_path, series_skip="(")
