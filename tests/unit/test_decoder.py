"""Decoding in a separate process: a scan that kills or hangs it costs only that scan."""

import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mribatch.errors import DecoderLost
from mribatch.scans.limits import ImageSpec
from mribatch.scans.sandbox import Decoder
from mribatch.schema import Reason, Status
from tests.frames import decode, only
from tests.sabotage.sabotage_words import HANGS, KILLS, RAISES
from tests.unit.dicom_files import picture, slice_of, written
from tests.unit.volume_files import as_zip

SPEC = ImageSpec(side_px=32)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """Return a decoder whose process some scans kill or hang."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "sabotage"))
    return Decoder(SPEC, timeout_s=1.0)


def scan() -> bytes:
    data = io.BytesIO()
    Image.linear_gradient("L").save(data, "PNG")
    return data.getvalue()


def process_of(decoder: Decoder) -> int:
    assert decoder._process is not None
    return decoder._process.pid


def test_a_scan_is_decoded_as_in_the_process_itself(decoder: Decoder) -> None:
    sandboxed, direct = only(decoder.decode(scan())), decode(scan(), SPEC)
    assert sandboxed == direct
    assert sandboxed.pixels is not None
    assert direct.pixels is not None
    assert (sandboxed.pixels == direct.pixels).all()


def test_bad_bytes_get_their_own_reason_from_there(decoder: Decoder) -> None:
    assert only(decoder.decode(b"")).reason is Reason.EMPTY
    assert only(decoder.decode(scan()[:100])).reason is Reason.TRUNCATED


def test_a_scan_that_kills_its_decoder_is_rejected_and_the_next_one_is_decoded(decoder: Decoder) -> None:
    killed = only(decoder.decode(KILLS))
    assert (killed.status, killed.reason) == (Status.REJECTED, Reason.CRASHED_DECODER)
    assert "SIGSEGV" in str(killed.detail)
    assert only(decoder.decode(scan())).status is Status.OK


def test_a_scan_that_hangs_its_decoder_is_rejected_and_the_next_one_is_decoded(decoder: Decoder) -> None:
    hung = only(decoder.decode(HANGS))
    assert (hung.status, hung.reason) == (Status.REJECTED, Reason.TIMED_OUT)
    assert only(decoder.decode(scan())).status is Status.OK


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_decoder_that_someone_kills_costs_no_scan(decoder: Decoder, number: int) -> None:
    assert only(decoder.decode(scan())).status is Status.OK
    os.kill(process_of(decoder), number)
    assert only(decoder.decode(scan())).status is Status.OK


def test_a_decoder_that_someone_stops_costs_no_scan(decoder: Decoder) -> None:
    assert only(decoder.decode(scan())).status is Status.OK
    os.kill(process_of(decoder), signal.SIGSTOP)
    assert only(decoder.decode(scan())).status is Status.OK


def test_its_peak_memory_is_known(decoder: Decoder) -> None:
    assert decoder.peak_bytes() == 0
    only(decoder.decode(scan()))
    assert decoder.peak_bytes() > 10 << 20


def test_a_large_scan_does_not_wait_for_ever_for_a_decoder_that_is_stopped(decoder: Decoder) -> None:
    assert only(decoder.decode(scan())).status is Status.OK
    os.kill(process_of(decoder), signal.SIGSTOP)
    assert only(decoder.decode(scan() + bytes(4_000_000))).status is Status.OK


def test_a_decoder_that_cannot_start_is_not_the_scans_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mribatch.scans.sandbox._MAIN", "raise SystemExit(1)")
    with pytest.raises(DecoderLost, match="exit code 1"):
        only(Decoder(SPEC).decode(scan()))


def test_a_scan_that_makes_decoding_raise_has_failed_with_the_cause_and_the_process_lives_on(decoder: Decoder) -> None:
    assert only(decoder.decode(scan())).status is Status.OK
    before = process_of(decoder)
    raised = only(decoder.decode(RAISES))
    assert (raised.status, raised.reason) == (Status.FAILED, Reason.UNFORESEEN)
    assert str(raised.detail).startswith("ZeroDivisionError in ")
    assert "JOHN" not in str(raised.detail)
    assert only(decoder.decode(scan())).status is Status.OK
    assert process_of(decoder) == before


# Files of many frames


def many(frames: int) -> bytes:
    pixels = np.stack([np.roll(picture(), number, axis=1) for number in range(frames)])
    return written(slice_of(pixels, BitsStored=12, HighBit=11, WindowCenter=2000, WindowWidth=4000))


def test_frames_travel_in_pieces(decoder: Decoder) -> None:
    pieces = list(decoder.pieces(many(70)))
    assert [len(piece) for piece in pieces] == [32, 32, 6]
    assert [frame.frame for piece in pieces for frame in piece] == list(range(70))
    assert {frame.frames for piece in pieces for frame in piece} == {70}
    assert only(decoder.decode(scan())).status is Status.OK


def test_a_decoder_that_is_killed_between_pieces_costs_no_frame(decoder: Decoder) -> None:
    numbers = []
    for piece in decoder.pieces(many(1000)):
        numbers += [frame.frame for frame in piece]
        if len(numbers) == 64:
            os.kill(process_of(decoder), signal.SIGKILL)
    assert numbers == list(range(1000))


# Archives


def members(*contents: bytes) -> bytes:
    return as_zip({f"{number}": content for number, content in enumerate(contents)})


def test_a_decoder_that_is_killed_within_an_archive_costs_no_member_and_repeats_none(decoder: Decoder) -> None:
    data, names = members(*[scan()] * 40, many(70), *[scan()] * 40), []
    for number, piece in enumerate(decoder.pieces(data)):
        names += [(frame.name, frame.frame) for frame in piece]
        if number in (0, 2):
            os.kill(process_of(decoder), signal.SIGKILL)
    assert names == [(str(n), f) for n in range(81) for f in range(70 if n == 40 else 1)]


def test_a_member_that_kills_or_breaks_its_decoder_costs_only_itself(decoder: Decoder) -> None:
    frames = decoder.decode(members(scan(), KILLS, scan(), RAISES, scan()))
    assert [(frame.name, frame.reason) for frame in frames] == [
        *[("0", None), ("1", "crashed_decoder"), ("2", None), ("3", "unforeseen"), ("4", None)]
    ]
    assert {frame.members for frame in frames} == {5}


def test_after_three_such_members_the_rest_is_given_up(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mribatch.scans.sandbox._PAUSES_S", (0.0, 0.0))
    frames = decoder.decode(members(KILLS, scan(), KILLS, KILLS, scan(), scan()))
    lost = "crashed_decoder"
    assert [(frame.name, frame.member, frame.reason) for frame in frames] == [
        *[("0", 0, lost), ("1", 1, None), ("2", 2, lost), ("3", 3, lost), ("4", 4, lost), ("5", 5, lost)]
    ]
    assert only(decoder.decode(scan())).status is Status.OK


def test_a_scan_of_which_nobody_takes_the_rest_leaves_the_decoder_usable(decoder: Decoder) -> None:
    pieces = decoder.pieces(many(1000))
    next(pieces)
    pieces.close()
    assert only(decoder.decode(scan())).status is Status.OK


def test_a_scan_that_takes_more_memory_than_allowed_is_rejected_and_the_next_one_is_decoded() -> None:
    hungry = Decoder(ImageSpec(side_px=32), timeout_s=20.0)
    image = Image.new("L", (4000, 4000))
    data = io.BytesIO()
    image.save(data, "TIFF", compression="tiff_lzw")
    small = Decoder(ImageSpec(side_px=32, max_memory_bytes=90_000_000), timeout_s=20.0)
    assert only(small.decode(data.getvalue())).reason is Reason.TOO_LARGE
    assert only(hungry.decode(data.getvalue())).status is Status.OK
